"""Linux 6.1 shows no tmpfs under other ids: what that means for read= and write= of root."""

import os
import subprocess

import pytest

from isolate import HostLacks, Sandbox, outside

pytestmark = pytest.mark.needs("vm")


@pytest.fixture
def tmpfs(tmp_path):
    place = tmp_path / "fs"
    place.mkdir()
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    with outside():
        subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    (place / "open").write_text("for all")
    (place / "closed").write_text("mine")
    (place / "closed").chmod(0o600)
    yield place
    with outside():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.needs("root")
def test_reading_a_tmpfs_shows_what_is_for_others(tmpfs):
    script = f"cat {tmpfs}/open; cat {tmpfs}/closed; echo x > {tmpfs}/new"
    done = Sandbox(read=[tmpfs]).run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "for all"
    assert "closed: Permission denied" in done.stderr
    assert sorted(os.listdir(tmpfs)) == ["closed", "open"]
    with Sandbox(read=[tmpfs / "open"]) as box:
        assert box.run(["cat", tmpfs / "open"], capture_output=True).stdout == b"for all"


@pytest.mark.needs("root")
def test_writing_to_a_tmpfs_is_refused_with_its_reason(tmpfs):
    with pytest.raises(HostLacks) as caught:
        Sandbox(write=[tmpfs]).run(["true"])
    assert caught.value.what == "ids"
    assert f"{tmpfs} is on tmpfs" in caught.value.why
    assert "another file system" in str(caught.value)
    assert sorted(os.listdir(tmpfs)) == ["closed", "open"]


@pytest.mark.needs("unprivileged")
def test_an_ordinary_user_s_program_has_its_id_and_writes(tmp_path):
    done = Sandbox(write=[tmp_path]).run(["sh", "-c", f"echo x > {tmp_path}/new"])
    assert done.returncode == 0
    assert (tmp_path / "new").stat().st_uid == os.geteuid()


@pytest.mark.needs("root")
def test_a_disk_s_files_come_out_owned_by_the_caller(disk_path):
    done = Sandbox(write=[disk_path]).run(
        ["sh", "-c", f"echo x > {disk_path}/new"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (disk_path / "new").stat().st_uid == os.geteuid()
