# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a box that lives: its statistics, and to freeze, thaw and end."""

from __future__ import annotations

import os
from contextlib import closing

from attrs import evolve

from isolate.abi.flags import NAMESPACES
from isolate.abi.ops import Request
from isolate.supervise import channel
from isolate.supervise.channel import InitGone
from isolate.supervise.freezer import kill_leaf
from isolate.supervise.launch import Session
from isolate.supervise.leafstats import read_stats
from isolate.supervise.setup import ANSWER_SECONDS, parent_step
from isolate.supervise.stats import Stats
from isolate.supervise.watch import Watch

__all__ = ["freeze", "kill", "stats", "thaw", "watch"]


def stats(session: Session) -> Stats:
    """What the box uses now. Raises: InitGone, if it has ended; OSError."""
    found = read_stats(session.made.leaf, session.alive.pid)
    _ = session.alive  # what was read of a box that ends meanwhile is not its state
    return evolve(found, frozen=session.freezer.frozen)


def end_fd(session: Session) -> int:
    """A pidfd of the box's init, the caller's to close. Raises: InitGone."""
    init = session.alive
    with init.lock:  # so that the number isn't closed, and somebody else's, by now
        if init.pidfd < 0:
            raise InitGone("the box has ended")
        return os.dup(init.pidfd)


def watch(session: Session, interval: float | str) -> Watch:
    """An iterator of its statistics. Raises: PolicyError."""
    return Watch(lambda: stats(session), lambda: end_fd(session), interval)


def freeze(session: Session) -> None:
    """Stop all programs. Raises: InitGone, HostLacks, IsolateError."""

    def guard(fd: int) -> None:
        status = channel.ask(session.alive.control, Request.GUARD, [fd])
        with closing(status), parent_step("have isolate-init keep the freezer"):
            status.receive(ANSWER_SECONDS)

    _ = session.alive
    session.freezer.freeze(session.made.leaf, guard)


def thaw(session: Session) -> None:
    """Let them go on. Raises: InitGone, IsolateError."""
    _ = session.alive
    session.freezer.thaw()


def kill(session: Session) -> None:
    """End every process, init included, by its pid namespace or else by its cgroup."""
    session.kill()
    leaf = session.made.leaf
    if leaf is not None and not session.plan.clone_flags & NAMESPACES["pid"]:
        kill_leaf(leaf, session.freezer)
