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
    SandboxViolation,
    TimeLimitExceeded,
)
from isolate.host.facts import Host
from isolate.host.probe import absolute
from isolate.plan.compile import compile_program
from isolate.policy.command import Command
from isolate.policy.policy import Policy
from isolate.running import caller_fd
from isolate.supervise.channel import blob_fd
from isolate.supervise.interrupts import held_back
from isolate.supervise.launch import Session
from isolate.supervise.outcome import LimitHit, Outcome, Seen, TimedOut, Violated, judge
from isolate.supervise.process import End, Process
from isolate.supervise.pump import Pump, Sink
from isolate.supervise.violations import Violation
from isolate.worker import call as protocol
from isolate.worker import wire

__all__ = ["Caller"]

STATUS = struct.Struct("<cidd")
CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid
ROOM = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(4)
TAKEN_SECONDS = 1.0
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
        self.keeper = 0  # the keeper's pid as we see it, by the kernel's word; 0 before it is taken
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
            data, ancillary, _, _ = self.sock.recvmsg(STATUS.size, ROOM)
        except ConnectionResetError:
            data, ancillary = b"", []
        sender = senders(ancillary)
        if data == b"t" and not self.taken:
            self.taken, self.keeper = True, sender
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
        self.pumps: list[Pump] = []  # of the calls that run

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
                path = [each for each in map(absolute, sys.path) if os.path.exists(each)]
                argv = protocol.argv(python.executable, path)
                command = Command(argv, self.env, self.cwd, (3,))
                fds = {"stdin": null, "stdout": null, "stderr": self.log_fd}
                fds["fd:3"] = theirs.fileno()
                ops = compile_program(self.policy, command, self.host)
                wall = self.session.plan.limits.wall
                self.server = self.session.spawn(ops, fds, seconds=wall)
                if self.server.log is not None:
                    self.server.log.when_killed(self.on_kill)
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
                os.close(null)
            self.control = ours
            return self.server, ours

    def on_kill(self, violation: Violation, pid: int, alone: bool) -> None:
        """The policy has ended a process: the call that it belongs to ends, too; if it alone is
        meant, the call that it is."""
        above = ancestors(pid, 1 if alone else 64)
        until = time.monotonic() + TAKEN_SECONDS
        while True:
            calls = {getattr(pump.process, "keeper", -1): pump for pump in list(self.pumps)}
            for keeper in above & calls.keys():
                calls[keeper].stop(Violated(violation.syscall, violation.args, "seccomp"))
                return
            if 0 not in calls or time.monotonic() > until:
                return
            time.sleep(0.002)  # one is taken, and the thread that waits for it hasn't looked yet

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
        text = protocol.told(os.pread(self.log_fd, 4000, 0).decode("utf-8", "replace").strip())
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
        with held_back(), ExitStack() as stack:
            self.start()
            before = self.session.counters()
            pump, reply = self.begin(payload, stack)
            pump.base = before
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
            oom=after.oom,
            cpu=None if after.cpu is None else after.cpu - (before.cpu or 0.0),
        )
        outcome = judge(seen, self.session.plan.limits)
        raise_limit(outcome)
        if isinstance(outcome, Violated):
            raise violation_error(outcome, self.session.violations)
        if not reply.data:
            lost = self.why_dead() if end.lost else ""
            raise ReplyError(f"the call ended without an answer: {outcome}{lost}")
        try:
            return protocol.answer(reply.data, allowed)
        except Exception as error:
            error.violations = self.session.violations  # type: ignore[attr-defined]
            raise

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
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
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
        pump = Pump(process, limits, partial(self.kill_call, process), self.session.counters, sinks)
        self.pumps.append(pump)
        stack.callback(self.pumps.remove, pump)
        return pump, reply


def violation_error(outcome: Violated, seen: tuple[Violation, ...]) -> SandboxViolation:
    """What `call` raises for a system call that ended it."""
    named = [str(each) for each in seen if each.syscall == outcome.syscall]
    what = named[-1] if named else "which one is not known: the kernel ended it"
    return SandboxViolation(f"a system call that its policy forbids ended the call: {what}", seen)


def senders(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The pid that the kernel gives for a message's sender, or 0. Descriptors are closed: none is
    asked for."""
    sender = 0
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(payload) >= 12:
            sender = CREDENTIALS.unpack_from(payload)[0]
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            for (fd,) in struct.iter_unpack("=i", payload[: len(payload) // 4 * 4]):
                os.close(fd)
    return int(sender)


def ancestors(pid: int, most: int) -> set[int]:
    """The pids above one, as far as init of its namespace is not among them; bounded."""
    found: set[int] = set()
    while len(found) < most:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return found
        if pid <= 1 or pid in found:
            return found
        found.add(pid)
    return found


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
        kind = ERRORS.get(outcome.limit, LimitExceeded)  # swap has no class of its own
        raise kind(outcome.limit, outcome.used, outcome.ceiling)
