"""Docker's profile: our data against its own JSON, and both through libseccomp's compiler."""

import os
import sys

import pytest

from isolate import CapabilitySet, Errno, PolicyError, Sandbox, SeccompFilter, allow
from isolate.abi.caps import CAPABILITIES
from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.plan.bpf.assemble import assemble
from isolate.plan.bpf.evaluate import run
from isolate.policy.rules import ALLOW, Layer
from tests.conftest import TEST_DATA
from tests.documented import DOCUMENTED
from tests.live.test_seccomp_oracle import agree

ARCH = os.uname().machine
AUDIT = AUDIT_ARCH[ARCH]
TABLE = numbers(ARCH)
MOBY = TEST_DATA / "moby-seccomp"
PODMAN = "/usr/share/containers/seccomp.json"
VALUES = [0, 1, 2, 8, 0x20000, 0x20008, 0xFFFFFFFF, 38, 40, 0x7E020000, 0x10000000, 17, 1 << 32]
def tuples():
    """Every call with the arguments that any rule of such profiles looks at."""
    for call in sorted(TABLE):
        for value in VALUES:
            yield call, (value, value, value)


def answers(wanted):
    program = assemble(wanted.layers[0], ARCH)
    return [run(program, AUDIT, TABLE[call], args).value for call, args in tuples()]


@pytest.mark.needs("testdata")
@pytest.mark.parametrize(
    "caps",
    [
        (),
        CapabilitySet.docker().effective,
        ("SYS_ADMIN",),
        ("BPF",),
        ("SYS_PTRACE",),
        tuple(CAPABILITIES),
    ],
)
def test_our_docker_profile_is_dockers_own(caps):
    ours, theirs = SeccompFilter.docker(caps), SeccompFilter.load(MOBY / "default.json", caps)
    assert answers(ours) == answers(theirs)


@pytest.mark.needs("testdata", "libseccomp")
@pytest.mark.parametrize("name", ["default.json", "default-old-format.json"])
def test_mobys_profiles_agree_with_libseccomp(name):
    through_libseccomp(SeccompFilter.load(MOBY / name, CapabilitySet.docker().effective))


@pytest.mark.needs("testdata")
def test_mobys_small_fixtures_load_as_its_own_tests_expect():
    wanted = SeccompFilter.load(MOBY / "example.json")
    assert wanted.evaluate("clone", 17).action == ALLOW
    assert wanted.evaluate("clone", 0x10000000).action == Errno(1)
    assert wanted.evaluate("close").action == ALLOW
    assert wanted.evaluate("syslog").action == Errno(4095)  # 12345 there; the kernel's most
    assert wanted.evaluate("mkdir").action == Errno(1)
    some = MOBY / "conditional_include.json"
    for caps, allowed in [
        ((), {"chmod", "ptrace"}),
        (("SYSLOG",), {"chmod", "syslog", "ptrace"}),
        (("SYS_ADMIN",), {"chmod"}),
    ]:
        found = SeccompFilter.load(some, caps)
        calls = ("chmod", "syslog", "ptrace", "read")
        assert {call for call in calls if found.evaluate(call).action == ALLOW} == allowed


@pytest.mark.needs("podman", "libseccomp")
def test_podmans_profile_agrees_with_libseccomp():
    through_libseccomp(SeccompFilter.load(PODMAN, CapabilitySet.docker().effective))


def through_libseccomp(wanted):
    """What has an answer of its own in libseccomp: the native calls, one default."""
    given = wanted.layers[0]
    rules = tuple(
        rule for rule in given.rules if rule.syscall in TABLE and rule.action != given.default
    )
    layer = Layer(rules, given.default)
    always = {rule.syscall for rule in rules if not rule.conditions and rule.action == ALLOW}
    mixed = {rule.syscall for rule in rules if rule.action != ALLOW} & always
    calls = [(call, args) for call, args in tuples() if call not in mixed]
    assert len(calls) > 3000
    agree(layer, calls)


def test_what_docker_documents_as_blocked_is_blocked():
    wanted = SeccompFilter.docker()
    for call in DOCUMENTED:
        if call in TABLE:
            verdict = wanted.evaluate(call)
            assert verdict.action != ALLOW, call
    assert wanted.evaluate("clone", 0x10000000).action == Errno("EPERM")
    assert wanted.evaluate("clone3").action == Errno("ENOSYS")
    assert wanted.evaluate("socket", 40).action != ALLOW
    assert wanted.evaluate("personality", 0x40000).action != ALLOW


def test_a_box_under_dockers_profile_alone():
    box = Sandbox(seccomp=SeccompFilter.docker(), allow=[allow.SystemCalls()])
    script = """
import ctypes, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
subprocess.run(["/bin/true"], check=True)
assert libc.unshare(0x10000000) == -1
print(ctypes.get_errno())
"""
    done = box.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_profile_in_a_box():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["mkdir", "mkdirat", "no_such_call"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 30,
            }
        ],
    }
    wanted = SeccompFilter.load(profile)
    assert wanted.skipped == ("no_such_call",)
    script = "import os\ntry: os.mkdir('/tmp/x')\nexcept OSError as e: print(e.errno)"
    done = Sandbox(seccomp=wanted).run([sys.executable, "-c", script], capture_output=True)
    assert done.stdout == b"30\n"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"defaultAction": "SCMP_ACT_MAYBE"},
        {"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/x"},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": "read"}]},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}},
        {"defaultAction": "SCMP_ACT_ERRNO", "sycalls": []},
    ],
)
def test_what_is_no_profile_is_refused(document):
    with pytest.raises(PolicyError):
        SeccompFilter.load(document)
