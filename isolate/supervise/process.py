# SPDX-License-Identifier: Apache-2.0
"""One program of a box: by pidfd and by init's report, never by pid (law 10)."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time

from attrs import frozen

from isolate.abi.ops import Record
from isolate.supervise.channel import InitGone, Status
from isolate.supervise.notify import Log
from isolate.supervise.violations import Violation

__all__ = ["End", "Process", "pid_of"]


def pid_of(pidfd: int) -> int:
    """The pid behind a pidfd as the caller's pid namespace has it; -1 if it is gone."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        found = re.search(r"^Pid:\s*(-?\d+)$", file.read(), re.MULTILINE)
    return int(found[1]) if found else -1


@frozen
class End:
    """How it ended.

    Attributes:
        status: as wait4(2) gives it.
        user, system: seconds of processor time, of it and the children that it waited for.
        max_rss: bytes of the largest single process.
        lost: init was gone before it could report: killed with the box.
    """

    status: int
    user: float = 0.0
    system: float = 0.0
    max_rss: int = 0
    lost: bool = False


class Process:
    """A started program. `close` frees the descriptors; it doesn't kill.

    Attributes:
        pid: as isolate-init sees it.
        serial: what isolate-init knows its keeper by; 0 without one (docs/adr/0010).
        taken: whether it may have begun; always so for a program that was started.
        stamps: when it was cloned and was about to exec, nanoseconds of CLOCK_MONOTONIC.
    """

    taken = True
    stamps = (0, 0)
    log: Log | None = None  # of its refused calls, where they are reported

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Its refused calls so far, and those of what it has started."""
        return () if self.log is None else self.log.violations()

    def __init__(self, pid: int, pidfd: int, status: Status, serial: int = 0) -> None:
        self.pid = pid
        self.serial = serial
        self.pidfd = pidfd
        self.status = status
        self.end: End | None = None
        self.lock = threading.Lock()

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self.status.fileno()

    def poll(self) -> End | None:
        """Its end, or None while it runs; never blocks."""
        with self.lock:
            if self.end is None:
                poller = select.poll()
                poller.register(self.status.fileno(), select.POLLIN)
                if poller.poll(0):
                    self.end = self.read_end()
            return self.end

    def wait(self, timeout: float | None = None) -> End | None:
        """Wait for its end; None if `timeout` seconds pass first."""
        until = None if timeout is None else time.monotonic() + timeout
        while (end := self.poll()) is None:
            poller = select.poll()
            poller.register(self.status.fileno(), select.POLLIN)
            left = None if until is None else max(0.0, until - time.monotonic())
            if not poller.poll(None if left is None else left * 1000 + 1) and left == 0.0:
                return None
        return end

    def read_end(self) -> End:
        """The EXITED record; init that is gone took the program along."""
        try:
            record, _ = self.status.receive()
        except InitGone:
            return End(status=int(signal.SIGKILL), lost=True)
        if record.type is not Record.EXITED:
            return End(status=int(signal.SIGKILL), lost=True)
        return End(
            status=record.status,
            user=record.user_us / 1e6,
            system=record.system_us / 1e6,
            max_rss=record.max_rss_kib * 1024,
        )

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        with self.lock:  # so that the number isn't closed, and somebody else's, by now
            if self.pidfd < 0:
                return
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptors; safe to call twice."""
        with self.lock:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1
                self.status.close()
