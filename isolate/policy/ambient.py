# SPDX-License-Identifier: Apache-2.0
"""The context-local stack that `with primitive:` pushes on; nothing is enforced here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from isolate.errors import IsolateError

__all__ = [
    "Scope",
    "bind_verbs",
    "collected",
    "forget",
    "outside",
    "pop",
    "push",
    "suspended",
    "verb",
]

STACK: ContextVar[tuple[Any, ...]] = ContextVar("isolate_stack", default=())
OUTSIDE: ContextVar[int] = ContextVar("isolate_outside", default=0)
VERBS: dict[str, Any] = {}


class Scope:
    """What `with A, B as scope` gives: the module's verbs, for what is collected."""

    def run(self, argv: Any, **options: Any) -> Any:
        """Like `isolate.run`."""
        return VERBS["run"](argv, **options)

    def popen(self, argv: Any, **options: Any) -> Any:
        """Like `isolate.Popen`."""
        return VERBS["popen"](argv, **options)

    Popen = popen

    def call(self, fn: Any, *args: Any, **kw: Any) -> Any:
        """Like `isolate.call`."""
        return VERBS["call"](fn, *args, **kw)


def bind_verbs(**verbs: Any) -> None:
    """Told once by a higher floor: how a verb that belongs to a value of this floor is done."""
    VERBS.update(verbs)


def verb(name: str) -> Any:
    """One of those."""
    return VERBS[name]


def push(item: Any) -> Scope:
    """Collect one more; undone by `pop` of the same one."""
    STACK.set((*STACK.get(), item))
    return Scope()


def pop(item: Any) -> None:
    """Forget the innermost, which must be `item`."""
    stack = STACK.get()
    if not stack or stack[-1] is not item:
        raise IsolateError(f"blocks were left out of order: {item!r} is not the innermost")
    STACK.set(stack[:-1])


def forget(item: Any) -> None:
    """Forget the newest that is `item`, wherever it is; nothing where another context has it."""
    stack = STACK.get()
    for at in range(len(stack) - 1, -1, -1):
        if stack[at] is item:
            STACK.set((*stack[:at], *stack[at + 1 :]))
            return


def collected() -> tuple[Any, ...]:
    """What this context has collected, outermost first."""
    return STACK.get()


def suspended() -> bool:
    """Whether `outside()` is in force."""
    return OUTSIDE.get() > 0


@contextmanager
def outside() -> Iterator[None]:
    """Allow ordinary process starts, on purpose, inside a block of primitives."""
    token = OUTSIDE.set(OUTSIDE.get() + 1)
    try:
        yield
    finally:
        OUTSIDE.reset(token)
