# SPDX-License-Identifier: Apache-2.0
"""What tests of the guest share."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def disk_path():
    """On ext4: Linux 6.1 has no idmapped mounts of tmpfs, which read= and write= of root are."""
    with tempfile.TemporaryDirectory(dir="/srv/isolate", prefix="build-") as name:
        Path(name).chmod(0o755)  # the box's ids pass it
        yield Path(name)
