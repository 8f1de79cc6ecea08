# SPDX-License-Identifier: Apache-2.0
"""Threads of ours, which a machine that is full may refuse."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

__all__ = ["start_thread"]


def start_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """A daemon thread that runs it. Raises: OSError, where none may be started any more."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # pthread_create(3) has this one errno
        raise BlockingIOError(errno.EAGAIN, str(error)) from error
    return thread
