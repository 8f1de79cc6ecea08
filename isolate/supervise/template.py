# SPDX-License-Identifier: Apache-2.0
"""Templates: mount namespaces that boxes start with a copy of, kept by a descriptor each.

No process lives in one. A template holds mounts of system directories and of the interpreter; it is
made anew when one of those paths is another file than before.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field

from isolate.abi.flags import NAMESPACES
from isolate.abi.ops import OpCode
from isolate.plan.model import Op
from isolate.supervise.setup import set_up
from isolate.supervise.start import start_init

__all__ = ["Template", "get"]

KEPT = 4  # descriptors, and mounts that the machine can't let go of
LOOK_SECONDS = 1.0
Prints = tuple[tuple[int, int] | None, ...]


def prints(ops: tuple[Op, ...]) -> Prints:
    """Which files the host has at the paths that are bound: device and inode, None for none."""
    found: list[tuple[int, int] | None] = []
    for op in ops:
        path = op.strs[0] if op.code is OpCode.BIND else None
        if isinstance(path, bytes):
            try:
                stat = os.stat(path)
                found.append((stat.st_dev, stat.st_ino))
            except OSError:
                found.append(None)
    return tuple(found)


@define(eq=False)
class Template:
    """One mount namespace; its descriptor is closed when nobody holds this object any more."""

    ops: tuple[Op, ...]  # kept, so that its id stays its own
    fd: int
    prints: Prints
    looked: float = field(factory=time.monotonic)

    def current(self) -> bool:
        """Whether the host's files are still those that it shows; looked at once a second."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return True
        self.looked = now
        return prints(self.ops) == self.prints

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)  # bound early: at the interpreter's end the module is taken apart


def make(ops: tuple[Op, ...]) -> Template:
    """Run the ops in a process that ends at once; what stays is its mount namespace.

    Raises: LaunchError naming the op.
    """
    seen = prints(ops)
    init = start_init(NAMESPACES["mount"] | NAMESPACES["pid"])
    fd = -1
    try:
        try:
            # Before the set-up, after which it is out of reach even for root without
            # CAP_SYS_PTRACE.
            fd = os.open(f"/proc/{init.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            set_up(init, ops, {})
        finally:
            init.close()
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return Template(ops, fd, seen)


class Templates:
    """The last few that were used, by the identity of their ops."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: OrderedDict[int, Template] = OrderedDict()

    def get(self, ops: tuple[Op, ...]) -> Template:
        """One that is there and current, or a new one. Raises: LaunchError."""
        with self.lock:
            found = self.kept.get(id(ops)) or self.equal(ops)
            if found is None or not found.current():
                found = make(ops)
            self.kept[id(found.ops)] = found
            self.kept.move_to_end(id(found.ops))
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)
            return found

    def equal(self, ops: tuple[Op, ...]) -> Template | None:
        """One of another policy that differs in other things only."""
        return next((each for each in self.kept.values() if each.ops == ops), None)


TEMPLATES = Templates()


def after_fork() -> None:
    """The lock may have been held by a thread that the child has not; the namespaces stay."""
    TEMPLATES.lock = threading.Lock()


os.register_at_fork(after_in_child=after_fork)


def get(ops: tuple[Op, ...]) -> Template:
    """The template of these ops; hold it until the box is cloned.

    Raises: LaunchError.
    """
    return TEMPLATES.get(ops)
