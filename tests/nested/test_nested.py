"""What a container forbids is HostLacks with what to do; what can work does, and says how far."""

import os
import re
import sys
from pathlib import Path

import pytest

import isolate
from isolate import (
    CapabilitySet,
    HostLacks,
    Mount,
    Namespace,
    Rlimit,
    Sandbox,
    SeccompFilter,
    TimedOut,
)
from isolate.host.probe import probe

KIND = os.environ.get("ISOLATE_NESTED", "")
KINDS = ("user", "mount", "pid", "net", "ipc", "uts", "cgroup")
ALL = {*KINDS, "root", "ids", "pids", "proc", "hostname"}
# What has to be given up for a Sandbox() to start in each kind of container.
GIVEN_UP = {
    "docker": ALL,
    "podman": {"proc", "hostname"},
    "unfiltered": {"proc"},
    "unmasked": set(),
    "bwrap": set(),
    "bwrap-root": {"ids"},
}
HAS_BOX = tuple(kind for kind in GIVEN_UP if kind != "docker")
pytestmark = pytest.mark.needs("nested")


def only(*kinds):
    return pytest.mark.skipif(KIND not in kinds, reason=f"not in {KIND or 'the host leg'}")


def weak(**short):
    return Sandbox(weaken=GIVEN_UP[KIND], **short)


def sh(script, box, **options):
    done = box.run(["sh", "-c", script], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def weakened(result):
    return {each.name: each.by for each in result.guarantees if each.verdict == "weakened"}


def read_map(pid, which="uid"):
    lines = Path(f"/proc/{pid}/{which}_map").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines]


def attempt(given_up):
    try:
        return Sandbox(weaken=given_up).run(["true"])
    except HostLacks as lack:
        return lack


def test_no_refusal_is_bare():
    """Give up what is named, one after the other, until it starts: each step says what to do."""
    given_up: set[str] = set()
    while isinstance(found := attempt(given_up), HostLacks):
        assert found.what not in given_up, found
        assert found.why
        assert "weaken=" in found.hint
        if found.what != "pids":
            assert re.search("container|--security-opt|--userns", found.hint), found
        given_up.add(found.what)
    done = found
    assert done.returncode == 0
    assert given_up <= GIVEN_UP[KIND]
    # Second locks, which need no giving up, are told as well.
    assert set(weakened(done)) - {"landlock", "reports"} == given_up


@only("docker")
def test_a_filter_that_forbids_namespaces_is_named_with_the_option():
    assert "clone" in probe().refused
    with pytest.raises(HostLacks, match="seccomp=unconfined") as caught:
        Sandbox().run(["true"])
    assert caught.value.what == "user"
    with pytest.raises(HostLacks, match="--security-opt seccomp="):
        Sandbox().call(sum, [1])


@only("docker")
def test_a_bare_namespace_is_refused_by_its_kind():
    for kind in KINDS:
        with (
            Namespace(**{kind: True}) as scope,
            pytest.raises(HostLacks, match="seccomp=unconfined") as caught,
        ):
            scope.run(["true"])
        assert caught.value.what == kind


