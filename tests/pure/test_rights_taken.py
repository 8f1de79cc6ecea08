# SPDX-License-Identifier: Apache-2.0
"""Counters of a leaf that its own program took our rights to: they are read all the same."""

import os
import stat

import pytest

from isolate.supervise import counterfiles


def refusing(monkeypatch, times):
    """The first opens are refused, as the kernel refuses an ordinary user."""
    real, left = os.open, [times]

    def open_it(path, *rest, **other):
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **other)

    monkeypatch.setattr(os, "open", open_it)


def test_rights_that_were_taken_are_put_back(tmp_path, monkeypatch):
    leaf = tmp_path / "leaf"
    leaf.mkdir()
    file = leaf / "pids.events"
    file.write_text("max 3\n")
    file.chmod(0)
    leaf.chmod(0)
    refusing(monkeypatch, 1)
    fd = counterfiles.opened(str(file))
    assert os.read(fd, 99) == b"max 3\n"
    os.close(fd)
    assert stat.S_IMODE(leaf.stat().st_mode) == 0o711
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_what_stays_refused_is_an_error(tmp_path, monkeypatch):
    file = tmp_path / "pids.events"
    file.write_text("max 3\n")
    refusing(monkeypatch, 2)
    with pytest.raises(PermissionError):
        counterfiles.opened(str(file))


def test_what_is_gone_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        counterfiles.opened(str(tmp_path / "absent"))
