"""Boxes that start with a copy of a template: as tight as without, and never stale."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from isolate import CapabilitySet, LaunchError, Mount, Sandbox, allow
from isolate.supervise import template
from isolate.supervise.template import TEMPLATES

pytestmark = pytest.mark.needs("root")


def out(box, script, **options):
    done = box.run(["sh", "-c", script], capture_output=True, text=True, **options)
    return done.stdout + done.stderr


def mount_namespace():
    return os.readlink("/proc/thread-self/ns/mnt"), os.getcwd(), os.stat("/").st_ino


def test_the_caller_stays_where_it_is():
    before = mount_namespace()
    Sandbox().run(["true"])
    assert mount_namespace() == before
    assert Path("/proc/self/mountinfo").read_text()


def test_two_boxes_share_no_mount_namespace_and_no_place_of_their_own():
    with Sandbox() as a, Sandbox() as b:
        names = [out(box, "readlink /proc/self/ns/mnt").strip() for box in (a, b)]
        assert len({*names, os.readlink("/proc/self/ns/mnt")}) == 3
        for place in ("/tmp", "/dev/shm"):
            out(a, f"echo secret > {place}/x")
            assert "secret" in out(a, f"cat {place}/x")
            assert "No such file" in out(b, f"cat {place}/x")


def test_the_shared_part_is_read_only():
    box = Sandbox()
    for path in ("/x", "/etc/x", "/etc/passwd", "/dev/x", "/home/x", "/opt/x"):
        text = out(box, f"echo x >> {path} && echo written")
        assert "Read-only file system" in text or "Permission denied" in text, path
        assert "written" not in text


def test_the_proc_of_the_template_is_covered_and_empty():
    """What lies below /proc can't be uncovered; and if it could, it shows no process."""
    box = Sandbox(seccomp=False, allow=[allow.SystemCalls()])
    text = out(box, "umount /proc; umount -l /proc; ls /proc | grep -c '^[0-9]'; cat /proc/1/comm")
    assert "isolate-init" in text
    here = template.get(next(iter(TEMPLATES.kept.values())).ops)
    seen = subprocess.run(
        ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{here.fd}", "sh", "-c",
         "ls /proc | grep '^[0-9]'; cat /proc/self/comm; ls /proc/sys"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "kernel" in seen.stdout
    assert not [line for line in seen.stdout.splitlines() if line.isdigit()]


def test_a_box_with_capabilities_makes_its_own_mounts():
    before = dict(TEMPLATES.kept)
    own = Sandbox(caps=CapabilitySet("SYS_ADMIN"), allow=[allow.Capabilities()])
    assert "template" not in own.explain()
    assert own.run(["true"]).returncode == 0
    assert TEMPLATES.kept == before


def test_files_and_places_of_a_policy_are_there(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f").write_text("host")
    box = Sandbox(
        Mount.bind(tmp_path / "sub", "/srv/deep/down"),
        Mount.bind(tmp_path / "sub" / "f", "/srv/file"),
        Mount.tmpfs("/var/cache", size="1M"),
        Mount.file("/var/cache/in", b"cached"),
        Mount.symlink("/srv/file", "/srv/link"),
        files={"a": b"tmp", "/opt/b": b"opt"},
        read=tmp_path,
    )
    text = out(box, f"cat /srv/deep/down/f /srv/link /var/cache/in /tmp/a /opt/b {tmp_path}/sub/f")
    assert text == "hosthostcachedtmpopthost"
    assert "Read-only" in out(box, "touch /srv/deep/down/x")
    assert out(box, "touch /var/cache/x && echo made") == "made\n"


def test_a_mount_that_can_not_be_placed_names_itself():
    with pytest.raises(LaunchError, match=r"/usr/nowhere/x") as caught:
        Sandbox(Mount.bind("/etc/hostname", "/usr/nowhere/x")).run(["true"])
    assert isinstance(caught.value.origin, Mount)


def test_a_file_that_was_replaced_is_seen(tmp_path, monkeypatch):
    """A template is thrown away when a path shows another file: an upgrade renames over it."""
    monkeypatch.setattr(template, "LOOK_SECONDS", 0.0)
    Sandbox().run(["true"])
    (first,) = list(TEMPLATES.kept.values())[-1:]
    assert first.current()
    assert template.get(first.ops) is first
    monkeypatch.setattr(first, "prints", (None, *first.prints[1:]))
    assert not first.current()
    assert template.get(first.ops) is not first


def test_no_more_than_a_few_are_kept_and_their_descriptors_are_closed():
    Sandbox().run(["true"])
    fds = len(os.listdir("/proc/self/fd"))
    for number in range(template.KEPT + 3):
        assert out(Sandbox(hostname=f"host{number}"), "hostname") == f"host{number}\n"
    assert len(TEMPLATES.kept) <= template.KEPT
    assert len(os.listdir("/proc/self/fd")) <= fds + template.KEPT


def test_many_threads_make_one():
    TEMPLATES.kept.clear()
    made = []
    original = template.make

    def counted(ops):
        made.append(ops)
        return original(ops)

    template.make = counted
    try:
        box = Sandbox()
        threads = [threading.Thread(target=box.run, args=(["true"],)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        template.make = original
    assert len(made) == 1


def test_a_fork_may_go_on_with_it():
    Sandbox().run(["true"])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = Sandbox().run(["true"]).returncode
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
