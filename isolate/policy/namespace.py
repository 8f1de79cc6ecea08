# SPDX-License-Identifier: Apache-2.0
"""`Namespace`: which of the eight kinds are new, which are somebody else's."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from isolate.abi.flags import NAMESPACES
from isolate.errors import PolicyConflict, PolicyError
from isolate.policy.base import Primitive
from isolate.policy.fields import at_least, text

__all__ = ["IdMap", "Namespace"]


@frozen
class IdMap:
    """One line of uid_map or gid_map, user_namespaces(7).

    Attributes:
        inside: first id in the new user namespace.
        outside: first id in the caller's; None is an id that is reserved at launch.
        count: how many, at least 1.
    """

    inside: int = field(validator=at_least(0))
    outside: int | None = field(validator=at_least(0))
    count: int = field(default=1, validator=at_least(1))


def host_name(value: str | None) -> str | None:
    """At most 64 bytes without NUL."""
    if value is None:
        return None
    name = text(value, "Namespace.hostname")
    if not 0 < len(name.encode()) <= 64:
        raise PolicyError(f"Namespace.hostname must have 1 to 64 bytes: {name!r}")
    return name


def id_maps(values: Any) -> tuple[IdMap, ...]:
    """Lines of a map, in order."""
    return tuple(values)


@frozen(kw_only=True)
class Namespace(Primitive):
    """What is unshared, and what is joined.

    Attributes:
        user, mount, pid, net, ipc, uts, cgroup, time: True is a new namespace of that kind.
        hostname, domainname: names in the new UTS namespace; need uts=True.
        uid_map, gid_map: lines of the new user namespace; empty is the launcher's choice.
        monotonic_offset, boottime_offset: seconds, in the new time namespace.
        joins: (kind, target) pairs, made by `Namespace.of`.

    Raises: PolicyError.
    Source: namespaces(7).
    """

    user: bool = False
    mount: bool = False
    pid: bool = False
    net: bool = False
    ipc: bool = False
    uts: bool = False
    cgroup: bool = False
    time: bool = False
    hostname: str | None = field(default=None, converter=host_name)
    domainname: str | None = field(default=None, converter=host_name)
    uid_map: tuple[IdMap, ...] = field(default=(), converter=id_maps)
    gid_map: tuple[IdMap, ...] = field(default=(), converter=id_maps)
    monotonic_offset: float | None = None
    boottime_offset: float | None = None
    joins: tuple[tuple[str, str], ...] = ()

    def __attrs_post_init__(self) -> None:
        for kind in NAMESPACES:
            if not isinstance(getattr(self, kind), bool):
                raise PolicyError(f"Namespace.{kind} must be True or False")
        if (self.hostname or self.domainname) and not self.uts:
            raise PolicyError("Namespace.hostname needs uts=True: it would name the whole machine")
        if (self.uid_map or self.gid_map) and not self.user:
            raise PolicyError("Namespace.uid_map and gid_map need user=True")
        if (self.monotonic_offset or self.boottime_offset) and not self.time:
            raise PolicyError("Namespace time offsets need time=True")
        both = [kind for kind, _ in self.joins if getattr(self, kind)]
        if both:
            raise PolicyConflict(f"a namespace can't be both new and joined: {', '.join(both)}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are new, in the kernel's order of creation."""
        return tuple(kind for kind in NAMESPACES if getattr(self, kind))

    @classmethod
    def of(cls, target: Any, *kinds: str) -> Namespace:
        """The namespaces of a pid, of an object with `.pid`, or of a /proc/PID/ns/* or pinned path.

        Raises: PolicyError, for an unknown kind; a path needs exactly one kind.
        """
        unknown = [kind for kind in kinds if kind not in NAMESPACES]
        if unknown:
            raise PolicyError(f"unknown namespace kinds: {', '.join(unknown)}")
        if hasattr(target, "pid"):
            target = target.pid
        if isinstance(target, int) and not isinstance(target, bool):
            where = f"pid:{target}"
        else:
            where = f"path:{text(target, 'target')}"
            if len(kinds) != 1:
                raise PolicyError("a namespace's path needs exactly one kind, like 'net'")
        wanted = kinds or NAMESPACES
        return cls(joins=tuple((kind, where) for kind in NAMESPACES if kind in wanted))

    def narrow(self, inner: Namespace) -> Namespace:
        """The union: what either isolates is isolated."""
        for name in ("hostname", "domainname", "uid_map", "gid_map"):
            ours, theirs = getattr(self, name), getattr(inner, name)
            if ours and theirs and ours != theirs:
                raise PolicyConflict(f"two values of Namespace.{name}: {ours!r} and {theirs!r}")
        return Namespace(
            **{kind: getattr(self, kind) or getattr(inner, kind) for kind in NAMESPACES},
            hostname=self.hostname or inner.hostname,
            domainname=self.domainname or inner.domainname,
            uid_map=self.uid_map or inner.uid_map,
            gid_map=self.gid_map or inner.gid_map,
            monotonic_offset=self.monotonic_offset or inner.monotonic_offset,
            boottime_offset=self.boottime_offset or inner.boottime_offset,
            joins=tuple(dict.fromkeys((*self.joins, *inner.joins))),
        )
