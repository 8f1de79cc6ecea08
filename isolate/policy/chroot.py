# SPDX-License-Identifier: Apache-2.0
"""`Chroot`: the root file system inside, entered by pivot_root."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from attrs import evolve, field, frozen

from isolate.errors import PolicyConflict, PolicyError
from isolate.policy.base import Primitive
from isolate.policy.fields import ceiling, parse_bytes, text, tighter, tighter_path_sets
from isolate.policy.mount import Mount, layers

__all__ = ["Chroot"]

KINDS = ("dir", "host_view", "overlay", "image")
FORMATS = ("tar", "squashfs", "ext4", "erofs")
ENDINGS = {
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2"), "tar"),
    **dict.fromkeys((".squashfs", ".sqfs", ".sqsh", ".snap"), "squashfs"),
    **dict.fromkeys((".ext4", ".ext3", ".ext2"), "ext4"),
    ".erofs": "erofs",
}
BASICS = (Mount.proc(), Mount.dev(), Mount.tmpfs("/tmp"))


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


def format_of(path: str) -> str:
    """The kind of image that a file's name says. Raises: PolicyError."""
    name = os.path.basename(path).lower()
    for ending, found in ENDINGS.items():
        if name.endswith(ending):
            return found
    raise PolicyError(f"{path!r} doesn't say what it is; give format= ({', '.join(FORMATS)})")


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
        path: a host directory for kind "dir", a file for kind "image", else None.
        writable: whether the root itself may be written; an image itself never is.
        mounts: what is put into it, in order.
        kind: "dir", "host_view", "overlay" or "image".
        read, write: host paths seen at the same place, for a host_view.
        tmp: bytes of the private /tmp of a host_view.
        interpreter: whether the running Python is visible in a host_view.
        lower, upper, size: of an overlay; see `Mount.overlay`. size bounds an unpacked archive and
            the changes to an image, too.
        format: of an image: "tar", "squashfs", "ext4" or "erofs".

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
    lower: tuple[str, ...] = field(default=(), converter=layers, kw_only=True)
    upper: str | None = field(default=None, converter=root_path, kw_only=True)
    size: int | None = ceiling(least=4096, convert=parse_bytes)
    format: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PolicyError(f"Chroot.kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if (self.kind == "overlay") != bool(self.lower):
            raise PolicyError("an overlay root needs lower directories, and no other has them")
        if (self.kind in ("dir", "image")) != (self.path is not None):
            raise PolicyError(f"kind={self.kind!r} and path={self.path!r} don't go together")
        if self.kind == "image" and self.format not in FORMATS:
            raise PolicyError(f"format must be one of {', '.join(FORMATS)}, not {self.format!r}")

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

    @classmethod
    def overlay(
        cls,
        lower: Any,
        upper: Any = None,
        size: int | str = "256M",
        mounts: Iterable[Mount] | None = None,
    ) -> Chroot:
        """Host directories seen through each other, the topmost first, as a root that may be
        written; they stay as they are. See `Mount.overlay`.

        Args:
            mounts: by default /proc, a small /dev, and /tmp in memory.
        """
        return cls(
            None,
            kind="overlay",
            lower=lower,
            upper=upper,
            size=None if upper is not None else parse_bytes(size),
            writable=True,
            mounts=BASICS if mounts is None else mounts,
        )

    @classmethod
    def image(
        cls,
        path: Any,
        writable: bool = False,
        size: int | str = "256M",
        format: str | None = None,
        mounts: Iterable[Mount] | None = None,
    ) -> Chroot:
        """A root from a file. An archive (tar, also compressed) is unpacked into memory; a file
        system (squashfs, ext4, erofs) is mounted by a loop device, for which one has to be root.

        Args:
            writable: whether the program may change it; the changes end with the box.
            size: bytes that an unpacked archive, or the changes, may take.
            format: "tar", "squashfs", "ext4" or "erofs"; by default from the file's name.
            mounts: by default /proc, a small /dev, and /tmp in memory.

        A file system's image is parsed by the kernel: take one from whom you'd take a module.
        """
        return cls(
            path,
            kind="image",
            format=format or format_of(text(path, "Chroot.path")),
            size=parse_bytes(size),
            writable=writable,
            mounts=BASICS if mounts is None else mounts,
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
