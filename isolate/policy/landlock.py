# SPDX-License-Identifier: Apache-2.0
"""`Landlock`: files, TCP ports, signals and abstract sockets, held by the kernel's own sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from isolate.abi import landlock as abi
from isolate.errors import PolicyError
from isolate.policy.base import Primitive
from isolate.policy.fields import text, tighter_path_sets

__all__ = ["Landlock"]


def paths(values: Any) -> tuple[str, ...] | None:
    """Absolute paths, sorted; one path or many; None is "not ruled". Raises: PolicyError."""
    if values is None:
        return None
    if isinstance(values, (str, bytes, os.PathLike)):
        values = (values,)
    found = {text(value, "a Landlock path") for value in values}
    for each in found:
        if not each.startswith("/"):
            raise PolicyError(f"a Landlock path must be absolute: {each!r}")
    return tuple(sorted({os.path.normpath("/" + each.lstrip("/")) for each in found}))


def ports(values: Any) -> tuple[int, ...] | None:
    """TCP ports, sorted; None is "not ruled". Raises: PolicyError."""
    if values is None:
        return None
    found = (values,) if isinstance(values, int) else tuple(values)
    for each in found:
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each <= 65535:
            raise PolicyError(f"a TCP port is a number from 0 to 65535, not {each!r}")
    return tuple(sorted(set(found)))


def known(table: dict[str, tuple[int, int]], values: Any, what: str) -> tuple[str, ...]:
    """A sorted tuple of names of that table. Raises: PolicyError."""
    given = (values,) if isinstance(values, str) else tuple(values)
    for each in given:
        if each not in table:
            raise PolicyError(f"{what} takes {', '.join(table)}, not {each!r}")
    return tuple(sorted(set(given)))


def scopes(values: Any) -> tuple[str, ...]:
    """Names of abi.SCOPE. Raises: PolicyError."""
    return known(abi.SCOPE, values, "Landlock.scope")


def logs(values: Any) -> tuple[str, ...]:
    """Names of abi.LOG. Raises: PolicyError."""
    return known(abi.LOG, values, "Landlock.log")


def both(a: tuple[Any, ...] | None, b: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """What two lists grant; None grants everything."""
    if a is None or b is None:
        return b if a is None else a
    return tuple(sorted(set(a) & set(b)))


def both_paths(a: tuple[str, ...] | None, b: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """What two lists of paths grant, where a path grants all that is below it."""
    if a is None or b is None:
        return b if a is None else a
    return tighter_path_sets(a, b)


@frozen(kw_only=True)
class Landlock(Primitive):
    """What a program may touch. Each field rules its own rights; None leaves them free.

    Attributes:
        read: paths below which files may be read and directories listed.
        write: paths below which anything may be written, made, removed, moved, truncated; device
            ioctls as well.
        execute: paths below which programs may be started, if they may be read as well.
        tcp_bind, tcp_connect: ports.
        scope: "abstract_unix_socket" and "signal": not beyond this sandbox.
        log: "same_exec_off", "new_exec_on", "subdomains_off": what goes to the audit log.
        level: the ABI whose rights are ruled; None is all that the fields need (5 with write=,
            4 with ports, 6 with scope=, 7 with log=).
        view: rule the box's root as its mounts make it, as well: read and execute everywhere,
            writing only where a mount is writable. A layer of its own, at the host's level.

    Raises: PolicyError.
    Source: landlock(7), kernel Documentation/userspace-api/landlock.rst.
    """

    read: tuple[str, ...] | None = field(default=None, converter=paths)
    write: tuple[str, ...] | None = field(default=None, converter=paths)
    execute: tuple[str, ...] | None = field(default=None, converter=paths)
    tcp_bind: tuple[int, ...] | None = field(default=None, converter=ports)
    tcp_connect: tuple[int, ...] | None = field(default=None, converter=ports)
    scope: tuple[str, ...] = field(default=(), converter=scopes)
    log: tuple[str, ...] = field(default=(), converter=logs)
    level: int | None = None
    view: bool = False

    def __attrs_post_init__(self) -> None:
        if self.level is None:
            return
        whole = isinstance(self.level, int) and not isinstance(self.level, bool)
        if not whole or not 1 <= self.level <= abi.MAX_LEVEL:
            raise PolicyError(f"Landlock.level is 1 to {abi.MAX_LEVEL}, not {self.level!r}")
        for name, since in (("ports", 4), ("scope", 6), ("log", 7)):
            if self.has(name) and self.level < since:
                raise PolicyError(f"Landlock {name} need level {since}, not {self.level}")

    def has(self, what: str) -> bool:
        """Whether "ports", "scope", "log" or "files" are ruled."""
        if what == "ports":
            return self.tcp_bind is not None or self.tcp_connect is not None
        if what == "files":
            return any(each is not None for each in (self.read, self.write, self.execute))
        return bool(getattr(self, what))

    @property
    def is_empty(self) -> bool:
        """Whether it rules nothing by itself (the view is ruled apart)."""
        return not any(self.has(what) for what in ("files", "ports", "scope"))

    @property
    def needs(self) -> int:
        """The ABI level at which all that it says is enforced."""
        if self.level is not None:
            return self.level
        wanted = [abi.level_of(abi.FS, abi.WRITE)] if self.write is not None else []
        wanted += [4] if self.has("ports") else []
        wanted += [6] if self.scope else []
        wanted += [7] if self.log else []
        return max(wanted, default=1)

    @classmethod
    def of_view(cls) -> Landlock:
        """The box's own mounts, held a second time."""
        return cls(view=True)

    @classmethod
    def for_program(cls, path: Any, **more: Any) -> Landlock:
        """What a program needs to start, and no more: itself, its interpreter, their libraries.

        Args:
            path: an ELF file or a script.
            more: further fields; paths are added to those found.

        Raises: PolicyError, if it can't be read or is neither.
        """
        from isolate.policy import ambient

        needed: tuple[str, ...] = ambient.verb("needed_files")(path)
        more = {"write": (), **more}
        for name in ("read", "execute"):
            more[name] = (*needed, *(paths(more.get(name)) or ()))
        return cls(**more)

    def narrow(self, inner: Landlock) -> Landlock:
        """What both allow; the higher level, where None is all that the fields need."""
        levels = [each.level for each in (self, inner) if not each.is_empty or each.level]
        return Landlock(
            read=both_paths(self.read, inner.read),
            write=both_paths(self.write, inner.write),
            execute=both_paths(self.execute, inner.execute),
            tcp_bind=both(self.tcp_bind, inner.tcp_bind),
            tcp_connect=both(self.tcp_connect, inner.tcp_connect),
            scope=merged(self.scope, inner.scope),
            log=merged(self.log, inner.log),
            level=None if None in levels else max((each for each in levels if each), default=None),
            view=self.view or inner.view,
        )


def merged(a: Iterable[str], b: Iterable[str]) -> tuple[str, ...]:
    """Either's names."""
    return tuple(sorted({*a, *b}))
