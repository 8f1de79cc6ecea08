"""Roots and mounts that are put together: overlays, images, archives."""

import io
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress

import pytest

from isolate import Chroot, HostLacks, LaunchError, Mount, Namespace, PolicyError, Sandbox, run
from isolate.policy.chroot import BASICS


def system():
    """What a shell needs, from this machine."""
    found = [Mount.bind("/usr", "/usr")]
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            found.append(Mount.symlink(os.readlink(f"/{name}"), f"/{name}"))
        elif os.path.isdir(f"/{name}"):
            found.append(Mount.bind(f"/{name}", f"/{name}"))
    return found


ALL = (*BASICS, *system())


def sh(box, script):
    done = box.run(["/bin/sh", "-c", script], capture_output=True, text=True, cwd="/")
    return done.stdout + done.stderr


@pytest.fixture
def layer(tmp_path):
    """A lower directory that our ids own."""
    path = tmp_path / "lower"
    (path / "data").mkdir(parents=True)
    (path / "data" / "old").write_text("old\n")
    (path / "data" / "gone").write_text("gone\n")
    (path / "private").write_text("private\n")
    (path / "private").chmod(0o600)
    return path


def snapshot(path):
    """Everything below a directory: names, modes, owners, content."""
    found = {}
    for folder, _, files in os.walk(path):
        for name in (folder, *(os.path.join(folder, each) for each in files)):
            stat = os.lstat(name)
            data = b""
            if os.path.isfile(name) and not os.path.islink(name):
                with open(name, "rb") as file:
                    data = file.read()
            found[name] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, data)
    return found


# -- overlays


def test_changes_are_seen_inside_and_never_reach_the_lower_directory(layer):
    before = snapshot(layer)
    script = (
        "cd /data && cat old && echo new > new && echo more >> old && rm gone && mkdir d &&"
        " mv old d/moved && ls && cat d/moved && cat /private && id -u"
    )
    with Sandbox(Chroot.overlay(layer, mounts=ALL)) as box:
        out = sh(box, script).split()
        assert out == ["old", "d", "new", "old", "more", "private", "1000"]
        assert sh(box, "cat /data/new; ls /data") == "new\nd\nnew\n"  # the box keeps them
    assert snapshot(layer) == before
    assert sh(Sandbox(Chroot.overlay(layer, mounts=ALL)), "cat /data/old") == "old\n"  # fresh


def test_the_topmost_directory_wins(layer, tmp_path):
    top = tmp_path / "top"
    (top / "data").mkdir(parents=True)
    (top / "data" / "old").write_text("top\n")
    box = Sandbox(Chroot.overlay([top, layer], mounts=ALL))
    assert sh(box, "cat /data/old /data/gone") == "top\ngone\n"
    box = Sandbox(Chroot.overlay([layer, top], mounts=ALL))
    assert sh(box, "cat /data/old") == "old\n"


def test_an_overlay_can_be_at_one_place_of_a_view(layer):
    before = snapshot(layer)
    box = Sandbox(Mount.overlay(layer, "/work"))
    assert sh(box, "cd /work && echo x > y && rm -r data && ls && cat y").split() == [
        "private", "y", "x",
    ]  # fmt: skip
    assert snapshot(layer) == before


def test_the_changes_are_bounded(layer):
    before = snapshot(layer)
    flood = "head -c 50000000 /dev/zero 2>&1 > /big; stat -c %s /big"
    box = Sandbox(Chroot.overlay(layer, size="4M", mounts=ALL))
    out = sh(box, flood).split()
    assert int(out[-1]) <= 4 << 20
    assert "space" in " ".join(out).lower() or int(out[-1]) == 4 << 20
    many = "mkdir /m; i=0; while [ $i -lt 5000 ]; do : > /m/$i || exit; i=$((i+1)); echo $i; done"
    done = box.run(["/bin/sh", "-c", many], capture_output=True)
    assert int(done.stdout.split()[-1]) < 5000
    out = sh(Sandbox(Mount.overlay(layer, "/w", size="1M")), flood.replace("/big", "/w/big"))
    assert int(out.split()[-1]) <= 1 << 20
    assert snapshot(layer) == before


