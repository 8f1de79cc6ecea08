"""What is new is new, what is joined is the other's, and everything else is refused by name."""

import ctypes
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import isolate
from isolate import (
    HostLacks,
    IdMap,
    LaunchError,
    Mount,
    Namespace,
    PolicyConflict,
    PolicyError,
    Sandbox,
    allow,
)
from isolate.abi.flags import NAMESPACES
from isolate.policy.namespace import started
from isolate.supervise import joining
from tests.live.helpers import ROOT, bare, out

FILES = {
    "user": "user",
    "mount": "mnt",
    "pid": "pid",
    "net": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time",
}
JOINING = [allow.OtherNamespaces()]
# An ordinary user has rights over namespaces through the user namespace that owns them.
WITH = () if ROOT else ("user",)


def of_here(kind):
    return os.readlink(f"/proc/self/ns/{FILES[kind]}")


def inside(kind, run):
    done = run(["readlink", f"/proc/self/ns/{FILES[kind]}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def of_box(kind, box):
    """What its programs are in; a cgroup namespace is made anew for each of them, below init's."""
    return os.readlink(box.namespaces[kind]) if kind == "cgroup" else inside(kind, box.run)


@contextmanager
def stranger(*options):
    """A process in namespaces of its own, that this library has not made."""
    user = () if ROOT else ("--user", "--map-root-user")
    argv = ["unshare", *user, *options, "--fork", "--kill-child", "sleep", "60"]
    process = subprocess.Popen(argv)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 10
        while time.monotonic() < end:
            child = children.read_text().split()
            if child and Path(f"/proc/{child[0]}/comm").read_text() == "sleep\n":
                break
            time.sleep(0.01)
        yield int(child[0])
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", sorted(set(NAMESPACES) - {"user", "mount"}))
def test_a_new_namespace_is_another_and_the_rest_is_the_callers(kind):
    with bare(**{kind: True}) as scope:
        assert inside(kind, scope.run) != of_here(kind)
        for other in set(NAMESPACES) - {kind, "user", "mount"}:
            assert inside(other, scope.run) == of_here(other)


def test_a_sandbox_is_elsewhere_in_every_kind_but_time():
    with Sandbox().open() as box:
        for kind in NAMESPACES:
            assert (inside(kind, box.run) == of_here(kind)) is (kind == "time")


def test_id_maps_are_what_was_written():
    uid = os.geteuid()
    maps = (IdMap(7, uid),)
    with Namespace(user=True, uid_map=maps, gid_map=(IdMap(8, os.getegid()),)) as scope:
        text = out(scope.run, "cat /proc/self/uid_map /proc/self/gid_map")
    assert [line.split() for line in text.splitlines()] == [
        ["7", str(uid), "1"],
        ["8", str(os.getegid()), "1"],
    ]


@pytest.mark.needs("unprivileged")
def test_a_map_that_the_caller_may_not_write_names_the_step():
    with (
        Namespace(user=True, uid_map=(IdMap(0, 12345),), gid_map=(IdMap(0, 0),)) as scope,
        pytest.raises(LaunchError, match="uid_map") as caught,
    ):
        scope.run(["true"])
    assert caught.value.hint


def test_clocks_have_their_offsets():
    def uptime(run):
        code = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME))"
        done = run([sys.executable, "-c", code], capture_output=True, text=True)
        return float(done.stdout)

    with bare(time=True, boottime_offset=86400.0) as scope:
        shifted = uptime(scope.run)
    assert shifted > time.clock_gettime(time.CLOCK_BOOTTIME) + 80000


# -- joining


def test_a_box_shares_the_network_of_another_like_containers_do():
    code = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 4711)); print('up', flush=True)\n"
        "c, _ = s.accept(); c.sendall(b'from the first'); c.close()"
    )
    ask = (
        "import socket\n"
        "print(socket.create_connection(('127.0.0.1', 4711), 5).recv(99).decode())"
    )
    with Sandbox().open() as first:
        server = first.popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"up\n"
        second = Sandbox(Namespace.of(first, "net", *WITH), allow=JOINING)
        done = second.run([sys.executable, "-c", ask], capture_output=True, text=True)
        assert done.stdout == "from the first\n", done.stderr
        assert server.wait(10) == 0
        server.stdout.close()
        # Its own in everything else, and a third has no way there.
        assert inside("ipc", second.run) != inside("ipc", first.run)
        assert inside("pid", second.run) != inside("pid", first.run)
        assert Sandbox().run([sys.executable, "-c", ask], stderr=-3).returncode == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 4711), 1)


@pytest.mark.parametrize("kind", ["net", "ipc", "uts", "cgroup", "pid", "time"])
def test_each_kind_of_a_box_can_be_joined_by_itself(kind):
    with Sandbox(time=True).open() as box:
        theirs = of_box(kind, box)
        with Namespace.of(box, kind, *WITH) as scope:
            assert inside(kind, scope.run) == theirs
            for other in set(NAMESPACES) - {kind, "user"}:
                assert inside(other, scope.run) == of_here(other)
        assert theirs != of_here(kind)


