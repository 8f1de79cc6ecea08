# SPDX-License-Identifier: Apache-2.0
"""A running box: its init, its cgroup leaf, its ids; and the programs started in it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache

from isolate import native
from isolate.abi.ops import STEP_READY, Record, Request
from isolate.errors import IsolateError, LaunchError
from isolate.plan.encode import Encoded, encode
from isolate.plan.hints import hint
from isolate.plan.model import Op, Plan, Step
from isolate.supervise import channel, steps
from isolate.supervise.cgroupfs import Counters
from isolate.supervise.channel import InitGone, InitRecord, Status
from isolate.supervise.process import Process
from isolate.supervise.start import Init, read_records, start_init

__all__ = ["Session"]

END_SECONDS = 5.0
ANSWER_SECONDS = 60.0  # for a set-up, or a start: a stopped init must not stop us


@lru_cache(maxsize=256)
def encoded(ops: tuple[Op, ...]) -> Encoded:
    """Cached: a policy's set-up is the same every time."""
    return encode(ops)


def failure(ops: tuple[Op, ...], step: int, error: int) -> LaunchError:
    """The error of one op, with its cause."""
    op = ops[min(step, len(ops) - 1)]
    found = LaunchError(step, op, error, hint(op, error, None), steps=len(ops))
    found.__cause__ = OSError(error, os.strerror(error))
    return found


@contextmanager
def parent_step(about: str) -> Iterator[None]:
    """What fails in the parent names its step, as an op does."""
    try:
        yield
    except IsolateError:
        raise
    except OSError as error:
        late = isinstance(error, TimeoutError)
        number = errno.ETIMEDOUT if late else error.errno or 0
        why = f"isolate-init didn't answer within {ANSWER_SECONDS} s" if late else None
        raise LaunchError(0, Step(kind="ask", about=about), number, why) from error