def test_changes_can_be_kept_in_a_directory_of_the_caller(layer, tmp_path):
    upper = tmp_path / "upper"
    upper.mkdir()
    for name in ("bin", "lib", "lib64", "sbin"):  # a link can be made only once
        (layer / name).symlink_to(f"usr/{name}")
    mounts = (*BASICS, Mount.bind("/usr", "/usr"))
    root = Chroot.overlay(layer, upper=upper, mounts=mounts)
    assert sh(Sandbox(root), "echo kept > /data/kept; cat /data/kept") == "kept\n"
    assert (upper / "data" / "data" / "kept").read_text() == "kept\n"
    assert (upper / "data" / "data" / "kept").stat().st_uid == os.geteuid()
    assert sh(Sandbox(root), "cat /data/kept /data/old") == "kept\nold\n"
    assert sorted(os.listdir(layer / "data")) == ["gone", "old"]


def test_hostile_links_in_a_lower_directory_lead_nowhere(layer, tmp_path):
    """Mount points and files that we make are resolved in the root, whatever lies there."""
    canary = tmp_path / "canary"
    canary.write_text("canary")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, target in [
        ("tmp", str(outside)),
        ("proc", "../../../../.." + str(outside)),
        ("made", str(outside)),
        ("dev", "/"),
    ]:
        (layer / name).symlink_to(target)
    (layer / "link").symlink_to(str(canary))
    before = snapshot(layer), snapshot(outside)
    mounts = (*ALL, Mount.file("/made/x", b"x"))
    out = ""
    with suppress(LaunchError):  # a link that leads to nothing in the root can't be a mount point
        out = sh(Sandbox(Chroot.overlay(layer, mounts=mounts)), "cat /link; ls -d /made/x")
    assert "canary" not in out.splitlines()
    assert (snapshot(layer), snapshot(outside)) == before
    assert canary.read_text() == "canary"


def test_the_scratch_and_the_layers_are_out_of_sight(layer):
    with Sandbox(Chroot.overlay(layer, mounts=ALL)) as box:
        names = ". .. bin data dev lib lib64 private proc sbin tmp usr"
        assert sh(box, "ls -a /").split() == names.split()
        mounts = sh(box, "cat /proc/self/mountinfo")
        root = [line for line in mounts.splitlines() if line.split()[4] == "/"]
        assert len(root) == 1
        assert " - overlay " in root[0]
        assert "/l0" not in mounts.replace("lowerdir=l0", "")
        assert sh(box, "cd /.. && ls -d data && cat /../data/old") == "data\nold\n"
        assert "refused" in sh(box, "umount / 2>/dev/null || echo refused")


def test_set_user_id_files_of_a_layer_are_powerless(layer):
    shutil.copy("/usr/bin/id", layer / "suid")
    (layer / "suid").chmod(0o4755)
    assert sh(Sandbox(Chroot.overlay(layer, mounts=ALL)), "/suid -u") == "1000\n"


def test_a_bare_overlay_needs_no_sandbox(layer):
    bare = Namespace(user=os.geteuid() != 0, mount=True)
    with bare, Mount.overlay(layer, "/mnt"):
        done = run(["/bin/sh", "-c", "echo x > /mnt/x; ls /mnt"], capture_output=True, text=True)
    assert done.stdout.split() == ["data", "private", "x"]
    assert not os.path.exists(layer / "x")


def test_what_can_not_be_a_layer_names_itself(layer, tmp_path):
    with pytest.raises(LaunchError, match="no-such") as caught:
        Sandbox(Chroot.overlay(tmp_path / "no-such", mounts=ALL)).run(["/bin/true"])
    assert isinstance(caught.value.origin, Chroot)
    with pytest.raises(LaunchError) as caught:
        Sandbox(Mount.overlay(layer / "private", "/w")).run(["/bin/true"])
    assert isinstance(caught.value.origin, Mount)
    root = Chroot.overlay(layer, upper=tmp_path / "no-such", mounts=ALL)
    with pytest.raises(LaunchError, match="no-such"):
        Sandbox(root).run(["/bin/true"])


