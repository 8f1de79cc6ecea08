# SPDX-License-Identifier: Apache-2.0
"""The ladder to a place in the cgroup tree, rung by rung: reads only.

A place is a directory below which we may make cgroups with controllers. Rungs, in order: v1's
mounts; our own v2 cgroup (delegated to us, or the root), or the one above if we moved into
`isolate.self` ourselves; a scope of our own from systemd. Each rung that fails says why.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from attrs import frozen

from isolate.abi.cgroup import ACCOUNTS, FIELDS, V1_NAMES
from isolate.host import cgroup_cures as cures
from isolate.host.facts import CgroupFacts

__all__ = [
    "SELF",
    "Top",
    "command",
    "find_top",
    "own_cgroup",
    "parent_name",
    "probe_cgroup",
    "user_bus",
]

SELF = "isolate.self"  # where we move ourselves: a cgroup with controllers holds no processes
SYSTEMD = "/run/systemd/system"
NAMES = {V1_NAMES.get(name, name): name for name in (*FIELDS, *ACCOUNTS, "freezer")}
HANDED = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")  # what v2 can hand down of ours
Rungs = tuple[tuple[str, str, str], ...]


def read(path: str) -> str | None:
    """A small file's text, None if it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def parent_name() -> str:
    """The directory that holds our leaves, below the place; tests set their own."""
    return os.environ.get("ISOLATE_CGROUP_PARENT", "isolate")


@frozen
class Top:
    """A v2 cgroup below which we may make ours.

    Attributes:
        path: its directory.
        controllers: what it can hand down.
        move: processes that have to go to `SELF` below it first: us and our children.
    """

    path: str
    controllers: tuple[str, ...]
    move: tuple[int, ...] = ()


def unified_mount() -> tuple[str, str] | None:
    """(mount point, the root that it shows) of cgroup2."""
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        if right.split(" ")[0] == "cgroup2":
            parts = left.split(" ")
            return parts[4], parts[3]
    return None


def own_cgroup() -> str | None:
    """The directory of our own v2 cgroup; None if it is not to be seen."""
    mount = unified_mount()
    lines = (read("/proc/self/cgroup") or "").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if mount is None or own is None:
        return None
    point, root = mount
    below = own.removeprefix(root) if root != "/" else own
    if root != "/" and own != root and not own.startswith(root + "/"):
        return None
    path = os.path.normpath(f"{point}/{below}")
    inside = path == point or path.startswith(point + "/")
    return path if inside and ".." not in below.split("/") and os.path.isdir(path) else None


def parents() -> dict[int, int]:
    """The parent of each process that is to be seen."""
    found = {}
    for name in os.listdir("/proc"):
        text = read(f"/proc/{name}/stat") if name.isdigit() else None
        if text:
            found[int(name)] = int(text[text.rindex(")") + 2 :].split()[1])
    return found


def ours(pids: list[int]) -> tuple[list[int], list[int]]:
    """(this process and its descendants, all others)."""
    above = parents() if any(pid != os.getpid() for pid in pids) else {}
    mine: list[int] = []
    others: list[int] = []
    for pid in pids:
        each = pid
        while each not in (os.getpid(), 0):
            each = above.get(each, 0)
        (mine if each == os.getpid() and pid else others).append(pid)
    return mine, others


def delegated(path: str) -> bool:
    """Whether systemd, where it runs, gave this cgroup away (its mark of Delegate=yes)."""
    if not os.path.isdir(SYSTEMD):
        return True
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            continue
    return os.stat(path).st_uid == os.geteuid() != 0


def top_at(path: str) -> Top | str:
    """This cgroup as a place, or why it is none."""
    controllers = tuple((read(f"{path}/cgroup.controllers") or "").split())
    for file in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        if not os.access(path + file, os.W_OK):
            return f"{path}{file} is not writable"
    if not controllers:
        return f"{path} has no controllers: what is above it hands none down"
    if not os.path.exists(f"{path}/cgroup.type"):
        return Top(path, controllers)  # the root: it alone may hold processes besides
    kind = (read(f"{path}/cgroup.type") or "").strip()
    if kind != "domain":
        return f"{path} is {kind}, no domain of its own"
    if not delegated(path):
        return f"systemd manages {path} and has not delegated it (Delegate=yes)"
    mine, others = ours([int(pid) for pid in (read(f"{path}/cgroup.procs") or "").split()])
    if others:
        return f"{path} holds {len(others)} processes that are not ours to move"
    return Top(path, controllers, tuple(mine))


def find_top() -> Top | str:
    """Our own v2 cgroup, or the one above where we moved ourselves; or why neither will do."""
    own = own_cgroup()
    if own is None:
        return "no cgroup2 mount shows our own cgroup"
    if os.path.basename(own) == SELF:
        return top_at(os.path.dirname(own))
    return top_at(own)


def user_bus() -> str | None:
    """The socket of the bus on which systemd manages us: the system's for root."""
    if os.geteuid() == 0:
        path = "/run/dbus/system_bus_socket"
    else:
        path = f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.geteuid()}'}/bus"
    return path if os.path.exists(path) else None


