# SPDX-License-Identifier: Apache-2.0
"""`Command`: what to run, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from isolate.errors import PolicyError
from isolate.policy.fields import text

__all__ = ["CLEAN_ENV", "Command"]

CLEAN_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
}


def checked_argv(argv: Any) -> tuple[bytes, ...]:
    """Non-empty bytes without NUL. Raises: PolicyError naming the index."""
    if isinstance(argv, (str, bytes, os.PathLike)):
        raise PolicyError(f"argv must be a list of strings, not one: [{argv!r}]; there is no shell")
    try:
        items = list(argv)
    except TypeError:
        raise PolicyError(f"argv must be a list of strings, not {argv!r}") from None
    if not items:
        raise PolicyError("argv is empty; it needs at least the program")
    found = tuple(os.fsencode(text(item, f"argv[{i}]")) for i, item in enumerate(items))
    if not found[0]:
        raise PolicyError("argv[0] is empty; it names the program")
    return found


def checked_env(env: Any) -> tuple[tuple[bytes, bytes], ...]:
    """Pairs of name and value, sorted. None is a clean environment. Raises: PolicyError."""
    if env is None:
        env = CLEAN_ENV
    if isinstance(env, tuple):
        env = dict(env)
    if not isinstance(env, Mapping):
        raise PolicyError(f"env must be a mapping, not {env!r}")
    items = tuple(env.items())
    try:
        return sorted_env(items)
    except TypeError:  # something that has no hash: not text, to be told by name
        return sorted_env.__wrapped__(items)


@lru_cache(maxsize=64)
def sorted_env(items: tuple[tuple[Any, Any], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """The same, for a program that is started with the same environment again and again."""
    pairs = {}
    for name, value in items:
        key = os.fsencode(text(name, "an environment name"))
        if not key or b"=" in key:
            raise PolicyError(f"an environment name can't be empty or hold '=': {name!r}")
        pairs[key] = os.fsencode(text(value, f"env[{name!r}]"))
    return tuple(sorted(pairs.items()))


def checked_cwd(value: Any) -> str | None:
    """Text without NUL, or None."""
    return None if value is None else text(value, "cwd")


def checked_pty(value: Any) -> tuple[int, int] | None:
    """(rows, columns); True is 24 by 80. Raises: PolicyError."""
    if value is None or value is False:
        return None
    if value is True:
        return 24, 80
    sizes = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(sizes) != 2 or not all(type(n) is int and 0 < n < 1 << 16 for n in sizes):
        raise PolicyError(f"pty is True, or (rows, columns) of 1 to 65535, not {value!r}")
    return sizes[0], sizes[1]


def sorted_fds(values: Any) -> tuple[int, ...]:
    """In order."""
    return tuple(sorted(values))


@frozen
class Command:
    """One program start.

    Attributes:
        argv: the program and its arguments, bytes.
        env: (name, value) pairs; None is PATH, HOME, TMPDIR and LANG, and nothing of the caller's.
        cwd: absolute path inside, or None.
        fds: numbers of further descriptors that it gets.
        pty: (rows, columns) of a terminal that is its 0, 1 and 2; None for none.

    Raises: PolicyError.
    """

    argv: tuple[bytes, ...] = field(converter=checked_argv)
    env: tuple[tuple[bytes, bytes], ...] = field(default=None, converter=checked_env)
    cwd: str | None = field(default=None, converter=checked_cwd)
    fds: tuple[int, ...] = field(default=(), converter=sorted_fds)
    pty: tuple[int, int] | None = field(default=None, converter=checked_pty)
