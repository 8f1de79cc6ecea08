"""Linux 6.1 shows no tmpfs under other ids: what that means for read= and write= of root."""

import os
import subprocess

import pytest

from isolate import HostLacks, Sandbox, outside

pytestmark = pytest.mark.needs("root", "vm")


@pytest.fixture
def tmpfs(tmp_path):
    place = tmp_path / "fs"
    place.mkdir()
    with outside():
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    (place / "open").write_text("for all")
    (place / "closed").write_text("mine")
    (place / "closed").chmod(0o600)
    yield place
    with outside():
        subprocess.run(["umount", str(place)], check=True)


def test_reading_a_tmpfs_shows_what_is_for_others(tmpfs):
    script = f"cat {tmpfs}/open; cat {tmpfs}/closed; echo x > {tmpfs}/new"
    done = Sandbox(read=[tmpfs]).run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "for all"
    assert "closed: Permission denied" in done.stderr
    assert sorted(os.listdir(tmpfs)) == ["closed", "open"]
    with Sandbox(read=[tmpfs / "open"]) as box:
        assert box.run(["cat", tmpfs / "open"], capture_output=True).stdout == b"for all"


def test_writing_to_a_tmpfs_is_refused_with_its_reason(tmpfs):
    with pytest.raises(HostLacks) as caught:
        Sandbox(write=[tmpfs]).run(["true"])
    assert caught.value.what == "ids"
    assert f"{tmpfs} is on tmpfs" in caught.value.why
    assert 'weaken={"ids"}' in str(caught.value)
    assert sorted(os.listdir(tmpfs)) == ["closed", "open"]


def test_weakened_it_is_written_under_the_caller_s_id(tmpfs):
    box = Sandbox(write=[tmpfs], weaken={"ids"})
    done = box.run(["sh", "-c", f"echo x > {tmpfs}/new"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmpfs / "new").stat().st_uid == os.geteuid()
    assert "ids" in {each.name for each in done.guarantees if each.verdict == "weakened"}


def test_a_disk_s_files_come_out_owned_by_the_caller(disk_path):
    done = Sandbox(write=[disk_path]).run(
        ["sh", "-c", f"echo x > {disk_path}/new"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (disk_path / "new").stat().st_uid == os.geteuid()
