# SPDX-License-Identifier: Apache-2.0
"""The VM leg passes for a guest that said so, and for nothing else."""

import subprocess
from pathlib import Path

import pytest

VERDICT = Path(__file__).resolve().parents[2] / "tools" / "vm" / "verdict"


def verdict(folder, *users):
    return subprocess.run(
        [VERDICT, folder, "virtme-run: 124", *users], capture_output=True, text=True
    )


@pytest.fixture
def passed(tmp_path):
    for user in ("root", "ordinary"):
        (tmp_path / f"{user}.status").write_text("0\n")
        (tmp_path / f"{user}.xml").write_text("<testsuites/>")
        (tmp_path / f"{user}.log").write_text("3 passed")
    return tmp_path


def test_two_zeros_are_a_pass(passed):
    done = verdict(passed, "root", "ordinary")
    assert (done.returncode, done.stdout.count("3 passed")) == (0, 2)


def test_a_guest_that_wrote_no_status_failed(passed):
    (passed / "ordinary.status").unlink()
    done = verdict(passed, "root", "ordinary")
    assert done.returncode == 1
    assert (
        "ordinary: pytest's status: none: the guest died or hung (virtme-run: 124)" in done.stdout
    )


@pytest.mark.parametrize("status", ["1", "5", "", "0 0", "no"])
def test_any_other_status_failed(passed, status):
    (passed / "root.status").write_text(status)
    assert verdict(passed, "root", "ordinary").returncode == 1


def test_a_status_without_its_xml_failed(passed):
    (passed / "root.xml").write_text("")
    assert verdict(passed, "root", "ordinary").returncode == 1


def test_nobody_asked_is_no_pass(passed):
    assert verdict(passed).returncode == 1
