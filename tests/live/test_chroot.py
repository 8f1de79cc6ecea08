"""The root inside: what is there, what is not, and that the old one is gone."""

import errno
import os
import sys
import tempfile

import pytest

from isolate import Chroot, LaunchError, Mount, PolicyConflict, Sandbox
from tests.live.helpers import bare, out


@pytest.fixture
def tree(tmp_path):
    """A directory with a few of the machine's programs, by binds."""
    root = tmp_path / "root"
    for name in ("usr", "proc", "tmp", "dev"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "mark").write_text("mine")
    for each in (tmp_path, root):
        each.chmod(0o755)
    return root


def view(root, **options):
    return Chroot(root, mounts=[Mount.bind("/usr", "/usr")], **options)


@pytest.mark.needs("idmap")
def test_a_directory_is_the_root_and_nothing_else_is_there(tree):
    box = Sandbox(view(tree), cwd="/")
    assert out(box.run, "cat /mark") == "mine"
    assert set(out(box.run, "ls /").split()) == {
        "bin", "dev", "lib", "lib64", "mark", "proc", "tmp", "usr",
    }  # fmt: skip
    assert out(box.run, f"ls {tree} 2>&1; true").count("No such file") == 1


@pytest.mark.needs("idmap")
def test_a_directory_is_read_only_unless_said(tree):
    done = Sandbox(view(tree), cwd="/").run(["sh", "-c", "echo x > /made"], capture_output=True)
    assert done.returncode != 0
    assert not (tree / "made").exists()
    writable = Sandbox(view(tree, writable=True), cwd="/")
    assert out(writable.run, "echo x > /made; cat /made") == "x\n"
    assert (tree / "made").stat().st_uid == os.geteuid()


def test_dot_dot_and_open_descriptors_lead_nowhere():
    script = "cd /; cd ../../../..; pwd; ls /proc/self/fd"
    text = out(Sandbox().run, script).split()
    assert text[0] == "/"
    for fd in text[1:]:
        assert int(fd) <= 3  # ls' own directory


def test_the_old_root_is_not_below_the_new_one():
    mounts = out(Sandbox().run, "cat /proc/self/mountinfo")
    roots = [line.split() for line in mounts.splitlines() if line.split()[4] == "/"]
    assert roots
    assert all(row[row.index("-") + 1] == "tmpfs" for row in roots)


def test_a_host_view_shows_system_directories_and_nobodys_files():
    box = Sandbox()
    names = set(out(box.run, "ls /").split())
    assert {"usr", "etc", "proc", "dev", "tmp"} <= names
    assert "sys" not in names
    for secret in ("/etc/shadow", "/etc/machine-id", "/root/.bashrc", "/var/log"):
        assert box.run(["ls", secret], capture_output=True).returncode != 0, secret
    users = {line.split(":")[0] for line in out(box.run, "cat /etc/passwd").splitlines()}
    assert users == {"root", "sandbox", "nobody"}
    done = box.run(["touch", "/usr/x"], capture_output=True, text=True)
    assert "Read-only" in done.stderr


def test_the_running_python_is_there_or_not():
    assert Sandbox().run([sys.executable, "-c", "import json"]).returncode == 0
    without = Sandbox(Chroot.host_view(interpreter=False))
    if os.path.realpath(sys.executable).startswith("/usr/"):
        pytest.skip("this Python is the system's, which is there anyway")
    with pytest.raises(LaunchError) as caught:
        without.run([sys.executable, "-c", ""])
    assert caught.value.errno == errno.ENOENT
    assert "read=" in caught.value.hint


@pytest.mark.needs("idmap")
def test_read_and_write_paths_are_at_their_place(tmp_path):
    for name in ("read", "write", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "read" / "a").write_text("x")
    chroot = Chroot.host_view(read=[tmp_path / "read"], write=[tmp_path / "write"])
    box = Sandbox(chroot)
    assert out(box.run, f"cat {tmp_path}/read/a; cp {tmp_path}/read/a {tmp_path}/write/b") == "x"
    assert (tmp_path / "write" / "b").read_text() == "x"
    assert box.run(["touch", f"{tmp_path}/read/c"], capture_output=True).returncode != 0
    assert box.run(["ls", f"{tmp_path}/other"], capture_output=True).returncode != 0


def test_tmp_is_private_and_bounded():
    box = Sandbox(Chroot.host_view(tmp="1M"))
    with tempfile.NamedTemporaryFile(dir="/tmp") as canary:
        assert os.path.basename(canary.name) not in out(box.run, "touch /tmp/own; ls -A /tmp")
    done = box.run(["sh", "-c", "head -c 4M /dev/zero > /tmp/x"], capture_output=True, text=True)
    assert "No space" in done.stderr


@pytest.mark.needs("root")
def test_a_bare_chroot_is_a_root_in_a_mount_namespace_of_its_own(tree):
    here = os.readlink("/proc/self/ns/mnt")
    with Chroot(tree, mounts=[Mount.bind("/usr", "/usr"), Mount.bind("/proc", "/proc")]) as scope:
        text = out(scope.run, "cat /mark; readlink /proc/self/ns/mnt")
    assert text.startswith("mine")
    assert here not in text
    assert os.path.exists("/etc/passwd")  # ours is where it was
    assert os.readlink("/proc/self/ns/mnt") == here


def test_a_missing_root_is_named():
    absent = Chroot("/no/such/root")
    with bare(mount=True), absent as scope, pytest.raises(LaunchError) as caught:
        scope.run(["true"])
    assert caught.value.errno == errno.ENOENT
    assert caught.value.origin == absent


def test_two_roots_are_a_conflict():
    with pytest.raises(PolicyConflict, match="two roots"):
        Sandbox(Chroot("/a"), Chroot("/b"))
