# SPDX-License-Identifier: Apache-2.0
"""The v2 place where this process makes its leaves: found, or got from systemd, and made ready.

A cgroup with controllers for those below it holds no processes itself. Where ours does, we and our
own children move to `isolate.self` below it: nobody else's process is touched.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from isolate.errors import HostLacks
from isolate.host.cgroups import SELF, Top, command, find_top, parent_name
from isolate.supervise import systemd_scope
from isolate.supervise.cgroup_files import MODE, put
from isolate.supervise.cgroup_v2 import enable

__all__ = ["forget", "place", "ready"]

LOCK = threading.Lock()
FOUND: dict[int, str] = {}  # by process: a fork has to look again
SCOPES: set[int] = set()


def forget() -> None:
    """Look again at the next leaf: after somebody moved this process."""
    FOUND.clear()


def after_fork() -> None:
    """The lock may have been held by a thread that the child has not."""
    global LOCK
    LOCK = threading.Lock()


os.register_at_fork(after_in_child=after_fork)


def move_ours(top: Top) -> None:
    """This process and its children out of the way. Raises: HostLacks."""
    if not top.move:
        return
    below = f"{top.path}/{SELF}"
    with suppress(FileExistsError):
        os.mkdir(below, 0o755)
    for pid in top.move:
        try:
            put(below, "cgroup.procs", pid)
        except HostLacks as error:
            if not isinstance(error.__cause__, ProcessLookupError):  # a child that ended
                raise


def search() -> str:
    """The top cgroup, with no process in it. Raises: HostLacks."""
    top = find_top()
    if isinstance(top, str) and os.getpid() not in SCOPES:
        why = systemd_scope.start()
        SCOPES.add(os.getpid())
        if why:
            raise HostLacks("cgroup", f"{top}; a systemd scope: {why}", command(True))
        top = find_top()
    if isinstance(top, str):
        raise HostLacks("cgroup", top, command(True))
    move_ours(top)
    return top.path


def place() -> str:
    """The directory below which this process's parent of leaves is. Raises: HostLacks."""
    with LOCK:
        found = FOUND.get(os.getpid())
        if found is None or not os.path.isdir(found):
            FOUND.clear()
            found = FOUND[os.getpid()] = search()
        return found


def ready(top: str, names: tuple[str, ...]) -> str:
    """The parent of our leaves, made if need be, with these controllers handed down to them.

    Raises: HostLacks; FileNotFoundError, if somebody removed it meanwhile.
    """
    above = f"{top}/{parent_name()}"
    enable(top, names)
    with suppress(FileExistsError):
        os.mkdir(above, MODE)
    enable(above, names)
    return above
