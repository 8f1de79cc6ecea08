# SPDX-License-Identifier: Apache-2.0
"""Counts of a launch on cgroup v2: under emulation times mean nothing, counts what they ever do."""

import pytest

from bench import counts
from bench.check import compare, least, load

pytestmark = pytest.mark.needs("cgroup2", "root", "strace")
SECTION = "launch.root-cgroup2"


def test_a_launch_stays_below_its_ceilings(record_property):
    found = {}
    for way in ("oneshot", "live"):
        for name, value in least(counts.launches(way, times=4)).items():
            found[f"{way}_{name}"] = value
            record_property(f"{way}_{name}", value)
    ceilings = load()
    assert SECTION in ceilings, f"[{SECTION}] has no ceilings; counted: {found}"
    wrong, _ = compare({SECTION: found}, ceilings)
    assert wrong == []