class Session:
    """Opened by `start`; ended, with all that is in it, by `close`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.undo = ExitStack()
        self.made = steps.Prepared(self.undo)
        self.init: Init | None = None
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.timing: dict[str, float] = {}
        self.closed = False
        self.counted = Counters()

    def start(self) -> Session:
        """Run the parent's steps, start init, and have it set the box up.

        Raises: LaunchError, HostLacks; then everything is undone.
        """
        began = time.monotonic()
        try:
            steps.prepare(self.plan.steps, self.made)
            prepared = time.monotonic()
            with parent_step("start isolate-init"):
                self.init = start_init(self.plan.clone_flags, self.leaf_fd("init_fd"))
            cloned = time.monotonic()
            steps.write_id_maps(self.init.pid, self.made)
            with parent_step("have isolate-init set the box up"):
                record = self.set_up(self.init)
        except BaseException:
            self.close()
            raise
        self.timing = {
            "prepare": prepared - began,
            "clone": cloned - prepared,
            "set_up": record.at_ns / 1e9 - cloned,
        }
        return self

    def leaf_fd(self, name: str) -> int:
        """A v2 directory of the box's cgroup, -1 if it has none."""
        return -1 if self.made.leaf is None else int(getattr(self.made.leaf, name))

    def set_up(self, init: Init) -> InitRecord:
        """Plan.setup, in init itself."""
        ops = self.plan.setup
        if self.made.absent:
            ops = tuple(op for op in ops if not self.made.absent.intersection(op.slots))
        blob = encoded(ops)
        fd = channel.blob_fd(blob.blob)
        try:
            fds = [fd, *(self.made.fds[name] for name in blob.slots)]
            status = channel.ask(init.control, Request.SETUP, fds)
        finally:
            os.close(fd)
        try:
            record, _ = status.receive(ANSWER_SECONDS)
        finally:
            status.close()
        if record.error:
            raise failure(ops, record.step, record.error)
        return record

    @property
    def alive(self) -> Init:
        """Init of a box that is open. Raises: InitGone."""
        if self.init is None or self.closed or self.owner != os.getpid():
            raise InitGone("the box has ended: its `with` block is over, or this is a fork")
        return self.init

    def spawn(self, ops: tuple[Op, ...], fds: Mapping[str, int], last: bool = False) -> Process:
        """Start a program; returns when its exec has happened.

        Args:
            ops: from `compile_program`.
            fds: "stdin", "stdout", "stderr" and "fd:N".
            last: its end ends the box.

        Raises: LaunchError, InitGone.
        """
        with parent_step("have isolate-init start the program"):
            return self.request(ops, fds, last)

    def request(self, ops: tuple[Op, ...], fds: Mapping[str, int], last: bool) -> Process:
        """The SPAWN request, and its answers."""
        init = self.alive
        leaf_fd = self.leaf_fd("cgroup_fd")
        blob = encode(ops, first=("leaf",) if leaf_fd >= 0 else ())
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        blob_fd = -1
        try:
            named = {**self.made.fds, **fds, "record": write_fd, "leaf": leaf_fd}
            blob_fd = channel.blob_fd(blob.blob)
            passed = [blob_fd, *(named[name] for name in blob.slots)]
            flags = channel.SPAWN_LAST if last else 0
            flags |= channel.SPAWN_CGROUP if leaf_fd >= 0 else 0
            status = channel.ask(init.control, Request.SPAWN, passed, flags)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
            if blob_fd >= 0:
                os.close(blob_fd)
        try:
            return self.started(ops, status, read_fd)
        except BaseException:
            status.close()
            raise
        finally:
            os.close(read_fd)

    def started(self, ops: tuple[Op, ...], status: Status, read_fd: int) -> Process:
        """Wait for the exec, or for what stood in its way."""
        record, pidfd = status.receive(ANSWER_SECONDS)
        if record.type is not Record.SPAWNED or pidfd is None:
            start = Step(kind="clone", about="start a process in the box")
            why = "the box's pids limit is reached" if record.error == errno.EAGAIN else None
            raise LaunchError(0, start, record.error or errno.EPIPE, why, steps=len(ops))
        process = Process(record.pid, pidfd, status)
        try:
            data = read_records(read_fd, ANSWER_SECONDS)
            size = native.FAIL_SIZE
            told = [native.parse_fail(data[i : i + size]) for i in range(0, len(data), size)]
            if told and told[-1][1]:
                raise failure(ops, *told[-1][:2])
            if not told or told[-1][0] != STEP_READY:
                raise IsolateError(
                    "the program was killed while it was being set up, before its exec: by its "
                    "own limits (memory, cpu_time) or by somebody with the same uid"
                )
        except BaseException:
            process.close()
            raise
        return process

    def counters(self) -> Counters:
        """The cgroup's counters, also after the end."""
        leaf = self.made.leaf
        if leaf is not None and not self.closed:
            self.counted = leaf.counters()
        return self.counted

    def kill(self) -> None:
        """End every process of the box, init included."""
        if self.init is not None:
            self.init.kill()

    def end(self) -> InitRecord | None:
        """Ask init to kill and reap everything; its totals, or None if it was gone."""
        try:
            status = channel.ask(self.alive.control, Request.END)
        except InitGone:
            return None
        try:
            record, _ = status.receive(END_SECONDS)
            return record
        except (InitGone, TimeoutError):
            return None
        finally:
            status.close()

    def close(self) -> None:
        """Kill, reap, read the last counters, undo every step. Safe to call twice."""
        with self.lock:
            if self.closed:
                return
            if self.owner != os.getpid():  # a fork: the box is not ours to end
                self.closed = True
                return
            try:
                if self.init is not None:
                    if not self.plan.clone_flags & 0x20000000:
                        self.end()  # without a pid namespace init has to kill them itself
                    self.init.close()
                self.counters()
            finally:
                self.closed = True
                self.undo.close()