def test_a_joined_user_namespace_is_the_others():
    with Sandbox().open() as box:
        theirs = inside("user", box.run)
        with Namespace.of(box, "user") as scope:
            assert inside("user", scope.run) == theirs
            ids = out(scope.run, "id -u")
        assert ids == ("0\n" if os.geteuid() == 0 else "1000\n")


def test_a_joined_mount_namespace_has_the_others_files():
    with (
        Sandbox(files={"mark": b"theirs"}).open() as box,
        Namespace.of(box, "mount", "user") as scope,
    ):
        assert out(scope.run, "cat /tmp/mark") == "theirs"
        assert not Path("/tmp/mark").exists()


def test_a_joined_pid_namespace_shows_and_reaches_its_processes():
    with Sandbox().open() as box:
        sleeper = box.popen(["sleep", "60"])
        with Namespace.of(box, "pid", "user", "mount") as scope:
            seen = out(scope.run, "ps -o pid= -C sleep || pgrep -x sleep").split()
            assert len(seen) == 1
            assert seen[0] != str(sleeper.pid)
            assert scope.run(["kill", "-9", "2147483647"], stderr=-3).returncode != 0
        sleeper.kill()
        sleeper.wait()


def test_all_of_a_box_can_be_joined_at_once():
    with Sandbox().open() as box:
        theirs = {kind: of_box(kind, box) for kind in NAMESPACES}
        with Namespace.of(box) as scope:
            assert {kind: inside(kind, scope.run) for kind in NAMESPACES} == theirs


def test_a_stranger_can_be_joined_by_pid_and_pidfd():
    with stranger("--uts", "--net") as pid:
        theirs = os.readlink(f"/proc/{pid}/ns/uts")
        with Namespace.of(pid, "uts", *WITH) as scope:
            assert inside("uts", scope.run) == theirs
        pidfd = os.pidfd_open(pid)
        try:
            with Namespace.of(pidfd, "uts", "net", *WITH, pidfd=True) as scope:
                assert inside("uts", scope.run) == theirs
                assert inside("net", scope.run) == os.readlink(f"/proc/{pid}/ns/net")
            with open(pidfd, closefd=False) as file, Namespace.of(file, "uts", *WITH) as scope:
                assert inside("uts", scope.run) == theirs
        finally:
            os.close(pidfd)
        assert theirs != of_here("uts")


def test_without_kinds_what_differs_is_joined():
    with stranger("--uts") as pid:
        joins = dict(Namespace.of(pid).joins)
        assert set(joins) == {"uts", *WITH}


def test_files_and_paths_of_namespaces_can_be_joined():
    with Sandbox().open() as box:
        theirs = inside("net", box.run)
        if ROOT:
            with open(box.namespaces["net"]) as file, Namespace.of(file, "net") as scope:
                assert inside("net", scope.run) == theirs
            with Namespace.of(box.namespaces["net"]) as scope:
                assert inside("net", scope.run) == theirs
        else:
            both = Namespace(
                joins=tuple((kind, f"path:{box.namespaces[kind]}") for kind in ("user", "net"))
            )
            with both as scope:
                assert inside("net", scope.run) == theirs
        assert set(box.namespaces) == set(NAMESPACES)


@pytest.mark.needs("root", "idmap")
def test_a_pinned_namespace_can_be_joined(tmp_path):
    pin = tmp_path / "net"
    pin.touch()
    libc = ctypes.CDLL(None, use_errno=True)
    with Sandbox().open() as box:
        theirs = inside("net", box.run)
        source = os.fsencode(box.namespaces["net"])
        assert libc.mount(source, os.fsencode(pin), None, 4096, None) == 0  # MS_BIND
    try:  # the box has ended: the mount alone keeps it
        with Namespace.of(pin, "net") as scope:
            assert inside("net", scope.run) == theirs
    finally:
        assert libc.umount2(os.fsencode(pin), 2) == 0


def test_init_stays_out_of_the_callers_memory_and_nothing_is_left():
    with Sandbox().open() as box, Namespace.of(box, "net", *WITH) as scope:
        before = set(os.listdir("/proc/self/task"))
        assert scope.run(["true"]).returncode == 0
        assert inside("net", scope.run) != of_here("net")
        assert set(os.listdir("/proc/self/task")) <= before | set(os.listdir("/proc/self/task"))
    assert os.readlink("/proc/self/ns/net") == of_here("net")


def test_a_daemon_in_joined_namespaces_ends_with_the_block():
    with Sandbox().open() as box:
        kinds = ("net", *WITH)
        with Namespace.of(box, *kinds) as scope:
            scope.run(["sh", "-c", "setsid sleep 987 >/dev/null 2>&1 & sleep 0.2"])
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
        assert b"sleep\x00987\x00" not in lines


