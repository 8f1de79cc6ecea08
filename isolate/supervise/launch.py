# SPDX-License-Identifier: Apache-2.0
"""A running box: its init, its cgroup leaf, its ids; and the programs started in it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import TypeVar

from attrs import evolve

from isolate import native
from isolate.abi.flags import CLONE_NEWIPC, CLONE_NEWNET
from isolate.abi.ops import STEP_READY, Record, Request
from isolate.errors import IsolateError, LaunchError, SupervisorError
from isolate.plan.encode import Body, Encoded, encode_body, encode_program
from isolate.plan.model import Op, Plan, Program, Step
from isolate.supervise import atend, channel, confined, joining, steps, stock
from isolate.supervise.cgroupfs import Counters, killed_early
from isolate.supervise.channel import InitGone, InitRecord, Status
from isolate.supervise.freezer import Freezer
from isolate.supervise.interrupts import let_in
from isolate.supervise.leafstats import Extra, Moment, extra, moment
from isolate.supervise.notify import Supervisor
from isolate.supervise.process import Process
from isolate.supervise.setup import (
    ANSWER_SECONDS,
    Setup,
    ask_set_up,
    failure,
    parent_step,
    watching,
)
from isolate.supervise.start import Init, start_init
from isolate.supervise.timing import Timing
from isolate.supervise.violations import Violation

__all__ = ["Session"]

END_SECONDS = 5.0
KEPT = 256
KEPT_BLOBS = 16  # of a few KiB each
T = TypeVar("T")
Made = tuple[tuple[Op, ...], Body, dict[tuple[object, ...], Encoded]]
BODIES: dict[int, Made] = {}


def program_blob(program: Program) -> Encoded:
    """The body's bytes are made once a policy; the exec's once for the same argv, env and path."""
    found = BODIES.get(id(program.body))
    if found is None:
        if len(BODIES) >= KEPT:
            BODIES.clear()
        BODIES[id(program.body)] = found = (program.body, encode_body(program.body), {})
    _, body, blobs = found
    blob = blobs.get(program.exec.strs)
    if blob is None:
        if len(blobs) >= KEPT_BLOBS:
            blobs.clear()
        blobs[program.exec.strs] = blob = encode_program(body, program.exec)
    return blob


class Session:
    """Opened by `start`; ended, with all that is in it, by `close`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.undo = ExitStack()
        self.made = steps.Prepared(self.undo)
        self.init: Init | None = None
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.timing = Timing()
        self.pending: Setup | None = None
        self.spawned = 0  # programs so far
        self.closed = False
        self.counted = Counters()
        self.supervisor: Supervisor | None = None
        self.counted_extra = Extra()
        self.freezer = Freezer()

    def start(self) -> Session:
        """Run the parent's steps, start init, and ask it to set the box up.

        Init works while the caller goes on; `settle` waits for it, and so does the first program.

        Raises: LaunchError, HostLacks; then everything is undone.
        """
        began = time.monotonic()
        atend.opened(self)
        try:
            if self.plan.watch is not None:
                with parent_step("see to refused system calls"):
                    self.supervisor = Supervisor(self.plan.watch)
            steps.prepare(self.plan, self.made)
            self.plan = confined.weakened(self.plan, self.made.profile)
            prepared = time.monotonic()
            with parent_step("start isolate-init"):
                self.init = self.first_init()
            self.timing = Timing(began=began, prepared=prepared, cloned=time.monotonic())
            self.made.template = None  # init has its copy; a session may be kept for long
            steps.write_id_maps(self.init.pid, self.made)
            with parent_step("have isolate-init set the box up"):
                self.pending = ask_set_up(self.init, self.setup_ops(), self.made.fds)
            steps.prepare(self.plan, self.made, meanwhile=True)
        except BaseException:
            self.close()
            raise
        return self

    def leaf_fd(self, name: str) -> int:
        """A v2 directory of the box's cgroup, -1 if it has none."""
        return -1 if self.made.leaf is None else int(getattr(self.made.leaf, name))

    def start_init(self) -> Init:
        """With a pair of the stock's where the plan may have one and one is there."""
        pair = stock.take() if self.plan.stockable else None
        own = native.Spaces(mount=self.made.mount_ns, cgroup=self.leaf_fd("init_fd"))
        if pair is None:
            return start_init(self.plan.clone_flags, own)
        try:
            spaces = evolve(own, net=pair[0], ipc=pair[1])
            self.made.stocked = True
            return start_init(self.plan.clone_flags & ~(CLONE_NEWNET | CLONE_NEWIPC), spaces)
        finally:
            for fd in pair:
                os.close(fd)

    def settle(self) -> Session:
        """Wait until the box is set up. Raises: LaunchError; then everything is undone."""
        with self.lock:
            pending, self.pending = self.pending, None
        if pending is None:
            return self
        try:
            with parent_step("have isolate-init set the box up"):
                record = pending.settle()
                confined.confirm_first(pending.ops, self.alive)
        except BaseException:
            self.close()
            raise
        self.timing = evolve(self.timing, ended_ns=record.at_ns, phase_ns=record.phase_ns)
        return self

    def first_init(self) -> Init:
        """The box's init: cloned from here, or by one that has joined others' namespaces."""
        if not self.plan.joining:
            return self.start_init()
        self.init = start_init(0)
        return joining.join(self.init, self.present(self.plan.joining), self.made.fds)

    def setup_ops(self) -> tuple[Op, ...]:
        """Plan.setup, without what is optional and not there."""
        ops = stock.without_loopback(self.plan.setup) if self.made.stocked else self.plan.setup
        return confined.named(self.present(ops), self.made.profile)

    def present(self, ops: tuple[Op, ...]) -> tuple[Op, ...]:
        """Ops without those whose object is optional, and not there."""
        if not self.made.absent:
            return ops
        return tuple(op for op in ops if not self.made.absent.intersection(op.slots))

    @property
    def alive(self) -> Init:
        """Init of a box that is open. Raises: InitGone."""
        if self.init is None or self.closed or self.owner != os.getpid():
            raise InitGone("the box has ended: its `with` block is over, or this is a fork")
        return self.init

    def spawn(
        self,
        program: Program,
        fds: Mapping[str, int],
        last: bool = False,
        seconds: float | None = None,
    ) -> Process:
        """Start a program; returns when its exec has happened.

        Args:
            program: from `compile_program`.
            fds: "stdin", "stdout", "stderr" and "fd:N".
            last: its end ends the box.
            seconds: for the start; then it is killed. Who shares its box can hold it up.

        Raises: LaunchError, InitGone.
        """
        program = confined.named_program(program, self.made.profile)
        with parent_step("have isolate-init start the program"), self.freezer.launch():
            return self.request(program, fds, last, min(ANSWER_SECONDS, seconds or ANSWER_SECONDS))

    def request(
        self, program: Program, fds: Mapping[str, int], last: bool, seconds: float
    ) -> Process:
        """The SPAWN request, and its answers."""
        init = self.alive
        leaf_fd = self.leaf_fd("cgroup_fd")
        blob = program_blob(program)
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        notify, log = None, None
        try:
            named = {**self.made.fds, **fds, "record": write_fd, "leaf": leaf_fd}
            if self.supervisor is not None:
                notify, log = self.supervisor.listen()
                named["notify"] = notify.fileno()
            passed = [named[name] for name in blob.slots]
            flags = channel.SPAWN_LAST if last else channel.SPAWN_KEPT
            flags |= channel.SPAWN_CGROUP if leaf_fd >= 0 else 0
            status = channel.ask(init.control, Request.SPAWN, passed, flags, blob=blob.blob)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
            if notify is not None:
                notify.close()
        try:
            process = self.started(program.ops, status, read_fd, seconds)
            self.spawned += 1
            process.log = log
            return process
        except BaseException:
            status.close()
            raise
        finally:
            os.close(read_fd)

    def started(
        self, ops: tuple[Op, ...], status: Status, read_fd: int, seconds: float
    ) -> Process:
        """Wait for the exec, or for what stood in its way, the box's own set-up first of all."""
        try:
            with let_in():
                told = native.told(read_fd, seconds)
            self.settle()
            record, pidfd = status.receive(ANSWER_SECONDS)
        except IsolateError:
            raise
        except BaseException:  # it takes too long, or nobody waits for it any more
            self.kill_start(status)
            raise
        if record.type is not Record.SPAWNED or pidfd is None:
            start = Step(kind="clone", about="start a process in the box")
            why = "the box's pids limit is reached" if record.error == errno.EAGAIN else None
            raise LaunchError(0, start, record.error or errno.EPIPE, why, steps=len(ops))
        process = Process(record.pid, pidfd, status, record.status & 0xFFFFFFFF)
        try:
            if told and told[-1][1]:
                raise failure(ops, *told[-1][:2])
            if not told or told[-1][0] != STEP_READY:
                raise killed_early(self.counters())
            confined.confirm(ops, process, partial(self.kill_tree, process, wait=True))
            process.stamps = (record.at_ns, told[-1][2])
        except BaseException:
            process.close()
            raise
        return process

    def kill_start(self, status: Status) -> None:
        """Kill a program whose set-up is held up, by somebody with the same uid, say."""
        try:
            record, pidfd = status.receive(0.0)
        except (InitGone, OSError):  # not cloned yet: then only the end of all ends it
            self.kill()
            return
        if pidfd is not None:
            os.close(pidfd)
        serial = record.status & 0xFFFFFFFF
        self.kill_tree(Process(record.pid, -1, status, serial), wait=True)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Refused calls of all its programs so far; a fork of the caller has none to tell of."""
        if self.supervisor is None or self.owner != os.getpid():
            return ()
        return self.supervisor.violations()

    def counters(self) -> Counters:
        """The cgroup's counters, also after the end."""
        leaf = self.made.leaf
        if leaf is not None and not self.closed:
            self.counted = self.unless_closed(leaf.counters, self.counted)
        return self.counted

    def unless_closed(self, read: Callable[[], T], last: T) -> T:
        """What is read now; the last that was read, if the box was closed under our hands: then
        the leaf was being removed, and close has read it before. Raises: SupervisorError."""
        try:
            with watching("read what the kernel counted of the box"):
                found = read()
        except SupervisorError:
            if not self.closed:
                raise
            return last
        return last if self.closed else found

    def extra(self) -> Extra:
        """Further counters, also after the end."""
        if not self.closed:
            read = partial(extra, self.made.leaf)
            self.counted_extra = self.unless_closed(read, self.counted_extra)
        return self.counted_extra

    def moment(self) -> Moment:
        """Memory and processor time now; None of both when the box has ended."""
        if self.init is None or self.closed:
            return Moment(None, None)
        read = partial(moment, self.made.leaf, self.init.pid)
        return self.unless_closed(read, Moment(None, None))

    def kill(self) -> None:
        """End every process of the box, init included."""
        if self.init is not None:
            self.init.kill()
            self.freezer.end()

    def kill_tree(self, process: Process, wait: bool = False) -> None:
        """Kill a program and all that descends from it; the rest of the box lives on.

        Args:
            wait: until nothing of it is left.
        """
        if not process.serial:
            self.kill()  # the box is that program's alone
            return
        request = (Request.KILL, (), process.pid, process.serial)
        try:
            with closing(channel.ask(self.alive.control, *request)) as status:
                self.freezer.release_until(status)
                _ = wait and status.receive(ANSWER_SECONDS)
        except InitGone:
            return  # and so is all that was in the box
        except TimeoutError:
            self.kill()  # init is stopped, or can't end it: then everything

    def end(self) -> InitRecord | None:
        """Ask init to kill and reap everything; its totals, or None if it was gone."""
        try:
            status = channel.ask(self.alive.control, Request.END)
        except InitGone:
            return None
        try:
            record, _ = status.receive(END_SECONDS)
            return record
        except (InitGone, OSError):  # no answer, or none that could be read: close kills
            return None
        finally:
            status.close()

    def end_all(self) -> None:
        """End every process, the frozen first: init can't reap those."""
        try:
            self.freezer.end()
        finally:
            if self.init is not None:
                if not self.plan.clone_flags & 0x20000000:
                    self.end()  # without a pid namespace init has to kill them itself
                self.init.close()

    def close(self) -> None:
        """Kill, reap, read the last counters, undo every step. Safe to call twice."""
        if self.owner != os.getpid():  # a fork: the box is not ours to end, its lock may be held
            self.closed = True
            return
        with self.lock, watching("end the box"):
            if self.closed:
                return
            try:
                if self.pending is not None:
                    self.pending.status.close()
                    self.pending = None
                self.end_all()
                self.counters()
                self.extra()
                self.freezer.close()
            finally:
                if self.supervisor is not None:
                    self.supervisor.close()
                self.closed = True
                atend.closed(self)
                self.undo.close()
