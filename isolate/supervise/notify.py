# SPDX-License-Identifier: Apache-2.0
"""The supervisor of refused system calls: one thread a session, asleep while nothing is refused.

Whatever goes wrong here refuses: a call that nobody answers waits, one whose listener is closed
gets ENOSYS from the kernel. Nothing is decided by memory of the program, which it may change.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from attrs import evolve

from isolate.abi.signatures import ENUMS, params
from isolate.abi.syscalls import AUDIT_ARCH, name_of
from isolate.native import Notice, Notifier
from isolate.plan.lower.seccomp_notify import NOISE
from isolate.plan.model import Watch
from isolate.policy.rules import ALLOW, Action
from isolate.supervise.channel import socket_pair
from isolate.supervise.handlers import Desk
from isolate.supervise.pyframe import locate
from isolate.supervise.threads import start_thread
from isolate.supervise.violations import Violation, abi_on, described, merged, name_on, scalars

__all__ = ["Log", "Supervisor"]

LOG = logging.getLogger("isolate")
MAX_PAST = 1024  # kinds that a session remembers of programs that have ended
RET_ACTIONS = {0x80000000: "kill_process", 0x00050000: "errno", 0x7FC00000: "notify"}
ALLOWED = (0x7FFF0000, 0x7FFC0000, 0x7FC00000)  # allow, log, notify: what observing lets go on
EPERM = 1
OTHERS = "others"
SWEEP = 64
LINES = 64  # kinds of a listener whose Python line is looked for: that takes part of a millisecond


def as_action(value: int) -> Action:
    """What a call got, by SECCOMP_RET_* of the policy; a call that a handler left is refused."""
    name = RET_ACTIONS.get(value & 0xFFFF0000, "errno")
    if name == "errno" and value & 0xFFFF0000 == 0x00050000:
        return Action("errno", value & 0xFFFF)
    return Action("errno", EPERM) if name in ("errno", "notify") else Action(name)


@lru_cache(maxsize=64)
def sights(watch: Watch) -> bytes:
    """How to look at each call of this machine: struct iso_sight[]."""
    handled = {each.syscall for each in watch.handlers}
    table = bytearray()
    for number in range(Notifier.SIGHTS):
        name = name_of(watch.arch, number)
        known = params(name)
        way = Notifier.REPORT
        if watch.observe:
            way = Notifier.OBSERVE
        elif name in handled:
            way = Notifier.HANDLED
        elif name in watch.silent or name in NOISE or "*" in watch.silent:
            way = Notifier.SILENT
        plain = 0
        looks: list[tuple[int, int, int]] = []
        for index, param in enumerate(known if known is not None else ()):
            if watch.observe:
                plain |= (param.kind in ENUMS) << index
            elif not param.is_pointer:
                plain |= 1 << index
            elif param.kind == "str" and len(looks) < 2:
                looks.append((Notifier.STRING, index, 0))
            elif param.kind == "addr" and len(looks) < 2:
                looks.append((Notifier.BYTES, index, index + 1))
        looks += [(0, 0, 0)] * (2 - len(looks))
        (a, at_a, len_a), (b, at_b, len_b) = looks
        table += bytes((way, plain, a, b, at_a, at_b, len_a, len_b))
    return bytes(table)


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


OnKill = Callable[[Violation, int, bool], None]


class Log:
    """What was refused under one listener: one program and what it started.

    Attributes:
        killed: the call for which the policy ended a process, its pid as the caller has it, and
            whether that process alone is meant: not what has started it.
    """

    def __init__(self, notifier: Notifier, tag: int) -> None:
        self.notifier, self.tag = notifier, tag
        self.lock = threading.Lock()
        self.kinds: dict[int, Violation] = {}
        self.own: dict[Any, Violation] = {}
        self.own_others = 0
        self.final: tuple[Violation, ...] | None = None
        self.killed: tuple[Violation, int, bool] | None = None
        self.callback: OnKill | None = None

    def note(self, key: Any, violation: Violation) -> None:
        """One that the native half doesn't count: of a handler, or a kill."""
        with self.lock:
            if key in self.own:
                self.own[key] = evolve(self.own[key], count=self.own[key].count + 1)
            elif len(self.own) < Notifier.KINDS:
                self.own[key] = violation
            else:
                self.own_others += 1

    def ended(self, violation: Violation, pid: int, alone: bool) -> None:
        """The policy has ended a process."""
        with self.lock:
            self.killed = self.killed or (violation, pid, alone)
            callback = self.callback
        if callback is not None:
            callback(violation, pid, alone)

    def when_killed(self, callback: OnKill) -> None:
        """Called, from the supervisor's thread, when the policy ends a process."""
        with self.lock:
            self.callback = callback
            killed = self.killed
        if killed is not None:
            callback(*killed)

    def settle(self) -> None:
        """Nobody is left: the counts are final, and the native half may forget."""
        with self.lock:
            self.final = self.counted()

    def violations(self) -> tuple[Violation, ...]:
        """What was refused so far."""
        with self.lock:
            return self.counted() if self.final is None else self.final

    def counted(self) -> tuple[Violation, ...]:
        """With the native half's counts."""
        counts, others, _ = self.notifier.counts(self.tag)
        found = []
        for kind, count in enumerate(counts):
            if kind in self.kinds:
                found.append(evolve(self.kinds[kind], count=count))
            else:
                others += count  # it could not be described, or is just being so
        found += self.own.values()
        others += self.own_others
        if others:
            found.append(Violation(syscall=OTHERS, count=others))
        return tuple(found)