@only("docker")
def test_what_needs_no_namespace_still_holds():
    script = "grep -E 'Cap(Eff|Bnd)|NoNewPrivs|Seccomp:' /proc/self/status; ulimit -c; env"
    done = weak(timeout=20).run(["sh", "-c", script], capture_output=True, text=True)
    status = dict(line.split(":\t") for line in done.stdout.splitlines() if ":\t" in line)
    assert status == {
        "CapEff": "0" * 16,
        "CapBnd": "0" * 16,
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    assert "\n0\n" in done.stdout  # no core dumps
    assert "ISOLATE_NESTED" not in done.stdout  # a clean environment
    assert set(weakened(done)) >= set(KINDS) | {"root", "ids"}


@only("docker")
def test_nothing_survives_a_box_without_a_pid_namespace():
    sh("setsid sleep 321 >/dev/null 2>&1 & sleep 0.2", weak())
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(b"321" in line for line in lines)


@only("docker")
def test_bare_limits_and_filters_work_without_namespaces():
    with Rlimit(nofile=17) as scope:
        assert scope.run(["sh", "-c", "ulimit -n"], capture_output=True).stdout == b"17\n"
    with SeccompFilter.deny("mkdir", "mkdirat") as scope:
        assert scope.run(["mkdir", "/tmp/x"], stderr=-3).returncode == 1
    with CapabilitySet("CHOWN") as scope:
        done = scope.run(["grep", "CapEff", "/proc/self/status"], capture_output=True)
        assert done.stdout.split()[1] == b"0000000000000001"
    assert not os.path.exists("/tmp/x")


@only("podman", "unfiltered")
def test_masks_on_proc_are_named_with_the_option():
    with pytest.raises(HostLacks, match=r"masks lie on /proc .*") as caught:
        Sandbox().run(["true"])
    assert caught.value.what == "proc"
    assert "systempaths=unconfined" in caught.value.hint
    assert "unmask=ALL" in caught.value.hint


@only("podman", "unfiltered")
def test_a_weakened_proc_is_empty_and_says_so():
    done = weak().run(["ls", "-A", "/proc"], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "masks" in weakened(done)["proc"]
    assert weak().run(["touch", "/proc/x"], capture_output=True).returncode != 0


@only("podman", "unfiltered")
def test_the_containers_own_proc_can_be_shared_on_purpose():
    box = Sandbox(Mount.bind("/proc", "/proc"), weaken=GIVEN_UP[KIND])
    # It is the outer pid namespace's: a process of ours has another number there.
    pid, own = sh("echo $$; readlink /proc/self", box).split()
    assert pid != own
    kept = box.run(["sh", "-c", "echo 1 > /proc/sys/kernel/domainname"], capture_output=True)
    assert kept.returncode != 0
    peek = box.run(["cat", f"/proc/{os.getpid()}/environ"], capture_output=True)
    assert peek.stdout == b""


@only("podman")
def test_a_filter_that_forbids_sethostname_is_told():
    with pytest.raises(HostLacks, match="seccomp=unconfined") as caught:
        Sandbox(weaken={"proc"}).run(["true"])
    assert caught.value.what == "hostname"
    done = weak().run(["uname", "-n"], capture_output=True, text=True)
    assert "hostname" in weakened(done)
    assert done.stdout != "sandbox\n"


@only("unfiltered", "unmasked", "bwrap")
def test_the_hostname_is_the_boxs_own():
    assert sh("uname -n", weak()) == "sandbox\n"


@only(*HAS_BOX)
def test_the_containers_files_processes_and_network_are_out_of_reach():
    secret = Path("/tmp/canary-of-the-container")
    secret.write_text("x")
    try:
        box = weak()
        script = f"ls {secret} /etc/shadow; touch /usr/x; ls /sys"
        done = box.run(["sh", "-c", f"({script}) 2>&1"], capture_output=True, text=True)
        assert len(done.stdout.splitlines()) == 4, done.stdout
        code = (
            "import os, socket\n"
            f"print({secret.name!r} in os.listdir('/tmp'), os.getpid() < 20, socket.if_nameindex())"
        )
        told = box.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert told.stdout == "False True [(1, 'lo')]\n", told.stderr
    finally:
        secret.unlink()


@only(*HAS_BOX)
def test_calls_limits_and_the_end_of_a_box_work():
    assert weak().call(sorted, [3, 1, 2]) == [1, 2, 3]
    assert weak(timeout=0.3).run(["sleep", "60"]).outcome == TimedOut(0.3)
    with weak() as box:
        box.run(["sh", "-c", "setsid sleep 654 >/dev/null 2>&1 &"])
        pid = box.pid
    assert not os.path.exists(f"/proc/{pid}")


@only("podman", "unfiltered", "unmasked")
def test_root_without_sys_admin_gives_each_box_its_own_id():
    with weak() as a, weak() as b:
        ids = [{outside for _, outside, _ in read_map(box.pid)} for box in (a, b)]
    assert not ids[0] & ids[1]
    assert all(number >= 1 << 30 for each in ids for number in each)
    assert "ids" not in weakened(a)


@only("podman", "unfiltered", "unmasked")
def test_files_that_root_would_have_to_idmap_are_refused_or_the_callers(tmp_path):
    with pytest.raises(HostLacks, match="idmapped") as caught:
        Sandbox(write=[tmp_path], weaken=GIVEN_UP[KIND] - {"ids"}).run(["true"])
    assert caught.value.what == "ids"
    box = Sandbox(write=[tmp_path], weaken=GIVEN_UP[KIND] | {"ids"})
    done = box.run(["sh", "-c", f"echo in > {tmp_path}/out"])
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "in\n"
    assert (tmp_path / "out").stat().st_uid == 0
    assert "idmapped" in weakened(done)["ids"]


@only("bwrap-root")
def test_root_of_one_id_is_refused_or_weakened():
    with pytest.raises(HostLacks, match="only 1 user ids are mapped") as caught:
        Sandbox().run(["true"])
    assert caught.value.what == "ids"
    assert "CAP_SETUID" in caught.value.hint
    with weak() as box:
        assert [line[1:] for line in read_map(box.pid)] == [(0, 1)]
        assert sh("id -u", box) == "1000\n"
        done = box.run(["sh", "-c", "grep CapEff /proc/self/status"], capture_output=True)
        assert done.stdout.split()[1] == b"0" * 16


@only("bwrap")
def test_an_ordinary_user_in_bwrap_has_the_whole_box():
    assert os.geteuid() != 0
    done = Sandbox().run(["sh", "-c", "id -u; ls /proc/self/fd | wc -l"], capture_output=True)
    assert weakened(done) == {}
    assert done.stdout.split()[0] == b"1000"


def test_memory_without_a_cgroup_is_refused_or_said():
    with pytest.raises(HostLacks) as caught:
        weak(mem="64M").run(["true"])
    assert caught.value.what == "memory"
    done = Sandbox(mem="64M", weaken=GIVEN_UP[KIND] | {"memory"}).run(["true"])
    assert "memory" in weakened(done)


@only(*HAS_BOX)
def test_a_box_in_a_box_is_refused_by_name():
    """Our own default filter is a container's filter for the isolate inside."""
    code = (
        "import isolate\n"
        "try: isolate.Sandbox().run(['true'])\n"
        "except isolate.HostLacks as lack: print(lack.what, 'seccomp' in str(lack))\n"
    )
    root = os.path.dirname(os.path.dirname(isolate.__file__))
    done = weak(read=[root], env={"PYTHONPATH": root}).run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout == "user True\n", done.stderr


@only("podman", "unfiltered", "unmasked", "bwrap")
def test_mounts_imply_a_mount_namespace():
    """Otherwise they would be made in the container's own: nothing of them may be seen there."""
    before = Path("/proc/self/mountinfo").read_text()
    with Namespace(user=True), Mount.tmpfs("/tmp") as scope:
        done = scope.run(["sh", "-c", "ls -A /tmp && touch /tmp/x"], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not os.path.exists("/tmp/x")
