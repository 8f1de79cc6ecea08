"""Each kind of mount, seen from inside; read-only means read-only; nothing reaches the caller."""

import errno
import os
from pathlib import Path

import pytest

from isolate import Chroot, HostLacks, LaunchError, Mount, PolicyConflict, PolicyError, Sandbox
from tests.live.helpers import bare, out


@pytest.fixture(autouse=True)
def unchanged():
    before = Path("/proc/self/mountinfo").read_text()
    yield
    assert Path("/proc/self/mountinfo").read_text() == before


def options(run, target):
    """The mount options of the last mount on a path."""
    text = out(run, "cat /proc/self/mountinfo")
    rows = [line.split() for line in text.splitlines()]
    return next(row[5].split(",") for row in reversed(rows) if row[4] == target)


def test_a_bind_is_read_only_unless_said(tmp_path):
    (tmp_path / "a").write_text("x")
    tmp_path.chmod(0o755)
    box = Sandbox(Mount.bind(tmp_path, "/mnt/in"))
    assert out(box.run, "cat /mnt/in/a") == "x"
    done = box.run(["sh", "-c", "echo y > /mnt/in/a"], capture_output=True, text=True)
    assert "Read-only" in done.stderr
    assert {"ro", "nosuid", "nodev"} <= set(options(box.run, "/mnt/in"))
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.needs("idmap")
def test_a_writable_bind_writes_as_the_caller(tmp_path):
    box = Sandbox(Mount.bind(tmp_path, "/mnt/out", writable=True))
    assert out(box.run, "echo y > /mnt/out/new; cat /mnt/out/new") == "y\n"
    assert (tmp_path / "new").read_text() == "y\n"
    assert (tmp_path / "new").stat().st_uid == os.geteuid()


def test_what_is_mounted_below_a_bind_is_read_only_too():
    box = Sandbox(Mount.bind("/dev", "/mnt/dev"))
    text = out(box.run, "cat /proc/self/mountinfo")
    rows = [line.split() for line in text.splitlines() if line.split()[4].startswith("/mnt/dev")]
    assert len(rows) >= 1
    assert all("ro" in row[5].split(",") for row in rows)


def test_a_tmpfs_is_empty_writable_and_bounded():
    box = Sandbox(Mount.tmpfs("/mnt/scratch", size="1M"))
    assert out(box.run, "ls -A /mnt/scratch; echo x > /mnt/scratch/a; cat /mnt/scratch/a") == "x\n"
    done = box.run(
        ["sh", "-c", "head -c 4M /dev/zero > /mnt/scratch/big"], capture_output=True, text=True
    )
    assert "No space" in done.stderr


def test_files_directories_and_links_are_made():
    box = Sandbox(
        Mount.file("/srv/a.txt", b"content", mode=0o600),
        Mount.file("/srv/run", b"#!/bin/sh\necho ran\n", mode=0o755),
        Mount.dir("/srv/d", mode=0o711),
        Mount.symlink("a.txt", "/srv/link"),
    )
    script = "stat -c %a /srv/d; readlink /srv/link; /srv/run; stat -c %a /srv/a.txt"
    assert out(box.run, script).split() == ["711", "a.txt", "ran", "600"]
    assert not os.path.exists("/srv/run")


def test_proc_is_the_pid_namespaces_with_the_machines_knobs_closed():
    box = Sandbox()
    seen = out(box.run, "ls /proc | grep -E '^[0-9]+$'").split()
    assert "pytest" not in out(box.run, "cat /proc/[0-9]*/cmdline")
    assert len(seen) < 8
    done = box.run(["sh", "-c", "echo x > /proc/sys/kernel/core_pattern"], capture_output=True)
    assert done.returncode != 0
    assert out(box.run, "cat /proc/kallsyms /proc/keys 2>/dev/null; true") == ""
    assert {"nosuid", "nodev", "noexec"} <= set(options(box.run, "/proc"))


def test_dev_has_a_few_harmless_devices_and_a_terminal_system_of_its_own():
    names = set(out(Sandbox().run, "ls /dev").split())
    assert names == set(
        "null zero full random urandom tty fd stdin stdout stderr ptmx pts shm".split()
    )
    assert out(Sandbox().run, "ls /dev/pts").split() == ["ptmx"]
    done = Sandbox().run(["mknod", "/tmp/d", "c", "1", "3"], capture_output=True)
    assert done.returncode != 0


def test_a_bare_mount_is_seen_inside_only():
    with bare(mount=True), Mount.tmpfs("/mnt") as scope:
        assert out(scope.run, "echo x > /mnt/only-inside; ls /mnt") == "only-inside\n"
    assert not os.path.exists("/mnt/only-inside")


def test_a_mount_alone_brings_its_namespace():
    with bare(), Mount.tmpfs("/mnt") as scope:
        assert out(scope.run, "touch /mnt/x && ls /mnt") == "x\n"
    assert not os.path.exists("/mnt/x")


def test_two_things_at_one_place_are_a_conflict():
    with pytest.raises(PolicyConflict, match="/mnt"):
        Sandbox(Mount.tmpfs("/mnt"), Mount.dir("/mnt"))
    same = Mount.tmpfs("/mnt", size="1M")
    assert Sandbox(same, same).policy.mounts.count(same) == 1


def test_a_missing_source_names_the_mount_and_what_to_do(tmp_path):
    absent = Mount.bind(tmp_path / "absent", "/mnt/x")
    with pytest.raises(LaunchError) as caught:
        Sandbox(absent).run(["true"])
    assert (caught.value.errno, caught.value.origin) == (errno.ENOENT, absent)
    assert "must exist" in caught.value.hint


def test_a_link_below_a_target_does_not_lead_out(tmp_path):
    """RESOLVE_IN_ROOT: the target of a mount is resolved inside the new root."""
    root, canary = tmp_path / "root", tmp_path / "canary"
    for each in (root, canary):
        each.mkdir()
        each.chmod(0o755)
    tmp_path.chmod(0o755)
    (root / "out").symlink_to(canary)
    (root / "usr").mkdir()
    with pytest.raises((LaunchError, HostLacks)):
        Sandbox(Chroot(root, mounts=[Mount.file("/out/made", b"x")])).run(["true"])
    assert list(canary.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Mount.tmpfs("relative"), "absolute"),
        (lambda: Mount.tmpfs("/a/../b"), r"\.\."),
        (lambda: Mount.tmpfs("/a", size="12 parsecs"), "size"),
        (lambda: Mount.file("/a", "text"), "bytes"),
        (lambda: Mount.bind("/a\0b", "/c"), "NUL"),
        (lambda: Mount(kind="floppy", target="/a"), "floppy"),
        (lambda: Mount(kind="bind", target="/a"), "source"),
    ],
)
def test_a_mount_that_means_nothing_is_refused(make, why):
    with pytest.raises(PolicyError, match=why):
        make()
