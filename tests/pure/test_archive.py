"""What UNPACK gets of a tar archive: every name below the root, every entry within its bounds."""

import errno
import io
import os
import struct
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolate.supervise import archive

HEAD = struct.Struct("<IIIIQ")


def tar(*entries):
    """An archive in memory, as a file name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, kind, content, mode in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def entries(data, size=1 << 20):
    """(kind, mode, path, target, content) as the C side reads them."""
    fd = os.memfd_create("tar")
    try:
        os.write(fd, data)
        made = archive.entries(f"/proc/self/fd/{fd}", size)
    finally:
        os.close(fd)
    try:
        text = os.pread(made, os.fstat(made).st_size, 0)
    finally:
        os.close(made)
    found, at = [], 0
    while at < len(text):
        kind, mode, path_len, target_len, length = HEAD.unpack_from(text, at)
        at += HEAD.size
        strings = []
        for n in (path_len, target_len):
            assert text[at + n] == 0
            strings.append(text[at : at + n].decode())
            at += n + 8 - n % 8
        found.append((kind, mode, *strings, text[at : at + length]))
        at += length + -length % 8
    assert at == len(text)
    return found


def test_a_file_comes_with_its_directories_first():
    found = entries(tar(("a/b/c", tarfile.REGTYPE, b"data", 0o644)))
    assert found == [
        (archive.DIR, 0o755, "/a", "", b""),
        (archive.DIR, 0o755, "/a/b", "", b""),
        (archive.FILE, 0o644, "/a/b/c", "", b"data"),
    ]


def test_a_directory_keeps_its_mode_and_loses_its_bits():
    found = entries(tar(("x", tarfile.REGTYPE, b"", 0o6755), ("d", tarfile.DIRTYPE, b"", 0o1700)))
    assert found == [(archive.DIR, 0o700, "/d", "", b""), (archive.FILE, 0o755, "/x", "", b"")]


def test_the_last_of_two_entries_counts():
    found = entries(
        tar(("x", tarfile.REGTYPE, b"first", 0o644), ("./x", tarfile.SYMTYPE, "y", 0o777))
    )
    assert found == [(archive.SYMLINK, 0, "/x", "y", b"")]


def test_links_to_files_come_last():
    found = entries(
        tar(("a", tarfile.LNKTYPE, "./z", 0o644), ("z", tarfile.REGTYPE, b"z", 0o644))
    )
    assert [each[0] for each in found] == [archive.FILE, archive.LINK]
    assert found[1][2:4] == ("/a", "/z")


def test_devices_are_left_out():
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    assert entries(tar(*((f"x{i}", kind, b"", 0o666) for i, kind in enumerate(kinds)))) == []


@pytest.mark.parametrize("name", ["../x", "a/../x", "a/..", "/..", "x/../../y"])
def test_a_name_that_leads_out_is_refused(name):
    with pytest.raises(OSError, match="outside") as caught:
        entries(tar((name, tarfile.REGTYPE, b"", 0o644)))
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="outside"):
        entries(tar(("x", tarfile.LNKTYPE, name, 0o644)))


def test_a_symbolic_link_may_say_what_it_wants():
    """It is resolved inside, by who follows it."""
    assert entries(tar(("x", tarfile.SYMTYPE, "../../etc", 0o777)))[0][3] == "../../etc"


def test_sizes_are_bounded():
    data = tar(*((name, tarfile.REGTYPE, bytes(5000), 0o644) for name in "xy"))
    assert len(entries(data, 10_000)) == 2
    with pytest.raises(OSError, match="size=") as caught:
        entries(data, 9_999)
    assert caught.value.errno == errno.ENOSPC


def test_names_are_bounded():
    with pytest.raises(OSError, match="too long"):
        entries(tar(("x/" * 2100, tarfile.REGTYPE, b"", 0o644)))


@pytest.mark.parametrize("data", [b"", b"no tar", bytes(100), b"\x1f\x8b\x08" + bytes(50)])
def test_what_is_no_archive_is_refused(data):
    if not data.strip(b"\0"):
        data += b"x"
    with pytest.raises(OSError, match="archive"):
        entries(data)


def test_an_archive_that_is_cut_is_refused():
    data = tar(("x", tarfile.REGTYPE, b"x" * 3000, 0o644))
    for cut in (600, 1024, 2000, 3000):
        with pytest.raises(OSError, match="archive"):
            entries(data[:cut])


@given(st.text(max_size=40))
def test_every_clean_name_is_below_the_root(name):
    try:
        path = archive.clean(name)
    except OSError:
        assert ".." in name.split("/") or "\0" in name
        return
    assert path == "" or path.startswith("/")
    assert not set(path.split("/")[1:]) & {"", ".", ".."}
    assert os.path.normpath("/root" + path).startswith("/root")


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=9)
paths = st.lists(names.filter(lambda n: n not in (".", "..")), min_size=1, max_size=4)


@given(st.dictionaries(paths.map("/".join), st.binary(max_size=40), max_size=6))
def test_files_come_back_as_they_were(files):
    # A path that is a file can't be a directory as well.
    files = {n: d for n, d in files.items() if not any(o.startswith(n + "/") for o in files)}
    found = entries(tar(*((n, tarfile.REGTYPE, d, 0o600) for n, d in files.items())))
    assert {path: data for kind, _, path, _, data in found if kind == archive.FILE} == {
        "/" + name: data for name, data in files.items()
    }
    made = set()
    for kind, _, path, _, _ in found:
        parent = path.rpartition("/")[0]
        assert parent == "" or parent in made
        if kind == archive.DIR:
            made.add(path)
