# SPDX-License-Identifier: Apache-2.0
"""Every limit on cgroup v2: what crosses it is held or killed, what stays just below is not."""

import sys

import pytest

from isolate import LimitHit, Sandbox

pytestmark = pytest.mark.needs("cgroup2")
EAT = "b = b'x' * ({} << 20)"
SLACK = 90  # seconds: emulated processors


def python(code, **short):
    return Sandbox(timeout=SLACK, **short).run([sys.executable, "-c", code], capture_output=True)


def test_a_plain_run():
    done = Sandbox(timeout=SLACK).run(["cat", "/proc/self/cgroup"], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"0::/\n")


def test_more_memory_than_allowed_is_told_from_a_plain_kill():
    done = python(EAT.format(200), mem="64M")
    assert done.outcome == LimitHit("memory", 64 << 20, 64 << 20)
