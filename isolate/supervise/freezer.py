# SPDX-License-Identifier: Apache-2.0
"""Freezing a box by its cgroup: v2's cgroup.freeze, or a leaf of v1's freezer made when wanted.

On v1 a frozen process doesn't even die (kernel/freezer.c), so every kill goes through here: what
was killed is thawed, to die. Only programs are frozen; isolate-init goes on, and time limits too.
"""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from isolate.errors import HostLacks, IsolateError
from isolate.supervise import cgroupfs
from isolate.supervise.channel import Status
from isolate.supervise.leafstats import UNIFIED, text_of

__all__ = ["Freezer", "kill_leaf", "reclaim"]

FREEZE_SECONDS = 10.0
LOOK = 0.002
HINT = "a box has a cgroup where the machine lets us make one: see `isolate doctor`"
RECLAIMED: set[int] = set()


def write(directory: str, file: str, value: str) -> None:
    """One word into a control file. Raises: OSError."""
    fd = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def members(directory: str) -> set[int]:
    """The processes of a leaf and of what was made below it."""
    return {pid for place, _, _ in os.walk(directory) for pid in cgroupfs.pids_in(place)}


def move(directory: str, pid: int) -> None:
    """Put one process there; nothing happens if it has ended."""
    try:
        write(directory, "cgroup.procs", str(pid))
    except ProcessLookupError:
        return


def is_killed(pid: int) -> bool:
    """Whether SIGKILL waits for a process to go on (proc_pid_status(5), SigPnd and ShdPnd)."""
    text = text_of(f"/proc/{pid}/status") or ""
    masks = re.findall(r"^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$", text, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in masks)


def v1_parent() -> str:
    """Where leaves of the freezer controller go. Raises: HostLacks."""
    mount = cgroupfs.mounts().get("freezer")
    if mount is None or not os.access(mount, os.W_OK):
        raise HostLacks(
            "freeze", "the v1 freezer controller is not mounted, or not ours to write", HINT
        )
    return f"{mount}/{cgroupfs.parent_name()}"


def kill_and_thaw(directory: str) -> None:
    """What is frozen there is killed first: not one instruction more of it runs."""
    cgroupfs.kill_in(directory)
    with suppress(FileNotFoundError):  # removed already
        write(directory, "freezer.state", "THAWED")


def reclaim() -> None:
    """Once a process: end and remove what hosts that died have left, in every v1 controller.

    The frozen first: they couldn't die with their host. A leaf is stale if its lock is free.
    """
    if os.getpid() in RECLAIMED:
        return
    RECLAIMED.add(os.getpid())
    mounts = cgroupfs.mounts()
    for controller in sorted(mounts, key=lambda name: name != "freezer"):
        above = f"{mounts[controller]}/{cgroupfs.parent_name()}"
        if not os.path.isdir(above) or not os.access(above, os.W_OK):
            continue
        if controller == "freezer":
            thaw_stale(above)
        cgroupfs.reclaim(above)
        with suppress(OSError):  # ENOTEMPTY: others have theirs there; ENOENT: they took it away
            os.rmdir(above)


def thaw_stale(above: str) -> None:
    """Kill and thaw what is frozen in the leaves of dead hosts."""
    for name in os.listdir(above):
        with suppress(FileNotFoundError):
            held = cgroupfs.lock(f"{above}/{name}") if name.startswith("isolate-") else None
            if held is not None:
                try:
                    kill_and_thaw(f"{above}/{name}")
                finally:
                    os.close(held)


