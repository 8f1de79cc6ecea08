"""Asking the kernel: what an answer means, and who is asked where."""

import errno
import os

import pytest

from isolate.abi.syscalls import numbers
from isolate.host import asking, confinement, lsm, seccomp

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of x86_64")
TABLE = numbers("x86_64")
STATUS = "Name:\tx\nSeccomp:\t{}\nSeccomp_filters:\t1\nEmpty:\n"


def told(monkeypatch, answer):
    """Every call is answered by a function of (number, arguments)."""
    asked = []

    def answers(calls, filtered=None):
        asked.append((list(calls), filtered))
        return [answer(*call) for call in calls]

    monkeypatch.setattr(asking, "answers", answers)
    return asked


def own(number, *_):
    """The kernel's own answer."""
    for name, (_, expected) in confinement.HARMLESS.items():
        if TABLE[name] == number:
            return -expected
    raise AssertionError(number)


def test_a_field_is_read_whole_and_by_its_own_name():
    assert asking.status_field(STATUS.format(2), "Seccomp") == "2"
    assert asking.status_field(STATUS.format(2), "Seccomp_filters") == "1"
    assert asking.status_field(STATUS.format(2), "Sec") == ""
    assert asking.status_field(STATUS.format(2), "Empty") == ""


@pytest.mark.parametrize(("mode", "filtered"), [("0", False), ("1", True), ("2", True)])
def test_a_filter_is_told_by_the_status(mode, filtered):
    assert asking.is_filtered(STATUS.format(mode)) is filtered


def test_a_kernel_without_seccomp_has_no_filter():
    assert asking.is_filtered("Name:\tx\n") is False


def test_without_a_proc_a_copy_asks(monkeypatch):
    monkeypatch.setattr(asking, "STATUS", "/no/such/file")
    for answer, filtered in ((0, False), (2, True), (None, True), (-errno.EPERM, True)):
        monkeypatch.setattr(asking, "in_a_copy", lambda calls, answer=answer: [answer])
        assert asking.is_filtered() is filtered
    monkeypatch.undo()
    monkeypatch.setattr(asking, "STATUS", "/no/such/file")
    here = asking.status_field(open("/proc/self/status").read(), "Seccomp") == "2"
    assert asking.is_filtered() is here


def test_without_a_filter_no_copy_is_made(monkeypatch):
    def none(calls):
        raise AssertionError("a copy")

    monkeypatch.setattr(asking, "in_a_copy", none)
    assert asking.answers([(TABLE["close"], 999)], filtered=False) == [-errno.EBADF]


def test_with_a_filter_a_copy_is_asked_and_its_first_answer_is_our_own(monkeypatch):
    seen = []

    def copy(calls):
        seen.extend(calls)
        return list(range(len(calls)))

    monkeypatch.setattr(asking, "in_a_copy", copy)
    assert asking.answers([(7,), (8,)], filtered=True) == [1, 2]
    assert seen[0][:2] == (TABLE["prctl"], asking.PR_SET_DUMPABLE)


def test_a_buffer_goes_as_its_address():
    import ctypes

    name = ctypes.create_string_buffer(16)
    assert asking.direct((TABLE["prctl"], 16, name)) == 0  # PR_GET_NAME
    assert name.value


# ---- what is refused -------------------------------------------------------------------------


def test_a_filter_that_lets_all_through_refuses_nothing(monkeypatch):
    told(monkeypatch, own)
    assert confinement.refused_calls("x86_64", filtered=True) == ()


@pytest.mark.parametrize("answer", [-errno.EPERM, -errno.ENOSYS, -errno.EACCES, None])
def test_another_errno_and_death_are_refusals(monkeypatch, answer):
    told(monkeypatch, lambda *_: answer)
    found = set(confinement.refused_calls("x86_64", filtered=True))
    assert found == set(confinement.HARMLESS) - ({"keyctl"} if answer == -errno.ENOSYS else set())


def test_each_is_told_by_its_own_name(monkeypatch):
    for name in confinement.HARMLESS:
        told(monkeypatch, lambda n, *_, name=name: None if n == TABLE[name] else own(n))
        assert confinement.refused_calls("x86_64", filtered=True) == (name,)


def test_a_machine_without_a_table_is_not_asked(monkeypatch):
    asked = told(monkeypatch, own)
    assert confinement.refused_calls("m68k", filtered=True) == ()
    assert confinement.refused_calls("x86_64", filtered=False) == ()
    assert not asked


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (7, (7, "")),
        (2, (2, "")),
        (None, (0, "a seccomp filter around this process kills for landlock_create_ruleset")),
        (-errno.ENOSYS, (0, "the kernel is built without Landlock")),
        (-errno.EIO, (0, "landlock_create_ruleset: Input/output error")),
    ],
)
def test_landlock_s_level_or_why_there_is_none(monkeypatch, answer, found):
    told(monkeypatch, lambda *_: answer)
    assert lsm.landlock() == found


# ---- what filters may be installed with -----------------------------------------------------


def flags(monkeypatch, mode, answer):
    asked = told(monkeypatch, answer)
    return seccomp.probe_flags(STATUS.format(mode)), asked


def known(number, mode, flag, *_):
    return -errno.EFAULT


def test_every_flag_that_the_kernel_knows_is_told(monkeypatch):
    (found, why), asked = flags(monkeypatch, 0, known)
    assert (set(found), why) == (set(seccomp.FLAGS), "")
    assert len(asked) == 1  # no listener is tried where there is no filter


def test_an_old_kernel_knows_fewer(monkeypatch):
    def old(number, mode, flag, *_):
        return -errno.EFAULT if flag in (1, 4, 8) else -errno.EINVAL

    (found, why), _ = flags(monkeypatch, 0, old)
    assert (found, why) == (("tsync", "spec_allow", "new_listener"), "")


@pytest.mark.parametrize("answer", [None, -errno.EPERM, -errno.ENOSYS])
def test_a_filter_that_keeps_seccomp_from_us_leaves_none(monkeypatch, answer):
    (found, why), _ = flags(monkeypatch, 2, lambda *_: answer)
    assert (found, why) == ((), "the kernel, or a filter above, knows no listeners")


@pytest.mark.parametrize(
    ("privs", "listener", "why"),
    [
        (0, 5, ""),
        (0, -errno.EBUSY, seccomp.NESTED),
        (0, -errno.EPERM, "no listener: Operation not permitted"),
        (0, None, "no listener: a filter above kills for it"),
        (None, None, "no_new_privs can't be set: a filter above kills for it"),
        (-errno.EPERM, -errno.EACCES, "no_new_privs can't be set: Operation not permitted"),
    ],
)
def test_under_a_filter_a_listener_is_tried(monkeypatch, privs, listener, why):
    def answer(number, first, *rest):
        if number == TABLE["prctl"]:
            return privs
        return -errno.EFAULT if rest[-1] == 0 else listener

    (found, told_why), asked = flags(monkeypatch, 2, answer)
    assert told_why == why
    assert ("new_listener" in found) == (why == "")
    assert ("wait_killable_recv" in found) == (why == "")
    assert "tsync" in found
    assert asked[-1][1] is True  # in a copy, always
