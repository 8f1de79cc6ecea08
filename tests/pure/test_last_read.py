"""Counters that are read while another thread closes the box: the last that were whole."""

import pytest

from isolate.plan.model import Plan
from isolate.supervise.cgroupfs import Counters
from isolate.supervise.launch import Session

GOOD, BROKEN = Counters(cpu=2.0, oom_kills=3), Counters(cpu=0.0)


class Leaf:
    """One that is being removed: its files end under the reader's hands."""

    directories = {"pids": "/nowhere"}

    def __init__(self, session, error=None):
        self.session, self.error = session, error

    def counters(self):
        self.session.closed = self.session.closing
        if self.error:
            raise self.error
        return BROKEN


def session(closing, error=None):
    found = Session(Plan())
    found.closing, found.counted = closing, GOOD
    found.made.leaf = Leaf(found, error)
    return found


@pytest.mark.parametrize("error", [None, OSError(19, "No such device")])
def test_a_box_that_is_closed_meanwhile_keeps_what_was_counted(error):
    assert session(True, error).counters() == GOOD


def test_an_open_box_has_what_is_read_now():
    assert session(False).counters() == BROKEN


def test_a_file_that_cannot_be_read_in_an_open_box_is_told():
    with pytest.raises(OSError, match="device"):
        session(False, OSError(19, "No such device")).counters()
