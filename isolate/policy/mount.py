# SPDX-License-Identifier: Apache-2.0
"""`Mount`: one thing at one place of the file system inside."""

from __future__ import annotations

import os
from typing import Any

from attrs import field, frozen

from isolate.errors import PolicyConflict, PolicyError
from isolate.policy.base import Primitive
from isolate.policy.fields import absolute, ceiling, parse_bytes, text

__all__ = ["Mount", "layers"]

MAX_LAYERS = 64
KINDS = ("bind", "tmpfs", "proc", "dev", "file", "dir", "symlink", "overlay")


def mount_target(value: Any) -> str:
    """An absolute path inside."""
    return absolute(value, "Mount.target")


def layers(values: Any) -> tuple[str, ...]:
    """Absolute host directories as they were given; one or many. Raises: PolicyError."""
    if isinstance(values, (str, bytes, os.PathLike)):
        values = (values,)
    found = tuple(os.path.abspath(text(each, "lower")) for each in values)
    if len(found) > MAX_LAYERS:
        raise PolicyError(f"an overlay has at most {MAX_LAYERS} lower directories here")
    return found


@frozen(kw_only=True)
class Mount(Primitive):
    """A mount, or a file, directory or link, made before the program starts.

    Attributes:
        kind: "bind", "tmpfs", "proc", "dev", "file", "dir", "symlink" or "overlay".
        source: host path of a bind (absolute), a link's text, or an overlay's upper directory.
        target: absolute path inside.
        writable: False is read-only.
        size: bytes of a tmpfs, or of an overlay's changes that are kept in memory.
        data: a file's content.
        mode: permission bits.
        lower: an overlay's lower directories, topmost first.

    Raises: PolicyError.
    """

    kind: str
    target: str = field(converter=mount_target)
    source: str | None = None
    writable: bool = False
    size: int | None = ceiling(least=4096, convert=parse_bytes)
    data: bytes | None = field(default=None, repr=lambda d: f"<{len(d)} bytes>" if d else repr(d))
    mode: int = 0o755
    lower: tuple[str, ...] = field(default=(), converter=layers)

    def __attrs_post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PolicyError(f"Mount.kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.kind in ("bind", "symlink") and not self.source:
            raise PolicyError(f"Mount.{self.kind} needs a source")
        if (self.kind == "overlay") != bool(self.lower):
            raise PolicyError("an overlay needs lower directories, and nothing else has them")

    @classmethod
    def bind(cls, source: Any, target: Any, writable: bool = False) -> Mount:
        """A host directory or file, with what is mounted below; read-only unless said."""
        path = os.path.abspath(text(source, "Mount.source"))
        return cls(kind="bind", source=path, target=target, writable=writable)

    @classmethod
    def tmpfs(cls, target: Any, size: int | str = "64M", mode: int = 0o1777) -> Mount:
        """An empty file system in memory, writable, of at most `size`."""
        return cls(kind="tmpfs", target=target, size=parse_bytes(size), mode=mode, writable=True)

    @classmethod
    def proc(cls, target: Any = "/proc") -> Mount:
        """The pid namespace's own /proc, with the dangerous paths masked."""
        return cls(kind="proc", target=target)

    @classmethod
    def dev(cls, target: Any = "/dev") -> Mount:
        """A small /dev: null zero full random urandom tty, a pts of its own, fd links, shm."""
        return cls(kind="dev", target=target)

    @classmethod
    def overlay(
        cls, lower: Any, target: Any, upper: Any = None, size: int | str = "64M"
    ) -> Mount:
        """Host directories seen through each other, the topmost first; what is changed goes
        elsewhere.

        Args:
            lower: one host directory or several; they stay as they are.
            upper: a host directory for the changes, which gets `data` and `work` in it; None keeps
                them in memory, at most `size`, until the box ends.
        """
        source = None if upper is None else os.path.abspath(text(upper, "Mount.upper"))
        return cls(
            kind="overlay",
            source=source,
            target=target,
            lower=lower,
            size=None if source else parse_bytes(size),
            writable=True,
        )

    @classmethod
    def file(cls, target: Any, data: bytes, mode: int = 0o644) -> Mount:
        """A file with this content."""
        if not isinstance(data, bytes):
            raise PolicyError(f"Mount.file data must be bytes, not {type(data).__name__}")
        return cls(kind="file", target=target, data=data, mode=mode)

    @classmethod
    def dir(cls, target: Any, mode: int = 0o755) -> Mount:
        """An empty directory of the new root."""
        return cls(kind="dir", target=target, mode=mode)

    @classmethod
    def symlink(cls, source: Any, target: Any) -> Mount:
        """A symbolic link at `target` with the text `source`."""
        return cls(kind="symlink", source=text(source, "Mount.source"), target=target)

    def narrow(self, inner: Mount) -> Mount:
        """Only equal mounts narrow: two things at one place are a conflict."""
        if self != inner:
            raise PolicyConflict(f"two mounts on {self.target}: {self} and {inner}")
        return self
