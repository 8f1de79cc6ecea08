# SPDX-License-Identifier: Apache-2.0
"""One loop over a program's end, its streams and its limits (HARDENING 23, 24).

The end of a run is the end of the program or a limit, never the end of a stream.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from attrs import Factory, define

from isolate.plan.model import Limits
from isolate.supervise.cgroupfs import Counters
from isolate.supervise.outcome import LimitHit, TimedOut
from isolate.supervise.process import End, Process

__all__ = ["Pump", "Sink"]

CHUNK = 65536
CPU_LOOK = 0.05  # the least time between two looks at the processor account, seconds
OOM_LOOK = 0.1
DRAIN_CHUNKS = 64  # what a stream may still hold when the program has ended: a pipe's 1 MiB at most


@define
class Sink:
    """Where one stream goes: kept up to `limit` bytes, or passed on to a descriptor."""

    fd: int
    keep: bool
    pass_to: int = -1
    limit: int | None = None
    counted: bool = True
    kept: int = 0
    chunks: list[bytes] = Factory(list)

    def take(self, data: bytes) -> None:
        """One chunk. A reader of ours that is gone doesn't stop the program."""
        if self.keep:
            if self.limit is None or self.kept < self.limit:
                self.chunks.append(data)
            self.kept += len(data)
        elif self.pass_to >= 0:
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self.pass_to, view) :]
            except BrokenPipeError:
                self.pass_to = -1

    @property
    def data(self) -> bytes:
        """All that was kept."""
        return b"".join(self.chunks)


@define
class Pump:
    """Runs until the program has ended, or was killed for a limit."""

    process: Process
    limits: Limits
    kill: Callable[[], None]
    counters: Callable[[], Counters]
    sinks: list[Sink]
    stdin_fd: int = -1
    stdin: memoryview = memoryview(b"")
    verdict: TimedOut | LimitHit | None = None
    written: int = 0
    began: float = Factory(time.monotonic)
    cpu_began: float = 0.0
    next_look: float = 0.0

    def run(self) -> End:
        """Pump until the end; the streams that are left are read as far as they are filled."""
        base = self.counters()
        self.cpu_began = base.cpu or 0.0
        poller = select.poll()
        poller.register(self.process.fileno(), select.POLLIN)
        for sink in self.sinks:
            os.set_blocking(sink.fd, False)
            poller.register(sink.fd, select.POLLIN)
        if self.stdin_fd >= 0:
            os.set_blocking(self.stdin_fd, False)
            poller.register(self.stdin_fd, select.POLLOUT)
            self.feed(poller)
        while (end := self.process.poll()) is None:
            ready = {fd for fd, _ in poller.poll(self.patience() * 1000)}
            self.streams(poller, ready)
            self.look(base)
        self.drain()
        return end

    def patience(self) -> float:
        """Seconds until something has to be looked at."""
        waits = [60.0]
        now = time.monotonic()
        if self.limits.wall is not None:
            waits.append(self.began + self.limits.wall - now)
        if self.limits.cpu_time is not None:
            waits.append(max(CPU_LOOK, self.next_look - now))
        if self.limits.memory is not None:
            waits.append(OOM_LOOK)
        if self.verdict is not None:
            waits.append(1.0)
        return max(0.001, min(waits))

    def streams(self, poller: select.poll, ready: set[int]) -> None:
        """Move what can be moved."""
        for sink in self.sinks:
            if sink.fd in ready and self.read(sink) == 0:
                poller.unregister(sink.fd)
                sink.fd = -1
        if self.stdin_fd in ready:
            self.feed(poller)

    def feed(self, poller: select.poll) -> None:
        """Write input as far as the pipe takes it; close it at the end."""
        try:
            if self.stdin:
                self.stdin = self.stdin[os.write(self.stdin_fd, self.stdin[:CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.stdin = memoryview(b"")
        if not self.stdin:
            poller.unregister(self.stdin_fd)
            os.close(self.stdin_fd)
            self.stdin_fd = -1

    def read(self, sink: Sink) -> int | None:
        """One chunk: its length, 0 at the end of the stream, None if it is empty now."""
        try:
            data = os.read(sink.fd, CHUNK)
        except BlockingIOError:
            return None
        if not sink.counted:
            sink.take(data)
            return len(data)
        ceiling = self.limits.output
        if ceiling is not None and self.written + len(data) > ceiling:
            self.stop(LimitHit("output", self.written + len(data), ceiling))
            data = data[: max(0, ceiling - self.written)]
            self.written = ceiling
            sink.take(data)
            return 1
        self.written += len(data)
        if data:
            sink.take(data)
        return len(data)

    def look(self, base: Counters) -> None:
        """Compare with the limits; the first that is crossed is the verdict."""
        now = time.monotonic()
        limits = self.limits
        if limits.wall is not None and now - self.began >= limits.wall:
            self.stop(TimedOut(limits.wall))
        if limits.cpu_time is None and limits.memory is None:
            return
        seen = self.counters()
        if limits.memory is not None and seen.oom_kills > base.oom_kills:
            self.stop(LimitHit("memory", seen.memory_peak, limits.memory))
        if limits.cpu_time is not None and seen.cpu is not None:
            used = seen.cpu - self.cpu_began
            self.next_look = now + (limits.cpu_time - used) / (os.cpu_count() or 1)
            if used >= limits.cpu_time:
                self.stop(LimitHit("cpu_time", used, limits.cpu_time))

    def stop(self, verdict: TimedOut | LimitHit) -> None:
        """Kill, for the first reason that there is."""
        if self.verdict is None:
            self.verdict = verdict
        self.kill()

    def drain(self) -> None:
        """What was written before the end; an orphan that still writes is not waited for."""
        for sink in self.sinks:
            for _ in range(DRAIN_CHUNKS):
                if sink.fd < 0 or not self.read(sink):
                    break

    def close(self) -> None:
        """Close our ends."""
        if self.stdin_fd >= 0:
            os.close(self.stdin_fd)
            self.stdin_fd = -1
