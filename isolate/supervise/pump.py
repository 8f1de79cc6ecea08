# SPDX-License-Identifier: Apache-2.0
"""One loop over a program's end, its streams and its limits (HARDENING 23, 24).

The end of a run is the end of the program or a limit, never the end of a stream.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress

from attrs import Factory, define

from isolate.errors import SupervisorError
from isolate.plan.model import Limits
from isolate.supervise.cgroupfs import Counters
from isolate.supervise.interrupts import let_in
from isolate.supervise.notify import Log
from isolate.supervise.outcome import LimitHit, TimedOut, Violated, memory_hit
from isolate.supervise.process import End, Process, pid_of
from isolate.supervise.setup import watching
from isolate.supervise.timeline import Timeline
from isolate.supervise.violations import Violation

__all__ = ["Pump", "Sink"]

CHUNK = 65536
PASS_CHUNK = select.PIPE_BUF
CPU_LOOK = 0.01  # the least time between two looks at the processor account, seconds
OOM_LOOK = 0.1
COUNT_EVERY = 0.01  # a busy stream doesn't make us read the account more often
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
    pending: memoryview = memoryview(b"")

    def take(self, data: bytes) -> None:
        """One chunk; what is passed on waits in `pending` until the reader takes it."""
        if self.keep:
            if self.limit is None or self.kept < self.limit:
                self.chunks.append(data)
            self.kept += len(data)
        elif self.pass_to >= 0:
            self.pending = memoryview(data)

    def pass_on(self) -> None:
        """Write what poll(2) has promised to take: PIPE_BUF, so that a reader of ours that has
        stopped never stops us. A reader that is gone doesn't stop the program."""
        try:
            self.pending = self.pending[os.write(self.pass_to, self.pending[:PASS_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.pass_to, self.pending = -1, memoryview(b"")

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
    verdict: TimedOut | LimitHit | Violated | None = None
    written: int = 0
    began: float = Factory(time.monotonic)
    base: Counters | None = None  # the counters before the start, where somebody has read them
    cpu_began: float = 0.0
    next_look: float = 0.0
    next_count: float = 0.0
    timeline: Timeline | None = None

    def run(self) -> End:
        """Pump until the end; the streams that are left are read as far as they are filled.

        Raises: SupervisorError, after a kill.
        """
        try:
            return self.watch()
        except OSError as error:
            self.kill()
            about = f"watch process {self.process.pid}"
            raise SupervisorError(about, error.errno or errno.EIO) from error
        except BaseException:
            self.kill()  # KeyboardInterrupt, say: nobody watches its limits any more
            raise

    def watch(self) -> End:
        """The loop."""
        base = self.base if self.base is not None else self.counters()
        self.cpu_began = base.cpu or 0.0
        for sink in self.sinks:
            os.set_blocking(sink.fd, False)
        if self.stdin_fd >= 0:
            os.set_blocking(self.stdin_fd, False)
            self.feed()
        while (end := self.process.poll()) is None:
            poller = self.poller()
            poller.register(self.process.fileno(), select.POLLIN)
            with let_in():
                ready = {fd for fd, _ in poller.poll(self.patience() * 1000)}
            self.streams(ready)
            self.look(base)
        if self.timeline is not None:
            self.timeline.finish()
        return end

    def poller(self) -> select.poll:
        """Every stream that can move; one whose reader is behind is not read on."""
        poller = select.poll()
        for sink in self.sinks:
            if sink.pending:
                poller.register(sink.pass_to, select.POLLOUT)
            elif sink.fd >= 0:
                poller.register(sink.fd, select.POLLIN)
        if self.stdin_fd >= 0:
            poller.register(self.stdin_fd, select.POLLOUT)
        return poller

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
        if self.timeline is not None:
            waits.append(self.timeline.patience(now))
        return max(0.001, min(waits))

    def streams(self, ready: set[int]) -> None:
        """Move what can be moved."""
        for sink in self.sinks:
            if sink.pending:
                if sink.pass_to in ready:
                    ready.discard(sink.pass_to)  # the promise is for one write
                    sink.pass_on()
            elif sink.fd in ready and self.read(sink) == 0:
                sink.fd = -1
        if self.stdin_fd in ready:
            self.feed()

    def feed(self) -> None:
        """Write input as far as the pipe takes it; close it at the end."""
        try:
            if self.stdin:
                self.stdin = self.stdin[os.write(self.stdin_fd, self.stdin[:CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.stdin = memoryview(b"")
        if not self.stdin:
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
        if self.verdict is not None:
            self.kill()  # again, for who has to be told twice
        if limits.wall is not None and now - self.began >= limits.wall:
            self.stop(TimedOut(limits.wall))
        if self.timeline is not None:
            self.timeline.look(now)
        if (limits.cpu_time is None and limits.memory is None) or now < self.next_count:
            return
        self.next_count = now + COUNT_EVERY
        seen = self.counters()
        if limits.memory is not None and seen.oom_kills > base.oom_kills:
            self.stop(memory_hit(seen.oom, seen.memory_peak, limits.memory))
        if limits.cpu_time is not None and seen.cpu is not None:
            used = seen.cpu - self.cpu_began
            self.next_look = now + (limits.cpu_time - used) / (os.cpu_count() or 1)
            if used >= limits.cpu_time:
                self.stop(LimitHit("cpu_time", used, limits.cpu_time))

    def stop(self, verdict: TimedOut | LimitHit | Violated) -> None:
        """Kill, for the first reason that there is."""
        if self.verdict is None:
            self.verdict = verdict
        self.kill()

    def obey(self, log: Log | None) -> None:
        """Stop, too, when the policy ends a process of this program for a refused call."""
        if log is None:
            return

        def violated(seen: Violation, pid: int, alone: bool) -> None:
            if alone and pid != pid_of(self.process.pidfd):
                return
            self.stop(Violated(seen.syscall, seen.args, "seccomp"))
            with suppress(PermissionError):  # its AppArmor profile takes no signal: the box ends
                self.process.kill()  # at once: the end of a box takes a moment, and this may go on

        log.when_killed(violated)

    @watching("read what the program has written")
    def drain(self, abandoned: Callable[[], bool] = lambda: False) -> None:
        """What was written before the end; an orphan that still writes is not waited for.

        A reader of ours is waited for, until it is gone or `abandoned` says so.
        """
        for sink in self.sinks:
            for _ in range(DRAIN_CHUNKS):
                self.flush(sink, abandoned)
                if sink.fd < 0 or not self.read(sink):
                    break
            self.flush(sink, abandoned)

    def flush(self, sink: Sink, abandoned: Callable[[], bool]) -> None:
        """Pass on what is pending."""
        while sink.pending and not abandoned():
            poller = select.poll()
            poller.register(sink.pass_to, select.POLLOUT)
            with let_in():
                ready = poller.poll(200)
            if ready:
                sink.pass_on()

    def close(self) -> None:
        """Close our ends."""
        if self.stdin_fd >= 0:
            os.close(self.stdin_fd)
            self.stdin_fd = -1
