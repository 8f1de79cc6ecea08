"""The five sets, as the kernel shows them inside; what they let, and what they don't."""

import subprocess
import sys

import pytest

from isolate import CapabilitySet, LaunchError, Namespace, PolicyError, Sandbox, allow
from isolate.abi.caps import CAPABILITIES, DOCKER, mask, names_of
from tests.live.helpers import ROOT, status

FIELDS = {
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}


def here():
    """An ordinary user has capabilities only over a user namespace of its own."""
    return Namespace() if ROOT else Namespace(user=True)


def sets(caps):
    with here(), caps as scope:
        found = status(scope.run)
    return {name: names_of(int(found[row], 16)) for name, row in FIELDS.items()}


@pytest.mark.parametrize(
    "caps",
    [
        CapabilitySet.none(),
        CapabilitySet.docker(),
        CapabilitySet("NET_BIND_SERVICE"),
        CapabilitySet("CHOWN", "KILL"),
        CapabilitySet(bounding=["CHOWN", "KILL"]),
        CapabilitySet("CHOWN", ambient=(), effective=(), bounding=["CHOWN", "FOWNER"]),
    ],
    ids=lambda caps: ",".join(sorted(caps.permitted | caps.bounding))[:40] or "none",
)
def test_a_program_of_another_uid_has_just_these(caps):
    """Of a Sandbox, whose programs are no root: what is ambient lives through exec."""
    box = Sandbox(caps=caps, allow=[allow.Capabilities()])
    found = status(box.run)
    for name, row in FIELDS.items():
        got = names_of(int(found[row], 16))
        # exec: permitted is what is ambient; effective too; inheritable and bounding stay.
        expected = caps.ambient if name in ("effective", "permitted") else getattr(caps, name)
        assert got == expected, name


def test_none_is_none_and_stays_none():
    found = sets(CapabilitySet.none())
    assert set(found.values()) == {frozenset()}
    # SECBIT_NOROOT is locked: uid 0 gets nothing back by exec.
    with here(), CapabilitySet.none() as scope:
        done = scope.run(
            ["sh", "-c", "exec sh -c 'grep CapEff /proc/self/status'"], capture_output=True
        )
    assert done.stdout.split()[1] == b"0" * 16


def test_a_capability_lets_and_its_lack_forbids():
    def tried(caps):
        with Namespace(user=True, uts=True), caps as scope:
            return scope.run(["hostname", "x"], stderr=subprocess.DEVNULL).returncode

    assert tried(CapabilitySet("SYS_ADMIN")) == 0
    assert tried(CapabilitySet("CHOWN")) == 1


def test_the_bounding_set_can_not_be_widened_again():
    code = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        f"print([n for n in range({len(CAPABILITIES)}) if libc.prctl(23, n, 0, 0, 0) == 1])"
    )
    with here(), CapabilitySet(bounding=["KILL"]) as scope:
        done = scope.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[5]\n"


def test_the_sets_of_a_process_are_read_from_proc():
    child = subprocess.Popen(["sleep", "20"])
    try:
        found = CapabilitySet.of(child.pid)
    finally:
        child.kill()
        child.wait()
    text = open("/proc/self/status").read()
    effective = next(line for line in text.splitlines() if line.startswith("CapEff"))
    assert mask(found.effective) == int(effective.split()[1], 16)
    with pytest.raises(OSError, match="No such file"):
        CapabilitySet.of(2**22 + 3)


def test_what_is_not_ours_to_give_is_refused():
    if ROOT:
        pytest.skip("root has them all")
    with CapabilitySet("SYS_ADMIN") as scope, pytest.raises(LaunchError) as caught:
        scope.run(["true"])
    assert isinstance(caught.value.origin, CapabilitySet)


def test_a_sandbox_gives_none_without_its_token():
    with pytest.raises(PolicyError, match=r"allow\.Capabilities"):
        Sandbox(CapabilitySet("KILL"))
    assert set(DOCKER) <= set(CAPABILITIES)
