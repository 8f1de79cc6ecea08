"""Refused calls in words, whatever the bytes are; tables of arguments that fit the kernel's."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolate import Errno, Violation
from isolate.abi import words
from isolate.abi.signatures import ENUMS, params, pointer_free, table
from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, numbers
from isolate.abi.words import in_words
from isolate.learning import learnt
from isolate.policy.rules import ALLOW
from isolate.supervise.violations import address, described, merged, name_on, scalars

WORD = st.integers(0, (1 << 64) - 1)


def test_every_listed_call_exists_and_has_at_most_six_arguments():
    known = {name for arch in ARCHES for name in numbers(arch)}
    assert set(table()) <= known
    for name, found in table().items():
        assert len(found) <= 6, name
        assert len({each.name for each in found}) == len(found), name


def test_every_kind_is_one_that_can_be_shown():
    kinds = {each.kind for found in table().values() for each in found}
    plain = {"str", "addr", "ptr", "int", "hex", "fd", "pid", "oct"}
    assert kinds <= plain | set(words.BITS) | set(words.NAMES)
    assert set(words.BITS) | set(words.NAMES) >= ENUMS


def test_a_socket_address_is_followed_by_its_length():
    for name, found in table().items():
        for index, each in enumerate(found):
            if each.kind == "addr":
                assert found[index + 1].name.endswith("len"), name


def test_only_calls_without_pointers_are_free_of_them():
    assert pointer_free("getppid")
    assert pointer_free("kill")
    assert pointer_free("socket")
    for name in ("openat", "connect", "ioctl", "clone", "prctl", "keyctl", "fcntl", "bpf"):
        assert not pointer_free(name)
    assert not pointer_free("timer_delete")  # not listed, so not known


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("clone", 0x10000011, "SIGCHLD|CLONE_NEWUSER"),
        ("namespace", 0x80, "CLONE_NEWTIME"),
        ("open", 0o2000102, "O_RDWR|O_CREAT|O_CLOEXEC"),
        ("open", 0, "O_RDONLY"),
        ("family", 16, "AF_NETLINK"),
        ("family", 38, "AF_ALG"),
        ("family", 40, "AF_VSOCK"),
        ("family", 200, "0xc8"),
        ("socktype", 3, "SOCK_RAW"),
        ("prot", 7, "PROT_READ|PROT_WRITE|PROT_EXEC"),
        ("mount", 0x1001, "MS_RDONLY|MS_BIND"),
        ("umount", 2, "MNT_DETACH"),
        ("umount", 0x100, "0x100"),
        ("ioctl", 0x5412, "TIOCSTI"),
        ("signal", 9, "SIGKILL"),
        ("rlimit", 7, "RLIMIT_NOFILE"),
        ("bpf", 5, "BPF_PROG_LOAD"),
        ("ptrace", 16, "PTRACE_ATTACH"),
        ("keyctl", 1, "KEYCTL_JOIN_SESSION_KEYRING"),
    ],
)
def test_numbers_have_the_manual_pages_words(kind, value, text):
    assert in_words(kind, value) == text


@given(st.sampled_from([*words.BITS, *words.NAMES]), WORD)
def test_any_number_has_some_words(kind, value):
    assert in_words(kind, value)
    assert in_words("int", value) is None


def test_flags_in_words_lose_no_bit():
    for kind, (bits, mask, _) in words.BITS.items():
        for bit in bits:
            assert in_words(kind, bit) == bits[bit] or mask or bit == 0
        assert "0x" in in_words(kind, 1 << 31)


def test_arguments_are_shown_by_their_kind():
    data = (b"/etc/shadow", b"")
    args = ((1 << 64) - 100, 0x7F00, 0o102, 0o644, 9, 9)
    assert described("openat", args, data) == (
        "dirfd=AT_FDCWD", "path='/etc/shadow'", "flags=O_RDWR|O_CREAT", "mode=0o644",
    )  # fmt: skip
    assert described("kill", ((1 << 64) - 1, 9, 0, 0, 0, 0), ()) == ("pid=-1", "sig=SIGKILL")
    assert described("sync", (1, 2, 3, 4, 5, 6), ()) == ()
    assert described("syscall_999", (1, 255), ()) == ("1", "0xff")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x02\x00\x12\x67\x7f\x00\x00\x01" + bytes(8), "127.0.0.1:4711"),
        (b"\x0a\x00\x00\x50" + bytes(4) + bytes(15) + b"\x01" + bytes(4), "[::1]:80"),
        (b"\x01\x00/run/x\x00junk", "unix:'/run/x'"),
        (b"\x01\x00\x00name", "unix:@'name'"),
        (b"\x10\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00", "netlink:pid=7,groups=0x1"),
        (b"\x28\x00\x00\x01", "AF_VSOCK:0001"),
        (b"", "nothing"),
        (b"\x02", "b'\\x02'"),
        (b"\x02\x00\x12", "AF_INET:12"),
    ],
)
def test_addresses_are_in_words(data, text):
    assert address(data) == text


SIX = st.lists(WORD, min_size=6, max_size=6)
BYTES = st.binary(max_size=256)


@given(st.sampled_from(sorted(table())), SIX, BYTES, BYTES)
def test_no_bytes_from_inside_break_a_report(name, args, one, two):
    seen = Violation(
        syscall=name, args=tuple(args), decoded=described(name, tuple(args), (one, two))
    )
    text = str(seen)
    assert text.isprintable() or "\\" in text
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 4000
    assert pickle.loads(pickle.dumps(seen)) == seen
    assert hash(seen) == hash(pickle.loads(pickle.dumps(seen)))


def test_a_violation_reads_like_a_sentence():
    seen = Violation(
        syscall="chroot", decoded=("path='/'",), pid=7, count=3, where="evil.py:12"
    )
    assert str(seen) == "chroot(path='/'): errno(EPERM), 3 times, pid 7, at evil.py:12"
    assert str(Violation(syscall="sync", pid=1)) == "sync(): errno(EPERM), pid 1"


def test_numbers_without_a_name_are_told_as_numbers():
    assert name_on(AUDIT_ARCH["x86_64"], 59) == "execve"
    assert name_on(AUDIT_ARCH["i386"], 11) == "execve"
    assert name_on(AUDIT_ARCH["x86_64"], 5000) == "syscall_5000"
    assert name_on(0x1234, 1) == "syscall_1"


def test_equal_kinds_of_several_programs_are_one():
    one = Violation(syscall="mount", decoded=("x",), pid=1, count=2)
    two = Violation(syscall="mount", decoded=("x",), pid=5, count=3)
    other = Violation(syscall="mount", decoded=("y",), pid=5)
    both = Violation(syscall="mount", decoded=("x",), pid=1, count=5)
    assert merged([one, other, two]) == (both, other)


def test_pointers_tell_no_kinds_apart():
    assert scalars("openat", (5, 0x7000, 2, 0o644)) == (5, 2, 0o644)
    assert scalars("nosuch", (1, 2)) == ()


# -- learning, from records


def seen(name, *args, action=ALLOW):
    known = params(name) or ()
    return Violation(syscall=name, args=(*args, *[0] * (len(known) - len(args))), action=action)


def test_few_arguments_are_conditions_and_many_are_none():
    wanted = learnt([
        seen("socket", 1, 1), seen("socket", 2, 1), seen("read", 3),
        *(seen("ioctl", 0, 0x5400 + n) for n in range(20)),
        seen("mount", action=Errno("EPERM")),
    ])  # fmt: skip
    allowed = [
        ("socket", (1, 1), True), ("socket", (2, 1), True), ("socket", (10, 1), False),
        ("ioctl", (0, 0x5412), True), ("read", (9,), True), ("mount", (), False),
        ("execve", (), True), ("exit_group", (), True), ("futex", (), True),
    ]  # fmt: skip
    for name, args, ok in allowed:
        answer = wanted.evaluate(name, *args, arch="x86_64").action
        assert (answer == ALLOW) == ok, (name, args)
    assert wanted.evaluate("clone3", arch="x86_64").action == Errno("ENOSYS")


def test_a_table_that_was_full_teaches_nothing():
    from isolate import IsolateError

    with pytest.raises(IsolateError, match="kinds"):
        learnt([seen("read"), Violation(syscall="others", count=9, action=ALLOW)])
