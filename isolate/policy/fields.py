# SPDX-License-Identifier: Apache-2.0
"""The one place where sizes, durations and paths are parsed, and where limits are compared."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import field

from isolate.errors import PolicyError

__all__ = [
    "absolute",
    "at_least",
    "ceiling",
    "names",
    "parse_bytes",
    "parse_seconds",
    "text",
    "tighter",
    "tighter_path_sets",
]

N = TypeVar("N", int, float)

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MOST = (1 << 64) - 1
SECONDS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)?", re.ASCII)


def parse_bytes(value: int | str) -> int:
    """Bytes from an int or "64M"; K, M, G, T are powers of 1024.

    Raises: PolicyError, for a bool, a float, a negative number, an unknown unit, or more than
    fits into the kernel's 64 bits.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise PolicyError(f"a size can't be negative: {value}")
        size: float = value
    else:
        match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise PolicyError(
                f'{value!r} is not a size; write bytes as an int, or "64M" (K, M, G, T)'
            )
        size = float(match[1]) * UNITS[match[2].upper()]
    if size > MOST:
        raise PolicyError(f"{value!r:.60} is more than the kernel can count: {MOST}")
    return int(size)


def parse_seconds(value: float | str) -> float:
    """Seconds from an int, a float, or "500ms" (us, ms, s, m, h).

    Raises: PolicyError, for a bool, nan, a negative number, an unknown unit, or no end at all.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise PolicyError(f"a duration must be finite and not negative: {value}")
        return float(value)
    match = DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise PolicyError(f'{value!r} is no duration: write seconds or "500ms" (us, ms, s, m, h)')
    found = float(match[1]) * SECONDS[match[2] or ""]
    if not math.isfinite(found):
        raise PolicyError(f"a duration must be finite: {value!r:.60}")
    return found


def at_least(least: float, name: str = "") -> Callable[[Any, Any, Any], None]:
    """An attrs validator: None, or a number that is not below `least`; whole, if that is an int."""
    kinds = int if isinstance(least, int) else (int, float)

    def check(owner: object, attribute: Any, value: Any) -> None:
        if value is None:
            return
        where = f"{type(owner).__name__}.{name or attribute.name}"
        if isinstance(value, bool) or not isinstance(value, kinds):
            whole = "a whole number" if kinds is int else "a number"
            raise PolicyError(f"{where} must be {whole}, not {value!r}")
        if not value >= least or math.isinf(value):
            raise PolicyError(f"{where} must be at least {least:g}, not {value!r}")

    return check


def ceiling(*, least: float, convert: Callable[[Any], Any] | None = None) -> Any:
    """A field for an upper limit: None is "no limit of ours"."""

    def converted(value: Any) -> Any:
        return value if value is None or convert is None else convert(value)

    return field(default=None, converter=converted, validator=at_least(least))


def tighter(a: N | None, b: N | None) -> N | None:
    """The smaller of two ceilings; None is no ceiling."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def text(value: Any, what: str) -> str:
    """`value` as a str without NUL, as every string that goes to the kernel must be.

    Raises: PolicyError.
    """
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise PolicyError(f"{what} must be text, not {value!r}")
    if "\0" in value:
        raise PolicyError(f"{what} holds a NUL byte: {value!r}")
    return value


def absolute(value: Any, what: str = "path") -> str:
    """A normalised absolute path inside or outside; `..` is refused, not resolved.

    Raises: PolicyError.
    """
    path = text(value, what)
    if not path.startswith("/"):
        raise PolicyError(f"{what} must be absolute: {path!r}")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PolicyError(f"{what} must not hold '..': {path!r}")
    return "/" + "/".join(parts)


def names(values: Any) -> tuple[str, ...]:
    """A sorted tuple of distinct strings, from one string or many."""
    if isinstance(values, str):
        values = (values,)
    return tuple(sorted({text(value, "name") for value in values}))


def inside(path: str, tree: str) -> bool:
    """Whether `path` is `tree` or lies below it; both absolute and normalised."""
    return tree == "/" or path == tree or path.startswith(tree + "/")


def tighter_path_sets(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    """What both path sets grant, where a path grants all that is below it."""
    both = {p for p in a if any(inside(p, q) for q in b)}
    both |= {q for q in b if any(inside(q, p) for p in a)}
    return tuple(sorted(both))
