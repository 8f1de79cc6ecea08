# SPDX-License-Identifier: Apache-2.0
"""`call` in a session: one interpreter a box, started on first use; each call in a fork of it."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from isolate.errors import (
    CpuTimeLimitExceeded,
    FileSizeLimitExceeded,
    IsolateError,
    LimitExceeded,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    PidsLimitExceeded,
    ReplyError,
    TimeLimitExceeded,
)
from isolate.host.facts import Host
from isolate.plan.compile import compile_program
from isolate.policy.command import Command
from isolate.policy.policy import Policy
from isolate.running import caller_fd
from isolate.supervise.channel import blob_fd
from isolate.supervise.launch import Session
from isolate.supervise.outcome import LimitHit, Outcome, Seen, TimedOut, judge
from isolate.supervise.process import End, Process
from isolate.supervise.pump import Pump, Sink
from isolate.worker import call as protocol
from isolate.worker import wire

__all__ = ["Caller"]

STATUS = struct.Struct("<cidd")
KEEPER_SECONDS = 2.0  # for a keeper to end its call, before the whole worker is ended
ERRORS: dict[str, type[LimitExceeded]] = {
    "memory": MemoryLimitExceeded,
    "pids": PidsLimitExceeded,
    "cpu_time": CpuTimeLimitExceeded,
    "output": OutputLimitExceeded,
    "files_size": FileSizeLimitExceeded,
}


class CallProcess(Process):
    """The process of one call: its keeper tells of it, and ends it, by a socket of their own.

    Args:
        end_server: ends the worker with all its calls, for a keeper that doesn't do its work.
    """

    def __init__(self, sock: socket.socket, end_server: Callable[[], None]) -> None:
        self.sock = sock
        self.end_server = end_server
        self.pid = self.serial = 0  # its keeper's affair
        self.pidfd = -1
        self.end = None
        self.killed: float | None = None  # since when
        self.taken = False  # the keeper has said so: the call may have begun

    def fileno(self) -> int:
        """Readable when there is news."""
        return self.sock.fileno()

    def poll(self) -> End | None:
        """Its end, or None."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        while self.end is None and poller.poll(0):
            self.news()
        return self.end

    def news(self) -> None:
        """One message of the keeper: taken, or the status; its silence is a death."""
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, STATUS.size, 1)
        except ConnectionResetError:
            data, fds = b"", []
        for fd in fds:
            os.close(fd)
        if data == b"t" and not self.taken:
            self.taken = True
        elif len(data) == STATUS.size and data[:1] == b"s":
            _, status, user, system = STATUS.unpack(data)
            self.end = End(status=status & 0xFFFF, user=user, system=system)
        else:
            self.end = End(status=int(signal.SIGKILL), lost=True)

    def kill(self) -> None:
        """Have the keeper kill the call and all that descends from it; again if it doesn't."""
        now = time.monotonic()
        if self.killed is None:
            self.killed = now
            with suppress(OSError):  # it is gone: the next look at the socket finds that
                self.sock.send(b"k", socket.MSG_DONTWAIT)
        elif now - self.killed > KEEPER_SECONDS:
            self.end_server()

    def close(self) -> None:
        """Close; safe to call twice."""
        self.sock.close()


