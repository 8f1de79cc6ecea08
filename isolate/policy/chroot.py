# SPDX-License-Identifier: Apache-2.0
"""`Chroot`: the root file system inside, entered by pivot_root."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from attrs import evolve, field, frozen

from isolate.errors import PolicyConflict
from isolate.policy.base import Primitive
from isolate.policy.fields import ceiling, parse_bytes, text, tighter, tighter_path_sets
from isolate.policy.mount import Mount

__all__ = ["Chroot"]


def host_paths(values: Any) -> tuple[str, ...]:
    """Absolute host paths, sorted; one path or many."""
    if isinstance(values, (str, bytes, os.PathLike)):
        values = (values,)
    return tuple(sorted({os.path.abspath(text(value, "path")) for value in values}))


def root_path(value: Any) -> str | None:
    """An absolute host path, or None."""
    return None if value is None else host_paths(value)[0]


def in_order(values: Any) -> tuple[Mount, ...]:
    """Mounts as they were given."""
    return tuple(values)


def united(ours: tuple[Mount, ...], theirs: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Both, in order. Raises: PolicyConflict, where two different things are at one place."""
    for each in theirs:
        here = [other for other in ours if other.target == each.target]
        if here and each not in here:
            here[-1].narrow(each)
    return tuple(dict.fromkeys((*ours, *theirs)))


@frozen
class Chroot(Primitive):
    """A root of its own; the old one is detached.

    Attributes:
        path: a host directory for kind "dir", else None.
        writable: whether the root itself may be written.
        mounts: what is put into it, in order.
        kind: "dir" or "host_view".
        read, write: host paths seen at the same place, for a host_view.
        tmp: bytes of the private /tmp of a host_view.
        interpreter: whether the running Python is visible in a host_view.

    Raises: PolicyError.
    Source: pivot_root(2).
    """

    path: str | None = field(converter=root_path)
    writable: bool = field(default=False, kw_only=True)
    mounts: tuple[Mount, ...] = field(default=(), converter=in_order, kw_only=True)
    kind: str = field(default="dir", kw_only=True)
    read: tuple[str, ...] = field(default=(), converter=host_paths, kw_only=True)
    write: tuple[str, ...] = field(default=(), converter=host_paths, kw_only=True)
    tmp: int | None = ceiling(least=4096, convert=parse_bytes)
    interpreter: bool = field(default=True, kw_only=True)

    @classmethod
    def host_view(
        cls,
        read: Iterable[Any] = (),
        write: Iterable[Any] = (),
        tmp: int | str = "64M",
        interpreter: bool = True,
        mounts: Iterable[Mount] = (),
    ) -> Chroot:
        """A minimal read-only view of this machine: system directories and the running Python."""
        return cls(
            None,
            tmp=parse_bytes(tmp),
            kind="host_view",
            read=read,
            write=write,
            interpreter=interpreter,
            mounts=tuple(mounts),
        )

    def narrow(self, inner: Chroot) -> Chroot:
        """Two views grant what both grant; two different roots are a conflict."""
        if self == inner:
            return self
        if self.kind != "host_view" or inner.kind != "host_view":
            raise PolicyConflict(f"two roots: {self} and {inner}")
        write = tighter_path_sets(self.write, inner.write)
        read = tighter_path_sets(self.read + self.write, inner.read + inner.write)
        return evolve(
            self,
            read=tuple(p for p in read if p not in write),
            write=write,
            tmp=tighter(self.tmp, inner.tmp),
            interpreter=self.interpreter and inner.interpreter,
            mounts=united(self.mounts, inner.mounts),
        )
