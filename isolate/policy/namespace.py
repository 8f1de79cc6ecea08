# SPDX-License-Identifier: Apache-2.0
"""`Namespace`: which of the eight kinds are new, which are somebody else's."""

from __future__ import annotations

import os
from pathlib import Path
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


FILES = {
    "user": ("user",), "mnt": ("mount",), "pid": ("pid",), "pid_for_children": ("pid",),
    "net": ("net",), "ipc": ("ipc",), "uts": ("uts",), "cgroup": ("cgroup",),
    "time": ("time",), "time_for_children": ("time",),
}  # fmt: skip


def started(pid: int) -> int:
    """When a process started, in clock ticks; tells a number's owner from its next one.

    Raises: PolicyError, if there is none.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise PolicyError(f"there is no process {pid} to join: {error.strerror}") from None
    return int(stat[stat.rindex(")") + 2 :].split()[19])  # field 22, proc_pid_stat(5)


def different(pid: int) -> tuple[str, ...]:
    """The kinds in which a process is elsewhere than we are; all, if that can't be seen."""
    found = []
    for name, (kind,) in FILES.items():
        if name in ("pid_for_children", "time"):  # what its children get is what it is joined for
            continue
        try:
            theirs = os.stat(f"/proc/{pid}/ns/{name}").st_ino
        except OSError:
            return tuple(NAMESPACES)
        if theirs != os.stat(f"/proc/self/ns/{name}").st_ino:
            found.append(kind)
    return tuple(found)


def refuse_no_cgroup(target: Any, kinds: tuple[str, ...]) -> None:
    """On cgroup v2 each program of a box has a cgroup namespace of its own, and the box none.

    Raises: PolicyError: its init is in the caller's, which would be joined without a word.
    """
    if "cgroup" in kinds and hasattr(target, "cgroup") and "cgroup" not in different(target.pid):
        raise PolicyError(
            "this box has no cgroup namespace to join: on cgroup v2 each of its programs makes its "
            "own; name one: Namespace.of(program.pid, 'cgroup')"
        )


@frozen(kw_only=True)
class Namespace(Primitive):
    """What is unshared, and what is joined.

    Attributes:
        user, mount, pid, net, ipc, uts, cgroup, time: True is a new namespace of that kind.
        hostname, domainname: names in the new UTS namespace; need uts=True.
        uid_map, gid_map: lines of the new user namespace; empty is the launcher's choice.
        monotonic_offset, boottime_offset: seconds, in the new time namespace.
        joins: (kind, target) pairs, made by `Namespace.of`: "pid:N:STARTED", "fd:N" or "path:P".

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
        joined = [kind for kind, _ in self.joins]
        if len(set(joined)) < len(joined):
            raise PolicyConflict(f"two namespaces of one kind are joined: {self.joins}")
        both = [kind for kind in joined if getattr(self, kind)]
        if both:
            raise PolicyConflict(f"a namespace can't be both new and joined: {', '.join(both)}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are new, in the kernel's order of creation."""
        return tuple(kind for kind in NAMESPACES if getattr(self, kind))

    @classmethod
    def of(cls, target: Any, *kinds: str, pidfd: bool = False) -> Namespace:
        """The namespaces of somebody else: nsenter, and `docker run --net=container:`.

        Args:
            target: a pid, whose start time is kept, so that the number's next owner is refused; an
                object with `.pid` (a `Box`, a `Popen`); an open file (a namespace, or a pidfd); or
                a path (`/proc/PID/ns/net`, or where one is bind-mounted).
            kinds: like "net"; none: a path's own kind, or all that differ from the caller's.
            pidfd: `target` is the number of a pidfd; it is used while the box starts.

        Raises: PolicyError.
        """
        unknown = [kind for kind in kinds if kind not in NAMESPACES]
        if unknown:
            known = ", ".join(NAMESPACES)
            raise PolicyError(f"no namespace kind {', '.join(unknown)}; there are {known}")
        if hasattr(target, "pid"):
            refuse_no_cgroup(target, kinds)
            target = target.pid
        if isinstance(target, int) and not isinstance(target, bool):
            where = f"fd:{target}" if pidfd else f"pid:{target}:{started(target)}"
            wanted = kinds or (tuple(NAMESPACES) if pidfd else different(target))
        elif hasattr(target, "fileno"):
            where, wanted = f"fd:{target.fileno()}", kinds
        else:
            path = os.path.abspath(text(target, "target"))
            where, wanted = f"path:{path}", kinds or FILES.get(os.path.basename(path), ())
            if len(wanted) != 1:
                raise PolicyError(f"{path} is one namespace: say its kind, like 'net'")
        if not wanted:
            raise PolicyError(f"say what to join of {target!r}: kinds like 'net'")
        return cls(joins=tuple((kind, where) for kind in NAMESPACES if kind in wanted))

    def narrow(self, inner: Namespace) -> Namespace:
        """The union: what either isolates is isolated."""
        once = ("hostname", "domainname", "uid_map", "gid_map")
        for name in (*once, "monotonic_offset", "boottime_offset"):
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
            joins=tuple(
                each
                for kind in NAMESPACES
                for each in dict.fromkeys((*self.joins, *inner.joins))
                if each[0] == kind
            ),
        )
