"""moby's own fixtures and small profiles, with what its tests expect of them; where we differ, why.

Source of the expectations: the tests beside the profile in github.com/moby/profiles, seccomp.
"""

import json

import pytest

from isolate import Errno, PolicyError, SeccompFilter
from isolate.abi.syscalls import ARCHES, numbers
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.view import View, passing
from isolate.policy import seccomp_docker
from isolate.policy.rules import ALLOW, Compare
from isolate.policy.seccomp_load import parse
from tests.conftest import TEST_DATA
from tests.documented import DOCUMENTED, LET_IN

MOBY = TEST_DATA / "moby-seccomp"
with_data = pytest.mark.needs("testdata")


def loaded(name, *caps):
    return SeccompFilter.load(MOBY / name, caps).layers[0]


def small(**document):
    return parse(document, arch="x86_64", caps=frozenset(), kernel=(6, 18))


@with_data
def test_the_example_has_four_rules_and_its_own_errnos():
    layer = loaded("example.json")
    assert layer.default == Errno(1)
    clone, *others = layer.rules
    assert (clone.syscall, clone.action) == ("clone", ALLOW)
    (test,) = clone.conditions
    assert (test.index, test.compare, test.mask, test.value) == (
        0, Compare.MASKED_EQ, 2114060288, 0,
    )  # fmt: skip
    # moby keeps 12345; the kernel caps an errno at 4095, and so do we
    assert [(rule.syscall, rule.action, rule.conditions) for rule in others] == [
        ("open", ALLOW, ()),
        ("close", ALLOW, ()),
        ("syslog", Errno(4095), ()),
    ]


@with_data
def test_the_old_format_is_whole():
    document = json.loads((MOBY / "default-old-format.json").read_text())
    assert len(document["syscalls"]) == 311
    layer = loaded("default-old-format.json")
    assert layer.default == Errno("EPERM")
    assert (layer.rules[0].syscall, layer.rules[0].action) == ("accept", ALLOW)
    assert layer.rules[0].conditions == ()
    wanted = SeccompFilter.load(MOBY / "default-old-format.json")
    # x32 is in its list of architectures, and is never let in: it is told, not dropped in silence
    assert "SCMP_ARCH_X32" in wanted.skipped
    entries = {entry["name"] for entry in document["syscalls"]}
    assert entries - {rule.syscall for rule in layer.rules} == set(wanted.skipped) & entries


@with_data
@pytest.mark.parametrize(
    ("caps", "expected"),
    [
        ((), ["chmod", "ptrace"]),
        (("SYSLOG",), ["chmod", "syslog", "ptrace"]),
        (("SYS_ADMIN",), ["chmod"]),
    ],
)
def test_conditions_on_capabilities_are_resolved(caps, expected):
    assert [rule.syscall for rule in loaded("conditional_include.json", *caps).rules] == expected


@with_data
def test_the_default_loads_for_every_architecture():
    document = json.loads((MOBY / "default.json").read_text())
    for arch in ("x86_64", "aarch64", "riscv64"):
        found = parse(document, arch=arch, caps=frozenset(), kernel=(6, 18))
        assert len(found.layer.rules) > 350
        assert assemble(found.layer, arch)


def test_an_errno_of_the_default_action_is_taken():
    assert small(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=6).layer.default == Errno(6)


def test_flags_are_read():
    flags = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]
    assert list(small(defaultAction="SCMP_ACT_ERRNO", flags=flags).flags) == flags


def test_a_listener_is_refused_where_moby_passes_it_on():
    """Its runtime would talk to that socket; here notifications go to our own supervisor."""
    with pytest.raises(PolicyError, match="listenerPath: is refused"):
        small(defaultAction="SCMP_ACT_ERRNO", listenerPath="/var/run/agent.sock")


@pytest.mark.parametrize(
    "wrong",
    [
        {"architectures": ["A", "B"], "archMap": [{"architecture": "A", "subArchitectures": []}]},
        {"syscalls": [{"name": "accept", "names": ["accept"], "action": "SCMP_ACT_ALLOW"}]},
    ],
)
def test_what_contradicts_itself_is_refused(wrong):
    with pytest.raises(PolicyError, match="use one"):
        small(defaultAction="SCMP_ACT_ERRNO", **wrong)


def least_kernel(value):
    entry = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": value}}
    return small(defaultAction="SCMP_ACT_ERRNO", syscalls=[entry]).layer.rules


@pytest.mark.parametrize(
    "value", [3, 3.12, True, "0.0", "3", ".3", "3.", "true", '3.12.1"', "4.15abc"]
)
def test_what_is_no_kernel_version_is_refused(value):
    with pytest.raises(PolicyError, match="kernel version"):
        least_kernel(value)


@pytest.mark.parametrize(
    ("value", "here"), [(None, 1), ("0.5", 1), ("0.50", 1), ("5.0", 1), ("50.0", 0), ("4.15", 1)]
)
def test_a_kernel_version_is_compared(value, here):
    assert len(least_kernel(value)) == here


# -- what the documentation says


def docker(arch, *caps):
    space = Diagrams()
    layer = seccomp_docker.layer(arch=arch, caps=frozenset(caps), kernel=(6, 18))
    return View(space, passing(space, [assemble(layer, arch)]), arch)


@pytest.mark.parametrize("arch", ARCHES)
def test_what_is_documented_as_blocked_is_let_in_by_no_argument(arch):
    view = docker(arch)
    assert [call for call in DOCUMENTED if view.lets(call)] == []
    for call in LET_IN:
        assert view.lets(call) or call not in numbers(arch), call
    assert not view.found("clone", view.any_bit(0, 0x7E020000))
    assert view.found("personality", view.any_bit(0, 0x0040000 | 0x0100000)).args[0] == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("cap", "calls"),
    [
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_ADMIN", "bpf mount umount2 setns unshare clone3 quotactl lookup_dcookie"),
        ("CAP_SYS_TIME", "clock_settime settimeofday"),
        ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
        ("CAP_SYS_NICE", "mbind set_mempolicy get_mempolicy"),
        ("CAP_SYS_RAWIO", "iopl ioperm"),
        ("CAP_SYS_PTRACE", "kcmp process_madvise"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_SYS_BOOT", "reboot"),
    ],
)
def test_the_documented_capability_lets_a_call_in(cap, calls):
    without, with_it = docker("x86_64"), docker("x86_64", cap)
    for call in calls.split():
        assert not without.lets(call), call
        assert with_it.lets(call), call
