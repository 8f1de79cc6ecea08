# SPDX-License-Identifier: Apache-2.0
"""The audit hook: an ordinary process start inside a block of primitives would be unsandboxed."""

from __future__ import annotations

import sys
from typing import Any

from isolate.errors import Unsandboxed
from isolate.policy import ambient
from isolate.policy.base import Primitive

__all__ = ["install"]

EVENTS = {
    "subprocess.Popen": "isolate.run(...)",
    "os.fork": "isolate.call(...)",
    "os.forkpty": "isolate.run(...)",
    "os.system": "isolate.run(...)",
    "os.posix_spawn": "isolate.run(...)",
    "os.spawn": "isolate.run(...)",
    "os.exec": "isolate.run(...)",
    "pty.spawn": "isolate.run(...)",
}
INSTALLED: list[bool] = []


def hook(event: str, _: tuple[Any, ...]) -> None:
    """Raises: Unsandboxed."""
    instead = EVENTS.get(event)
    if instead is None or ambient.suspended():
        return
    if any(isinstance(item, Primitive) for item in ambient.collected()):
        raise Unsandboxed(
            f"{event} inside a block of primitives would start a process outside the sandbox; "
            f"use {instead}, or `with isolate.outside():` if that is meant"
        )


def install() -> None:
    """Once a process; audit hooks can't be removed."""
    if not INSTALLED:
        INSTALLED.append(True)
        sys.addaudithook(hook)
