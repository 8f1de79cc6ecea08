# SPDX-License-Identifier: Apache-2.0
"""Starting isolate-init: the one clone of the caller, with five ops between it and exec."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache

from attrs import Factory, define

from isolate import native
from isolate.abi import flags
from isolate.abi.ops import OpCode, Phase
from isolate.errors import LaunchError
from isolate.plan.encode import Encoded, encode
from isolate.plan.hints import hint
from isolate.plan.model import Op, Vector
from isolate.supervise.channel import socket_pair

__all__ = ["Init", "start_init"]

CONTROL_FD = 3  # _native/init.h
HOST_FD = 4
PLACES = 2  # starts at once that may use low numbers; others hand on a copy of all descriptors
MANY = 256  # fewer descriptors than that are copied and closed as fast
ALL_CAPS = (1 << 64) - 1
PATCHED_CAPS = (1 << 41) - 1  # ambient: through CAP_CHECKPOINT_RESTORE; the kernel ends it earlier


class Shared:
    """Descriptors that every start of this process uses; made anew after a fork.

    Attributes:
        places: pairs of low numbers, taken early, for what a start gives to init: a caller with
            thousands of descriptors needn't hand on a copy of them all, to be closed at exec.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pid = 0
        self.host_fd = self.init_fd = self.null_fd = -1
        self.places: list[tuple[int, int]] = []
        self.opened: tuple[int, ...] = ()

    def get(self) -> tuple[int, int, int]:
        """(pidfd of this process, isolate-init opened by path, /dev/null). Raises: OSError."""
        with self.lock:
            if self.pid != os.getpid():
                old, self.opened = self.opened, opened()
                self.host_fd, self.init_fd, self.null_fd, *numbers = self.opened
                self.places = list(zip(numbers[::2], numbers[1::2], strict=True))
                self.pid = os.getpid()
                for fd in old:
                    os.close(fd)
            return self.host_fd, self.init_fd, self.null_fd

    @contextmanager
    def low(self, control: int, record: int) -> Iterator[tuple[int, int, int]]:
        """(control, record, keep): the two at low numbers, where they are high and there is a
        place; all that a start needs is below `keep` then. Else the same two, and 0."""
        place = None
        if max(control, record) >= MANY > max(self.opened):
            with self.lock:
                place = self.places.pop() if self.places else None
        if place is None:
            yield control, record, 0
            return
        try:
            os.dup2(control, place[0], inheritable=False)
            os.dup2(record, place[1], inheritable=False)
            yield *place, MANY
        finally:
            for number in place:
                os.dup2(self.null_fd, number, inheritable=False)
            with self.lock:
                self.places.append(place)


def opened() -> tuple[int, ...]:
    """A pidfd of ours, isolate-init, /dev/null, and the numbers of PLACES pairs; all, or none.

    Raises: OSError.
    """
    with ExitStack() as undo:
        found = [os.pidfd_open(os.getpid())]
        undo.callback(os.close, found[0])
        for path, how in ((native.INIT_PATH, os.O_PATH), ("/dev/null", os.O_RDWR)):
            found.append(os.open(path, how | os.O_CLOEXEC))
            undo.callback(os.close, found[-1])
        for _ in range(2 * PLACES):
            found.append(fcntl.fcntl(found[2], fcntl.F_DUPFD_CLOEXEC, 3))
            undo.callback(os.close, found[-1])
        undo.pop_all()
    return tuple(found)


SHARED = Shared()


def after_fork() -> None:
    """The lock may have been held by a thread that the child has not."""
    SHARED.lock = threading.Lock()


os.register_at_fork(after_in_child=after_fork)


