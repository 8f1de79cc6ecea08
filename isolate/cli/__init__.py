# SPDX-License-Identifier: Apache-2.0
"""The command `isolate`. Its libraries are an extra: without them there is one clear sentence."""

from __future__ import annotations

import sys

__all__ = ["FAILED", "main"]

FAILED = 125  # what we say when isolate itself failed, as docker and env(1) do
LIBRARIES = ("click", "rich")


def main() -> int:
    """Run the command line of this process; the exit status."""
    try:
        from isolate.cli.app import start
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LIBRARIES:
            raise
        print(
            f"isolate: the command needs {error.name}, which is not installed: "
            "pip install 'isolate-linux[cli]'",
            file=sys.stderr,
        )
        return FAILED
    return start()