class Caller:
    """The worker of one box."""

    def __init__(
        self,
        session: Session,
        policy: Policy,
        host: Host,
        env: Mapping[str, str] | None,
        cwd: str | None,
    ) -> None:
        self.session, self.policy, self.host = session, policy, host
        self.env, self.cwd = env, cwd
        self.lock = threading.Lock()
        self.server: Process | None = None
        self.control: socket.socket | None = None
        self.log_fd = -1

    def start(self) -> tuple[Process, socket.socket]:
        """A server that lives, and its control socket; started if there is none."""
        with self.lock:
            if self.server is not None and self.server.poll() is None and self.control:
                return self.server, self.control
            self.stop()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self.log_fd = os.memfd_create("isolate-worker-log", os.MFD_CLOEXEC)
            try:
                python = self.host.python
                path = [each for each in map(os.path.abspath, sys.path) if os.path.exists(each)]
                argv = protocol.argv(python.executable, path)
                command = Command(argv, self.env, self.cwd, (3,))
                fds = {"stdin": null, "stdout": null, "stderr": self.log_fd}
                fds["fd:3"] = theirs.fileno()
                ops = compile_program(self.policy, command, self.host)
                self.server = self.session.spawn(ops, fds)
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
                os.close(null)
            self.control = ours
            return self.server, ours

    def stop(self) -> None:
        """End the server, and close."""
        if self.server is not None:
            self.server.kill()
            self.server.close()
            self.server = None
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.log_fd >= 0:
            os.close(self.log_fd)
            self.log_fd = -1

    def close(self) -> None:
        """End the server; calls that still run end with the box."""
        with self.lock:
            self.stop()

    def why_dead(self) -> str:
        """What the server said before it died, bounded; text from inside."""
        if self.log_fd < 0:
            return ""
        text = os.pread(self.log_fd, 4000, 0).decode("utf-8", "replace").strip()
        return f"; its last words: {text}" if text else ""

    def call(self, fn: Any, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """One call: its value, or what it raises.

        Raises: LimitExceeded and its kinds; ReplyError; RemoteError; built-in exceptions.
        """
        if not callable(fn):
            raise TypeError(f"call needs a function, not {fn!r}")
        allowed = protocol.allowed_types(fn)
        python = self.host.python
        self.session.freezer.check()
        payload = protocol.pickled(fn, args, kw, allowed, python.skipped, python.trees)
        for name in ("stdout", "stderr"):
            caller_fd(name)  # flushed, so that lines stay in order
        with ExitStack() as stack:
            pump, reply = self.begin(payload, stack)
            before = self.session.counters()
            end = pump.run()
            if end.lost and not pump.verdict and not pump.process.taken:
                self.replace_ended()  # it died with the call in its queue: nothing has run
                pump, reply = self.begin(payload, stack)
                end = pump.run()
            if end.lost and isinstance(pump.process, CallProcess):
                pump.process.end_server()
            pump.drain()
            after = self.session.counters()
        seen = Seen(
            status=end.status,
            verdict=pump.verdict,
            oom_kills=after.oom_kills - before.oom_kills,
            pids_refused=0 if reply.data else after.pids_refused - before.pids_refused,
            memory_peak=after.memory_peak,
            pids_peak=after.pids_peak,
            cpu=None if after.cpu is None else after.cpu - (before.cpu or 0.0),
        )
        outcome = judge(seen, self.session.plan.limits)
        raise_limit(outcome)
        if not reply.data:
            lost = self.why_dead() if end.lost else ""
            raise ReplyError(f"the call ended without an answer: {outcome}{lost}")
        return protocol.answer(reply.data, allowed)

    def begin(self, payload: bytes, stack: ExitStack) -> tuple[Pump, Sink]:
        """Hand one call to the server; a server that a call before has killed is replaced."""
        server, control = self.start()
        try:
            return self.hand_over(server, control, payload, stack)
        except OSError:
            self.replace(control)
        try:
            return self.hand_over(*self.start(), payload, stack)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise IsolateError(f"the worker in the box is gone{self.why_dead()}") from error

    def kill_call(self, process: Process) -> None:
        """End one call. In a frozen box the server can't tell of its end, so it goes too."""
        process.kill()
        if self.session.freezer.frozen:
            with self.lock:
                server = self.server
            if server is not None:
                self.end_tree(server)

    def replace(self, control: socket.socket) -> None:
        """Forget a server that is gone, unless another thread has done so."""
        with self.lock:
            if self.control is control:
                self.stop()

    def end_tree(self, server: Process) -> None:
        """End a server with all that descends from it: a keeper of its calls was killed or stopped
        from inside, and what it kept can't be told from other calls any more."""
        self.session.kill_tree(server, wait=True)
        with self.lock:
            if self.server is server:
                self.stop()

    def replace_ended(self) -> None:
        """Forget a server that has closed its end, whatever init has told by now."""
        with self.lock:
            if self.control is not None and hung_up(self.control):
                self.stop()

    def hand_over(
        self, server: Process, control: socket.socket, payload: bytes, stack: ExitStack
    ) -> tuple[Pump, Sink]:
        """Send one call with its pipes; the pump that watches it, and where its reply goes."""
        fds = [blob_fd(payload)]
        ends = []
        try:
            os.lseek(fds[0], 0, os.SEEK_SET)
            for _ in range(3):
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
                stack.callback(os.close, read_fd)
                ends.append(read_fd)
                fds.append(write_fd)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(ours.close)
            fds.append(theirs.detach())
            socket.send_fds(control, [b"call"], fds)
        finally:
            for fd in fds:
                os.close(fd)
        process = CallProcess(ours, partial(self.end_tree, server))
        stack.callback(process.close)
        reply = Sink(ends[0], keep=True, limit=wire.MAX_BYTES + 1, counted=False)
        sinks = [
            reply,
            Sink(ends[1], keep=False, pass_to=caller_fd("stdout")),
            Sink(ends[2], keep=False, pass_to=caller_fd("stderr")),
        ]
        limits = self.session.plan.limits
        kill = partial(self.kill_call, process)
        return Pump(process, limits, kill, self.session.counters, sinks), reply


def hung_up(sock: socket.socket) -> bool:
    """Whether the other end is closed."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return any(events & select.POLLHUP for _, events in poller.poll(0))


def raise_limit(outcome: Outcome) -> None:
    """Raises: the LimitExceeded that an outcome stands for, if any."""
    if isinstance(outcome, TimedOut):
        raise TimeLimitExceeded("timeout", None, outcome.limit)
    if isinstance(outcome, LimitHit):
        raise ERRORS[outcome.limit](outcome.limit, outcome.used, outcome.ceiling)