@lru_cache(maxsize=64)
def start_plan(clone_flags: int) -> tuple[tuple[Op, ...], Encoded]:
    """What the clone child does: descriptors in place, capabilities kept over exec, exec."""
    ops = [
        Op(
            code=OpCode.CLOSE_FROM,
            phase=Phase.FD,
            about="mark descriptors from 5 up close-on-exec",
            nums=(HOST_FD + 1,),
        )
    ]
    places = (("control", CONTROL_FD), ("host", HOST_FD), ("null", 0), ("null", 1), ("null", 2))
    ops += [
        Op(
            code=OpCode.DUP2,
            phase=Phase.FD,
            about=f"put {name} at descriptor {number}",
            slots=(name,),
            nums=(number,),
        )
        for name, number in places
    ]
    if clone_flags & flags.CLONE_NEWUSER:
        # No id is mapped yet, so exec would drop every capability that is not ambient.
        ops.append(
            Op(
                code=OpCode.CAPSET,
                phase=Phase.CREDENTIALS,
                about="make capabilities inheritable",
                nums=(ALL_CAPS,) * 3,
            )
        )
        ops.append(
            Op(
                code=OpCode.AMBIENT,
                phase=Phase.CREDENTIALS,
                about="keep capabilities over exec",
                nums=(PATCHED_CAPS,),
            )
        )
    ops.append(
        Op(code=OpCode.READY, phase=Phase.EXEC, about="report ready", slots=("record",))
    )
    ops.append(
        Op(
            code=OpCode.EXEC,
            phase=Phase.EXEC,
            about="exec isolate-init",
            slots=("init",),
            strs=(None, Vector((b"isolate-init",)), Vector(())),
        )
    )
    return tuple(ops), encode(tuple(ops), clone_flags)


def hang_up(control: socket.socket) -> None:
    """Who serves the other end goes then, and its box with it."""
    with suppress(OSError):  # closed, or gone by itself
        control.shutdown(socket.SHUT_RDWR)


@define
class Init:
    """A running isolate-init: its pidfd, and the socket that takes requests."""

    pid: int
    pidfd: int
    control: socket.socket
    lock: threading.Lock = Factory(threading.Lock)

    def kill(self) -> None:
        """SIGKILL: takes its pid namespace along. Harmless when it is gone."""
        with self.lock:  # so that the number isn't closed, and somebody else's, by now
            if self.pidfd < 0:
                return
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return
            except PermissionError:  # its AppArmor profile takes no signal from us (ADR 18)
                hang_up(self.control)

    def reap(self) -> None:
        """Wait until it is dead and no zombie. Somebody's waitpid(-1) may have been faster."""
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            return

    def close(self) -> None:
        """Kill, reap and close; safe to call twice."""
        if self.pidfd < 0:
            return
        self.control.close()  # at which it ends by itself, where we may not kill it any more
        try:
            self.kill()
        finally:
            try:
                self.reap()
            finally:
                with self.lock:
                    os.close(self.pidfd)
                    self.pidfd = -1


def start_init(clone_flags: int, spaces: native.Spaces = native.OURS) -> Init:
    """Start isolate-init in new namespaces.

    Args:
        spaces: what it enters before: a stock's namespaces, a template of the mounts, a cgroup.

    Raises: LaunchError naming the op, or clone3 with the namespaces that were asked for.
    """
    ops, encoded = start_plan(clone_flags)
    host_fd, init_fd, null_fd = SHARED.get()
    ours, theirs = socket_pair()
    try:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    named = {"host": host_fd, "null": null_fd, "init": init_fd}
    try:
        with SHARED.low(theirs.fileno(), write_fd) as (control, record, keep):
            named.update(control=control, record=record)
            fds = [named[name] for name in encoded.slots]
            pid, pidfd = native.spawn(
                encoded.blob, fds, shares_memory=True, spaces=spaces, keep=keep
            )
    except OSError as error:
        ours.close()
        os.close(read_fd)
        about = f"clone3 with {flags.namespace_names(clone_flags)}"
        if error.filename == "setns":
            about = "enter the template of the mount tree, and the stock's namespaces"
        op = Op(code=OpCode.UNSHARE, phase=Phase.NAMESPACE, about=about)
        number = error.errno or 0
        raise LaunchError(0, op, number, hint(op, number, None), steps=len(ops)) from error
    finally:
        theirs.close()
        os.close(write_fd)
    init = Init(pid, pidfd, ours)
    try:
        check_started(ops, native.told(read_fd, None))
    except BaseException:
        init.close()
        raise
    finally:
        os.close(read_fd)
    return init


def check_started(ops: tuple[Op, ...], records: list[tuple[int, int, int]]) -> None:
    """One READY record and nothing more: the exec happened. Raises: LaunchError."""
    if len(records) == 1 and records[0][1] == 0:
        return
    step, error, _ = records[-1] if records else (0, 32, 0)
    raise LaunchError(step, ops[min(step, len(ops) - 1)], error or 32, steps=len(ops))