@pytest.mark.needs("unprivileged")
def test_a_layer_with_mounts_below_it_is_told():
    with pytest.raises(LaunchError, match="no mounts below it"):
        Sandbox(Mount.overlay("/", "/w")).run(["/bin/true"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Chroot.overlay([]), "lower"),
        (lambda: Mount.overlay([], "/w"), "lower"),
        (lambda: Chroot(None, kind="overlay"), "lower"),
        (lambda: Chroot("/x", lower=["/y"]), "lower"),
        (lambda: Chroot(None, kind="image", format="tar"), "path"),
        (lambda: Chroot.image("/x.img"), "format="),
        (lambda: Chroot.image("/x.img", format="iso9660"), "squashfs"),
        (lambda: Chroot.overlay(["/x"] * 65), "64"),
        (lambda: Chroot(None, kind="jail"), "kind"),
        (lambda: Chroot.overlay("/x", size="1K"), "4096"),
    ],
)
def test_bad_roots_are_refused_before_anything_starts(make, words):
    with pytest.raises(PolicyError, match=words):
        make()


# -- archives


def archive(path, *entries, mode="w:gz"):
    """A tar of (name, type, content or target, mode)."""
    with tarfile.open(path, mode) as tar:
        for name, kind, content, bits in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, bits
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


GOOD = (
    ("./etc", tarfile.DIRTYPE, b"", 0o755),
    ("etc/name", tarfile.REGTYPE, b"first\n", 0o644),
    ("etc/name", tarfile.REGTYPE, b"archive\n", 0o644),  # the last one counts
    ("etc/again", tarfile.LNKTYPE, "etc/name", 0o644),
    ("etc/link", tarfile.SYMTYPE, "name", 0o777),
    ("deep/er/file", tarfile.REGTYPE, b"x" * 100_000, 0o600),
    ("run", tarfile.REGTYPE, b"#!/bin/sh\necho ran\n", 0o4755),
    ("null", tarfile.CHRTYPE, b"", 0o666),
    ("empty", tarfile.REGTYPE, b"", 0o644),
)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_is_a_root(tmp_path, mode):
    path = archive(tmp_path / "root.tar", *GOOD, mode=mode)
    with Sandbox(Chroot.image(path, mounts=ALL)) as box:
        out = sh(box, "cat /etc/name /etc/again /etc/link; /run; ls -d /null").splitlines()
        assert out[:4] == ["archive", "archive", "archive", "ran"]
        assert "No such file" in out[4]  # devices are left out
        assert sh(box, "stat -c %a /run; stat -c %s /deep/er/file /empty").split() == [
            "755", "100000", "0",
        ]  # fmt: skip
        assert "refused" in sh(box, "(echo x > /x) 2>/dev/null || echo refused")


def test_a_writable_archive_is_the_programs_own(tmp_path):
    path = archive(tmp_path / "root.tar", *GOOD, mode="w")
    before = path.read_bytes()
    box = Sandbox(Chroot.image(path, writable=True, mounts=ALL))
    script = "echo x > /x && echo more >> /etc/name && rm -r /deep && cat /x /etc/name; ls /deep"
    assert sh(box, script).splitlines()[:3] == ["x", "archive", "more"]
    assert path.read_bytes() == before