class Supervisor:
    """Of one session; `close` it when all its processes are dead."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.arch = AUDIT_ARCH[watch.arch]
        self.notifier = Notifier(watch.programs, sights(watch), self.arch, watch.lethal)
        self.desk = Desk(watch, self.notifier, self.handled)
        self.lock = threading.Lock()
        self.logs: dict[int, Log] = {}
        self.past: tuple[Violation, ...] = ()
        self.tags = 0
        self.sweep_at = SWEEP
        self.thread: threading.Thread | None = None
        self.closing = False

    def listen(self) -> tuple[Any, Log]:
        """A socket for one program's listener, and its log. The socket is the caller's to close."""
        ours, theirs = socket_pair()
        try:
            with self.lock:
                if self.thread is None:
                    self.thread = start_thread("isolate-notify", self.run)
                if len(self.logs) >= self.sweep_at:
                    self.sweep()
                self.tags += 1
                log = self.logs[self.tags] = Log(self.notifier, self.tags)
                self.notifier.add(ours.fileno(), log.tag)
                ours.detach()  # the notifier's from now on
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return theirs, log

    def run(self) -> None:
        """The loop. If it can't go on, its listeners are closed: the kernel refuses by itself."""
        while not self.closing:
            try:
                notice = self.notifier.next(self.desk.patience())
            except OSError:
                LOG.exception("refused system calls can no longer be reported")
                for tag in list(self.logs):
                    self.gone(tag)
                return
            try:
                self.tell(notice)
            except Exception:  # one call less is described; it is refused, and the next is served
                LOG.exception("a refused system call could not be reported")

    def tell(self, notice: Notice) -> None:
        """What the native half says."""
        self.desk.expire()
        log = self.logs.get(notice.tag)
        if notice.told == Notifier.GONE:
            self.gone(notice.tag)
        elif notice.told == Notifier.WOKEN or log is None:
            return
        elif notice.told == Notifier.HANDLER:
            self.desk.take(notice)
        else:
            try:
                violation = self.seen(notice)
                if notice.told == Notifier.KILL:
                    self.end(notice, log, violation)
                else:
                    with log.lock:
                        log.kinds[notice.kind] = violation
            finally:
                self.answer(notice)

    def goes_on(self, notice: Notice) -> bool:
        """Whether it is only watched."""
        return self.watch.observe and notice.action & 0xFFFF0000 in ALLOWED

    def answer(self, notice: Notice) -> None:
        """What the policy says."""
        goes_on = self.goes_on(notice)
        action = as_action(notice.action)
        code = action.data if action.name == "errno" else EPERM
        self.notifier.answer(notice, error=0 if goes_on else code, goes_on=goes_on)

    def seen(self, notice: Notice, action: Action | None = None) -> Violation:
        """The record of a call that waits."""
        name = name_on(notice.arch, notice.nr)
        status = status_of(notice.pid)
        inside = status.get("NStgid", "0").split()[-1]
        where = None
        if not self.watch.observe and notice.kind < LINES:
            tid = int(status.get("NSpid", "0").split()[-1])
            where = locate(notice.pid, tid, lambda at, size: self.notifier.peek(notice, at, size))
        if not self.notifier.waits(notice):
            inside, where = "0", None  # the number may be somebody else's by now
        known = params(name)
        abi = abi_on(notice.arch, notice.nr, self.arch)
        found = Violation(
            syscall=name,
            args=notice.args if known is None else notice.args[: len(known)],
            decoded=described(name, notice.args, () if abi else notice.data),  # strings: own ABI
            pid=int(inside),
            action=action or (ALLOW if self.goes_on(notice) else as_action(notice.action)),
            where=where,
            handled=action is not None,
            abi=abi,
        )
        if not self.watch.observe:
            LOG.info("refused in the box: %s", found)
        return found

    def handled(self, notice: Notice, action: Action) -> None:
        """A handler has refused."""
        log = self.logs.get(notice.tag)
        if log is not None:
            violation = self.seen(notice, action)
            plain = scalars(violation.syscall, notice.args)
            log.note((notice.nr, plain, notice.data, action), violation)

    def end(self, notice: Notice, log: Log, violation: Violation) -> None:
        """Kill the process of a call that waits: by a pidfd that was opened while it waited."""
        violation = evolve(violation, action=Action("kill_process"))
        if notice.kind < Notifier.KINDS:
            with log.lock:
                log.kinds.setdefault(notice.kind, violation)
        match = re.match(r"\d+", status_of(notice.pid).get("Tgid", ""))
        if match is None:
            return
        pid = int(match[0])
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self.notifier.waits(notice):
                # First: who waits for its end has to know why. A call of another ABI ends, as by
                # the kernel, its own process: a program may start one to see if that works.
                alone = bool(violation.abi) and not self.watch.lethal
                log.ended(violation, pid, alone)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)

    def gone(self, tag: int) -> None:
        """The last process under a listener has ended."""
        with self.lock:
            self.settle(tag)
        self.notifier.forget(tag)

    def settle(self, tag: int) -> None:
        """Keep what a log has, without it; with the lock held."""
        log = self.logs.pop(tag, None)
        if log is not None:
            log.settle()
            self.past = self.remembered(log)

    def sweep(self) -> None:
        """Let go of the logs of programs that have ended without a refusal: nobody tells that."""
        for tag in [tag for tag in self.logs if not self.notifier.knows(tag)]:
            self.settle(tag)
        self.sweep_at = max(SWEEP, 2 * len(self.logs))

    def remembered(self, log: Log) -> tuple[Violation, ...]:
        """All that has ended, bounded; what is too much is counted together."""
        found = merged([*self.past, *(log.final or ())])
        if len(found) <= MAX_PAST:
            return found
        rest = sum(each.count for each in found[MAX_PAST:])
        return (*found[:MAX_PAST], Violation(syscall=OTHERS, count=rest))

    def violations(self) -> tuple[Violation, ...]:
        """What was refused in the session so far."""
        with self.lock:
            logs = [each for log in self.logs.values() for each in log.violations()]
            return merged([*self.past, *logs])

    def close(self) -> None:
        """End the thread, settle the logs; safe to call twice."""
        if self.closing:
            return
        self.closing = True
        self.notifier.wake()
        while self.thread is not None and self.thread.is_alive():
            self.thread.join(1.0)
            self.notifier.wake()  # again, should the first one have failed
        for tag in list(self.logs):
            self.gone(tag)
        self.notifier.close()
        self.desk.close()
