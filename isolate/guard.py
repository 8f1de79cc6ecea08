# SPDX-License-Identifier: Apache-2.0
"""The audit hook: an ordinary process start inside a block of primitives would be unsandboxed."""

from __future__ import annotations

import _posixsubprocess
import sys
from functools import wraps
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
    "multiprocessing": "isolate.call(...)",
}
INSTALLED: list[bool] = []


def asks_forkserver(arguments: tuple[Any, ...]) -> bool:
    """Whether a connect(2) is to multiprocessing's server, which forks on our behalf."""
    module = sys.modules.get("multiprocessing.forkserver")
    server = getattr(module, "_forkserver", None)
    address = getattr(server, "_forkserver_address", None)
    return address is not None and arguments[1:2] == (address,)


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Raises: Unsandboxed."""
    if event == "socket.connect" and asks_forkserver(arguments):
        event = "multiprocessing"
    instead = EVENTS.get(event)
    if instead is None or ambient.suspended():
        return
    if any(isinstance(item, Primitive) for item in ambient.collected()):
        raise Unsandboxed(
            f"{event} inside a block of primitives would start a process outside the sandbox; "
            f"use {instead}, or `with isolate.outside():` if that is meant"
        )


def install() -> None:
    """Once a process; audit hooks can't be removed.

    multiprocessing's spawn starts its processes by a function that raises no audit event, and takes
    it from its module at each start: so that one asks the hook first.
    """
    if INSTALLED:
        return
    INSTALLED.append(True)
    sys.addaudithook(hook)
    start = _posixsubprocess.fork_exec

    @wraps(start)
    def asking(*arguments: Any) -> Any:
        hook("multiprocessing", ())
        return start(*arguments)

    _posixsubprocess.fork_exec = asking