def test_a_hostile_archive_stays_in_its_root(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    hostile = [
        (("../../x", tarfile.REGTYPE, b"x", 0o644),),
        (("a/../../x", tarfile.REGTYPE, b"x", 0o644),),
        (("x", tarfile.LNKTYPE, "../../../etc/passwd", 0o644),),
    ]
    for entries in hostile:
        path = archive(tmp_path / "bad.tar", *entries, mode="w")
        with pytest.raises(LaunchError, match="read .*bad.tar") as caught:
            Sandbox(Chroot.image(path, mounts=ALL)).run(["/bin/true"])
        assert isinstance(caught.value.origin, Chroot)
    for target in (str(outside), "../../../../../../.." + str(outside), "/proc/self/root/tmp"):
        entries = (("a", tarfile.SYMTYPE, target, 0o777), ("a/x", tarfile.REGTYPE, b"x", 0o644))
        path = archive(tmp_path / "bad.tar", *entries, mode="w")
        with suppress(LaunchError):  # where the link leads to nothing in the root
            Sandbox(Chroot.image(path, mounts=ALL)).run(["/bin/true"])
    assert os.listdir(outside) == []
    assert not os.path.exists("/x")


def test_an_archive_that_is_too_large_or_broken_is_refused(tmp_path):
    path = archive(tmp_path / "big.tar.gz", ("x", tarfile.REGTYPE, bytes(9 << 20), 0o644))
    with pytest.raises(LaunchError, match="size="):
        Sandbox(Chroot.image(path, size="8M", mounts=ALL)).run(["/bin/true"])
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(path.read_bytes()[:3000])
    for name in (broken, tmp_path / "no-such.tar", tmp_path / "text.tar"):
        if name.name == "text.tar":
            name.write_text("no archive")
        with pytest.raises(LaunchError, match=name.name):
            Sandbox(Chroot.image(name, mounts=ALL)).run(["/bin/true"])


# -- file systems


def image(kind, folder, path):
    """A file system's image of a directory."""
    if kind == "squashfs":
        argv = ["mksquashfs", str(folder), str(path), "-quiet", "-no-progress"]
    else:
        with open(path, "wb") as file:
            file.truncate(8 << 20)
        argv = ["mkfs.ext4", "-q", "-d", str(folder), str(path)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return path


def loops(path):
    """Loop devices that show the file."""
    done = subprocess.run(["losetup", "-j", str(path)], capture_output=True, text=True)
    return done.stdout


@pytest.mark.needs("root", "loop", "mksquashfs")
@pytest.mark.parametrize("kind", ["squashfs", "ext4"])
def test_an_image_is_a_root(layer, tmp_path, kind):
    path = image(kind, layer, tmp_path / f"root.{kind}")
    before = path.read_bytes()
    # Mount points have to be in a read-only image.
    for name in ("usr", "tmp", "proc", "dev"):
        (layer / name).mkdir()
    for name in ("bin", "lib", "lib64", "sbin"):
        (layer / name).symlink_to(f"usr/{name}")
    path.unlink()
    image(kind, layer, path)
    before = path.read_bytes()
    mounts = (*BASICS, Mount.bind("/usr", "/usr"))
    with Sandbox(Chroot.image(path, mounts=mounts)) as box:
        assert sh(box, "cat /data/old; (echo x > /x) 2>/dev/null || echo refused") == (
            "old\nrefused\n"
        )
        assert loops(path)
    with Sandbox(Chroot.image(path, writable=True, mounts=mounts)) as box:
        assert sh(box, "echo new > /data/old; rm /data/gone; cat /data/old; ls /data") == (
            "new\nold\n"
        )
    assert path.read_bytes() == before
    assert loops(path) == ""


@pytest.mark.needs("root", "loop")
def test_a_file_that_is_no_image_is_refused_and_its_device_is_free_again(tmp_path):
    path = tmp_path / "no.ext4"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(LaunchError, match=r"no\.ext4"):
        Sandbox(Chroot.image(path)).run(["/bin/true"])
    assert loops(path) == ""


@pytest.mark.needs("unprivileged")
def test_an_ordinary_user_is_told_what_to_do_instead(tmp_path):
    with pytest.raises(HostLacks, match="archive"):
        Sandbox(Chroot.image(tmp_path / "x.squashfs")).run(["/bin/true"])
