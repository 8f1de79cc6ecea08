# SPDX-License-Identifier: Apache-2.0
"""Our stdin to a program, through a pipe: it never holds the caller's file or terminal."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["relayed"]

CHUNK = select.PIPE_BUF


def copy(source: int, target: int, stop: int) -> None:
    """Until the source ends, the program is gone, or `stop` is readable."""
    waiting = select.poll()
    waiting.register(source, select.POLLIN)
    waiting.register(stop, select.POLLIN)
    writing = select.poll()
    writing.register(target, select.POLLOUT)
    writing.register(stop, select.POLLIN)
    while True:
        if any(fd == stop for fd, _ in waiting.poll()):
            return
        data = os.read(source, CHUNK)
        if not data:
            return
        ready = dict(writing.poll())
        if stop in ready or ready[target] & select.POLLERR:
            return  # it has ended, or closed its stdin
        os.write(target, data)  # poll(2) has promised room for PIPE_BUF


@contextmanager
def relayed(source: int = 0) -> Iterator[int]:
    """A descriptor to give to the program as stdin; the relay ends with the block."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    stop_read, stop_write = os.pipe2(os.O_CLOEXEC)

    def run() -> None:
        try:
            with suppress(OSError):  # the program is gone, or our stdin closed: its end
                copy(source, write_fd, stop_read)
        finally:
            os.close(write_fd)

    thread = threading.Thread(target=run, name="isolate-stdin", daemon=True)
    thread.start()
    try:
        yield read_fd
    finally:
        os.close(stop_write)  # readable for poll: hung up
        os.close(read_fd)
        thread.join()
        os.close(stop_read)