def test_a_sandbox_joins_only_with_its_token():
    with Sandbox().open() as box:
        with pytest.raises(PolicyError, match=r"allow\.OtherNamespaces"):
            Sandbox(Namespace.of(box, "net"))
        joined = Sandbox(Namespace.of(box, "net", *WITH), allow=JOINING)
        verdicts = {each.name for each in joined.run(["true"]).guarantees}
        assert "joined net" in verdicts
        assert "net" not in verdicts


def test_a_sandbox_in_anothers_user_namespace_has_no_more_rights():
    with Sandbox().open() as box:
        joined = Sandbox(Namespace.of(box, "user", "net"), allow=JOINING)
        text = out(joined.run, "grep -E 'Cap|NoNew' /proc/self/status; id -u")
        assert text.split()[-1] == "1000"
        assert {line.split()[1] for line in text.splitlines()[:-1]} == {"0" * 16, "1"}


# -- what can't be joined


def refused(spaces, **kinds):
    with (spaces if not kinds else bare(**kinds)) as scope, pytest.raises(LaunchError) as caught:
        scope.run(["true"])
    assert caught.value.hint
    return str(caught.value)


def test_a_reused_pid_is_refused():
    with stranger("--uts") as pid:
        other = Namespace(joins=(("uts", f"pid:{pid}:{started(pid) + 1}"),))
        text = refused(other)
        assert "ESRCH" in text
        assert "another's" in text


def test_a_process_that_has_ended_is_refused():
    with stranger("--uts") as pid:
        spaces = Namespace.of(pid, "uts")
        pidfd = os.pidfd_open(pid)
    try:
        end = time.monotonic() + 10
        while not joining.ended(pidfd) and time.monotonic() < end:
            time.sleep(0.01)
        assert "ESRCH" in refused(spaces)
        assert "ESRCH" in refused(Namespace.of(pidfd, "uts", pidfd=True))
    finally:
        os.close(pidfd)
    with pytest.raises(PolicyError, match="no process"):
        Namespace.of(2**22 + 5, "net")


def test_a_file_of_another_kind_is_refused(tmp_path):
    assert "EINVAL" in refused(Namespace.of("/proc/self/ns/uts", "net"))
    plain = tmp_path / "plain"
    plain.touch()
    assert "no namespace of this kind" in refused(Namespace.of(plain, "net"))
    assert "ENOENT" in refused(Namespace.of(tmp_path / "absent", "net"))
    os.mkfifo(tmp_path / "pipe")
    assert "EINVAL" in refused(Namespace.of(tmp_path / "pipe", "net"))


def test_a_closed_descriptor_is_refused():
    with open("/proc/self/ns/net") as file:
        spaces = Namespace.of(file, "net")
    assert "EBADF" in refused(spaces)


def test_the_callers_own_user_namespace_is_refused_and_its_others_are_nothing_to_do():
    assert "already" in refused(Namespace.of(os.getpid(), "user"))
    with Namespace.of(os.getpid(), "net", "uts") as scope:
        assert inside("net", scope.run) == of_here("net")


@pytest.mark.needs("unprivileged")
def test_an_ordinary_user_is_told_to_join_the_user_namespace_too():
    with Sandbox().open() as box:
        assert '"user"' in refused(Namespace.of(box, "net"))
    # pid 1 is root's
    assert "trace" in refused(Namespace.of(1, "net"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Namespace.of(1, "network"), "no namespace kind"),
        (lambda: Namespace.of("/tmp"), "say its kind"),
        (lambda: Namespace.of("/proc/self/ns/net", "net", "uts"), "say its kind"),
        (lambda: Namespace.of(True, "net"), "must be text"),
        (lambda: Namespace(net=True) | Namespace.of(1, "net"), "both new and joined"),
        (lambda: Namespace.of(1, "net") | Namespace.of(os.getpid(), "net"), "two namespaces"),
    ],
)
def test_joins_that_mean_nothing_are_refused_before_anything_starts(make, why):
    with pytest.raises(PolicyError, match=why):
        make()


def test_mounts_into_a_joined_namespace_are_a_conflict():
    with (
        Sandbox().open() as box, Namespace.of(box, "mount", "user"),
        Mount.tmpfs("/tmp") as scope,
        pytest.raises(PolicyConflict),
    ):
        scope.run(["true"])


def test_a_filter_that_refuses_setns_is_host_lacks():
    code = (
        "import isolate, os\n"
        "try:\n"
        "    with isolate.Namespace.of('/proc/self/ns/net') as scope: scope.run(['true'])\n"
        "except isolate.HostLacks as lack: print(lack.what)\n"
    )
    root = os.path.dirname(os.path.dirname(isolate.__file__))
    box = Sandbox(read=[root], env={"PYTHONPATH": root})
    done = box.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "join\n", done.stderr
    assert issubclass(HostLacks, isolate.IsolateError)
