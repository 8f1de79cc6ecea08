# SPDX-License-Identifier: Apache-2.0
"""`Watch`: a box's statistics at an interval, for `for` and `async for`; no thread, no fd kept."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable

from isolate.errors import IsolateError, PolicyError
from isolate.policy.fields import parse_seconds
from isolate.supervise.stats import Stats

__all__ = ["Watch"]

LEAST_SECONDS = 0.01


class Watch:
    """An iterator of `Stats` that ends with its box: at once, not at the next interval.

    The first is read at once, the others at multiples of the interval; a reader that was slow
    gets the next one that is due, never a backlog.

    Raises: PolicyError, for an interval under 10 ms.
    """

    def __init__(
        self,
        read: Callable[[], Stats],
        end_fd: Callable[[], int],
        interval: float | str = 1.0,
    ) -> None:
        """`end_fd` gives a copy of the box's pidfd, or raises IsolateError when it has ended."""
        self.interval = parse_seconds(interval)
        if self.interval < LEAST_SECONDS:
            raise PolicyError(f"an interval must be at least 10 ms, not {interval!r}")
        self.read = read
        self.end_fd = end_fd
        self.began: float | None = None

    def __iter__(self) -> Watch:
        return self

    def __aiter__(self) -> Watch:
        return self

    def __next__(self) -> Stats:
        fd = self.open_end()
        if fd is None:
            raise StopIteration
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            ended = bool(poller.poll(self.patience() * 1000))
        finally:
            os.close(fd)
        stats = None if ended else self.taken()
        if stats is None:
            raise StopIteration
        return stats

    async def __anext__(self) -> Stats:
        fd = self.open_end()
        if fd is None:
            raise StopAsyncIteration
        try:
            ended = await readable(fd, self.patience())
        finally:
            os.close(fd)
        stats = None if ended else self.taken()
        if stats is None:
            raise StopAsyncIteration
        return stats

    def open_end(self) -> int | None:
        """An fd that is readable when the box has ended; None if it has."""
        try:
            return self.end_fd()
        except IsolateError:
            return None

    def patience(self) -> float:
        """Seconds until the next one is due."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
            return 0.0
        return self.interval - (now - self.began) % self.interval

    def taken(self) -> Stats | None:
        """What the box uses now; None if it ended meanwhile. Raises: IsolateError, OSError."""
        try:
            return self.read()
        except IsolateError:
            fd = self.open_end()
            if fd is None:
                return None
            os.close(fd)
            raise


async def readable(fd: int, seconds: float) -> bool:
    """Whether `fd` is readable before the time has passed; the loop is free meanwhile."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(fd, tell)
    try:
        # At least one turn of the loop, so that the reader can be called.
        done, _ = await asyncio.wait([future], timeout=max(seconds, 0.001))
        return bool(done)
    finally:
        loop.remove_reader(fd)
        future.cancel()