def scope_rung() -> tuple[tuple[str, ...], str]:
    """(controllers that a scope of ours would have, "") or ((), why there is none)."""
    if not os.path.isdir(SYSTEMD):
        return (), "systemd is not running"
    if importlib.util.find_spec("jeepney") is None:
        return (), "jeepney is not installed: pip install 'isolate-linux[systemd]'"
    if user_bus() is None:
        return (), "no bus on which systemd listens to us"
    mount = unified_mount()
    if mount is None:
        return (), "cgroup2 is not mounted"
    uid = os.geteuid()
    manager = "" if uid == 0 else f"/user.slice/user-{uid}.slice/user@{uid}.service"
    controllers = (read(f"{mount[0]}{manager}/cgroup.controllers") or "").split()
    return tuple(controllers), "" if controllers else f"no controllers in {mount[0]}{manager}"


def v1_mounts() -> dict[str, str]:
    """Mount point by v1 controller, by v1's names."""
    found = {}
    for line in (read("/proc/mounts") or "").splitlines():
        parts = line.split()
        if parts[2] == "cgroup":
            found.update(dict.fromkeys(parts[3].split(","), parts[1]))
    return {name: point for name, point in found.items() if name in NAMES}


def v1_rung() -> tuple[tuple[str, ...], str]:
    """(controllers whose v1 mounts, or our directory there, are writable, "") or ((), why)."""
    found, seen = [], v1_mounts()
    for name, point in seen.items():
        own = f"{point}/{parent_name()}"
        if os.access(own if os.path.isdir(own) else point, os.W_OK):
            found.append(NAMES[name])
    if found:
        return tuple(sorted(found)), ""
    return (), "none of its mounts is writable" if seen else "no controller is mounted"


def command(unified: bool) -> str:
    """What to type, here, so that there is a place."""
    uid = os.geteuid()
    if os.path.isdir(SYSTEMD):
        return cures.scope(uid)
    if unified:
        return cures.own_v2((unified_mount() or ("/sys/fs/cgroup", "/"))[0], uid, os.getpid())
    return cures.own_v1(v1_mounts().values(), uid)


def missing_v1(names: list[str]) -> list[str]:
    """Those of these controllers that the kernel has and nobody has mounted; v1's names."""
    rows = [line.split() for line in (read("/proc/cgroups") or "").splitlines()]
    there = {row[0] for row in rows if len(row) == 4 and row[3] == "1"}
    wanted = [V1_NAMES.get(name, name) for name in names]
    return [name for name in wanted if name in there and name not in v1_mounts()]


def more(names: list[str], v1: bool, top: Top | str) -> str:
    """What to type where there is a place, but not for these controllers; "" if nothing helps."""
    uid = os.geteuid()
    if v1:
        absent = missing_v1(names) if uid == 0 else []
        return cures.mount_v1(absent) if absent else ""
    if uid != 0 and os.path.isdir(SYSTEMD):
        return cures.delegate_more(uid)
    if isinstance(top, str) or unified_mount() in (None, (top.path, "/")):
        return ""
    return cures.hand_down(os.path.dirname(top.path), names)


def ladder(every: bool) -> tuple[tuple[str, ...], tuple[str, ...], Top | str, Rungs]:
    """Controllers of v1, of v2, our top cgroup, and (rung, why it is none, what to type)."""
    uid = os.geteuid()
    v1, v1_why = v1_rung()
    top = find_top()
    unified = () if isinstance(top, str) else top.controllers
    mounted = "no controller" not in v1_why
    v1_cure = command(False) if mounted else "nothing to type: v2 is the newer of the two"
    rungs = [
        ("v1", v1_why, v1_cure if v1_why else ""),
        ("v2 cgroup of ours", *((top, command(True)) if isinstance(top, str) else ("", ""))),
    ]
    if every or not (v1 or unified):
        found, why = scope_rung()
        unified = unified if v1 or unified else found
        rungs.append(("systemd scope", why, cures.scope_cure(why, uid) if why else ""))
    return v1, unified, top, tuple(rungs)


def probe_cgroup(every: bool = False) -> CgroupFacts:
    """The first rung that holds, with the reasons of those that don't; or of `every` rung."""
    v1, unified, top, rungs = ladder(every)
    usable = tuple(sorted({*v1, *(each for each in unified if each in FIELDS)}))
    told = tuple((name, why) for name, why, _ in rungs)
    commands = tuple((name, text) for name, _, text in rungs if text)
    if usable:
        missing = [name for name in HANDED if name not in usable]
        return CgroupFacts(
            version=1 if v1 else 2,
            controllers=usable,
            unified=tuple(sorted(each for each in unified if each in FIELDS)),
            rungs=told,
            commands=commands,
            command=more(missing, bool(v1), top) if missing else "",
        )
    why = "; ".join(f"{name}: {reason}" for name, reason in told)
    modern = not v1_mounts() and unified_mount() is not None
    return CgroupFacts(why=why, rungs=told, commands=commands, command=command(modern))
