# SPDX-License-Identifier: Apache-2.0
"""Boxes that nobody has closed are closed at the interpreter's end (law 8)."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any
from weakref import WeakSet

__all__ = ["close_all", "closed", "opened"]

OPEN: WeakSet[Any] = WeakSet()
# Reentrant: a collection of garbage under the lock may close a box.
LOCKS = [threading.RLock()]


def opened(session: Any) -> None:
    """A session begins."""
    with LOCKS[0]:
        OPEN.add(session)


def closed(session: Any) -> None:
    """A session has ended."""
    with LOCKS[0]:
        OPEN.discard(session)


def close_all() -> None:
    """Close what is open and ours; what a fork has inherited is its parent's."""
    with LOCKS[0]:
        left = [each for each in OPEN if each.owner == os.getpid()]
    for session in left:
        session.close()


def after_fork() -> None:
    """The lock may have been held by a thread that the child has not."""
    LOCKS[0] = threading.RLock()


os.register_at_fork(after_in_child=after_fork)
atexit.register(close_all)
