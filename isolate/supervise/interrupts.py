# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C without a trace: what would raise waits while a box is half made, or half undone.

A handler of Python's may raise between any two steps of the main thread, also between the return of
a system call and the line that remembers its descriptor. So the verbs hold signals back, and let
them in where they only wait (docs/adr/0019). Only the main thread runs handlers, so only there is
anything done; what came meanwhile arrives when the verb is over.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

__all__ = ["held_back", "let_in", "whole"]

P = ParamSpec("P")
R = TypeVar("R")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)  # whose handlers are known to raise


class State:
    """Of the main thread alone, so without a lock."""

    def __init__(self) -> None:
        self.depth = 0
        self.closed = False  # nothing may raise now
        self.own: dict[int, Any] = {}  # the caller's handlers
        self.waiting: list[int] = []


STATE = State()


def handler(number: int, frame: FrameType | None) -> None:
    """In place of the caller's: now, or later."""
    if not STATE.closed:
        STATE.own[number](number, frame)
    elif number not in STATE.waiting:
        STATE.waiting.append(number)


def is_main() -> bool:
    """Whether handlers run in this thread."""
    return threading.get_ident() == threading.main_thread().ident


def begin() -> None:
    """Put ours in the place of the caller's handlers; there may be none that could raise."""
    for number in SIGNALS:
        found = signal.getsignal(number)
        if callable(found) and found is not handler:
            STATE.own[number] = found
            signal.signal(number, handler)


def deliver(waited: list[int], own: dict[int, Any]) -> None:
    """Call the caller's handlers, each of them whatever another raises.

    Not by interrupt_main: asyncio, which is told by the wakeup descriptor, would hear of it twice.
    """
    if waited:
        try:
            own[waited[0]](waited[0], sys._getframe())
        finally:
            deliver(waited[1:], own)


def end() -> None:
    """Put them back, and let come what has waited."""
    waited, STATE.waiting = STATE.waiting, []
    own = dict(STATE.own)
    STATE.closed = False
    for number, found in own.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, found)
    STATE.own = {}
    deliver(waited, own)


class held_back:
    """`with held_back():` nothing of the main thread's signals raises inside.

    What raises in `begin`, or before the door is closed, changes nothing: ours then passes on.
    """

    def __enter__(self) -> None:
        self.here = is_main()
        if not self.here:
            return
        if STATE.depth == 0:
            begin()
        self.before, STATE.closed = STATE.closed, True
        STATE.depth += 1

    def __exit__(self, *_: object) -> None:
        if not self.here:
            return
        STATE.depth -= 1
        if STATE.depth == 0:
            end()
        else:
            STATE.closed = self.before


class let_in:
    """`with let_in():` around a wait: what has waited raises first, what comes raises here."""

    def __enter__(self) -> None:
        self.before = STATE.closed and is_main()
        if not self.before:
            return
        STATE.closed = False
        while STATE.waiting:
            number = STATE.waiting.pop(0)
            try:
                STATE.own[number](number, sys._getframe())
            except BaseException:
                STATE.closed = True  # `with` doesn't call __exit__ for this one
                raise

    def __exit__(self, *_: object) -> None:
        if self.before:
            STATE.closed = True


def whole(function: Callable[P, R]) -> Callable[P, R]:
    """A verb that is done, or undone, as a whole."""

    @wraps(function)
    def held(*args: P.args, **kw: P.kwargs) -> R:
        with held_back():
            return function(*args, **kw)

    return held