class Freezer:
    """Freezes and thaws one box; knows whether it is frozen."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # one freeze or thaw at a time
        self.gate = threading.Condition()
        self.launching = 0
        self.frozen = False
        self.unified = ""
        self.directory = ""
        self.lock_fd = -1
        self.guarded = False

    def check(self) -> None:
        """Raises: IsolateError, if the box is frozen."""
        if self.frozen:
            raise IsolateError("the box is frozen, so nothing can start in it: thaw() it first")

    @contextmanager
    def launch(self) -> Iterator[None]:
        """Around the start of a program: half a set-up must not be frozen.

        Raises: IsolateError, if the box is frozen.
        """
        with self.gate:
            self.check()
            self.launching += 1
        try:
            yield
        finally:
            with self.gate:
                self.launching -= 1
                self.gate.notify_all()

    def freeze(self, leaf: Any, guard: Callable[[int], None] | None = None) -> None:
        """Stop every program of the box where it is; returns when all have stopped.

        Args:
            guard: gives v1's freezer.state to isolate-init, which thaws what it has to end when
                this process has died.

        Raises: HostLacks, without a cgroup; IsolateError, if they don't stop within 10 s.
        """
        if leaf is None or not leaf.directories:
            raise HostLacks("freeze", "the box has no cgroup of its own", HINT)
        with self.lock:
            end = time.monotonic() + FREEZE_SECONDS
            self.shut(end)
            try:
                if UNIFIED in leaf.directories:
                    self.unified = leaf.directories[UNIFIED]
                    write(self.unified, "cgroup.freeze", "1")
                    wait_frozen(self.unified, True, end)
                else:
                    self.freeze_v1(leaf.directories, guard, end)
            except BaseException:
                self.open()
                raise

    def shut(self, end: float) -> None:
        """No program starts from now on; those that are starting have started. Raises."""
        with self.gate:
            self.frozen = True
            if not self.gate.wait_for(lambda: not self.launching, end - time.monotonic()):
                self.frozen = False
                raise IsolateError(f"a program was still starting after {FREEZE_SECONDS} s")

    def freeze_v1(
        self, directories: Mapping[str, str], guard: Callable[[int], None] | None, end: float
    ) -> None:
        """Move the box's processes into a leaf of the freezer that is set to freeze."""
        source = next(iter(directories.values()))
        if not self.directory:
            self.place_v1(source, directories)
        if guard is not None and not self.guarded:
            fd = os.open(f"{self.directory}/freezer.state", os.O_WRONLY | os.O_CLOEXEC)
            try:
                guard(fd)
            finally:
                os.close(fd)
            self.guarded = True
        write(self.directory, "freezer.state", "FROZEN")
        while True:
            outside = members(source) - members(self.directory)
            for pid in outside:
                move(self.directory, pid)
            state = (text_of(f"{self.directory}/freezer.state") or "").strip()
            if not outside and state == "FROZEN":
                return
            if time.monotonic() > end:
                raise IsolateError(f"not all processes were frozen within {FREEZE_SECONDS} s")
            time.sleep(LOOK)

    def place_v1(self, source: str, directories: Mapping[str, str]) -> None:
        """A leaf of the freezer: one for us, or the box's own where it shares a hierarchy."""
        above, name = v1_parent(), os.path.basename(source)
        if f"{above}/{name}" in directories.values():
            self.directory = f"{above}/{name}"
        else:
            self.directory, self.lock_fd = cgroupfs.make_leaf(above, name)

    def thaw(self) -> None:
        """Let the programs go on. Harmless when nothing is frozen. Raises: IsolateError."""
        with self.lock:
            self.open()
            if self.unified:
                wait_frozen(self.unified, False, time.monotonic() + FREEZE_SECONDS)

    def open(self) -> None:
        """Thaw, and let programs start again."""
        with suppress(FileNotFoundError):  # the leaf is removed: nothing is frozen
            if self.directory:
                write(self.directory, "freezer.state", "THAWED")
            if self.unified:
                write(self.unified, "cgroup.freeze", "0")
        with self.gate:
            self.frozen = False

    def release_until(self, answered: Status) -> None:
        """While init ends a program's tree, let what it has killed die; v2 needs no help.

        A child of a killed process gets killed only when that has died: so over and over.
        """
        if not (self.frozen and self.directory):
            return
        poller = select.poll()
        poller.register(answered, select.POLLIN)
        end = time.monotonic() + FREEZE_SECONDS
        while not poller.poll(LOOK * 1000) and time.monotonic() < end:
            for pid in members(self.directory):
                if is_killed(pid):
                    move(os.path.dirname(self.directory), pid)

    def end(self) -> None:
        """The box is being killed: what is frozen on v1 is killed and thawed."""
        if self.directory:
            kill_and_thaw(self.directory)

    def close(self) -> None:
        """Remove v1's leaf, if there is one."""
        if not self.directory:
            return
        if self.lock_fd < 0:  # the box's own, which goes with it
            self.end()
            self.directory = ""
            return
        try:
            self.end()
            cgroupfs.remove_tree(self.directory)
        finally:
            os.close(self.lock_fd)
            self.lock_fd = -1
        with suppress(OSError):  # ENOTEMPTY: others have theirs there
            os.rmdir(os.path.dirname(self.directory))
        self.directory = ""


def wait_frozen(directory: str, frozen: bool, end: float) -> None:
    """Wait for cgroup.events to say so; the kernel wakes us (POLLPRI). Raises: IsolateError."""
    wanted = f"frozen {int(frozen)}"
    fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        while wanted not in os.pread(fd, 4096, 0).decode("ascii", "replace").splitlines():
            left = end - time.monotonic()
            if left <= 0:
                raise IsolateError(f"{directory} was not {wanted!r} within {FREEZE_SECONDS} s")
            poller.poll(left * 1000)
    finally:
        os.close(fd)


def kill_leaf(leaf: Any, freezer: Freezer) -> None:
    """SIGKILL everything in a leaf, whatever it forks meanwhile; returns when it is empty.

    Raises: IsolateError, OSError.
    """
    directories = leaf.directories
    if UNIFIED in directories:
        with suppress(FileNotFoundError):  # the leaf is removed, and all in it is dead
            write(directories[UNIFIED], "cgroup.kill", "1")
    else:
        with suppress(IsolateError):  # without a freezer: kill until nobody is left
            freezer.freeze(leaf)
            freezer.end()
            freezer.open()
    end = time.monotonic() + FREEZE_SECONDS
    while any(members(directory) for directory in directories.values()):
        for directory in directories.values():
            cgroupfs.kill_in(directory)
        if time.monotonic() > end:
            raise IsolateError("the box's processes don't end: they are stuck in the kernel")
        time.sleep(LOOK)
