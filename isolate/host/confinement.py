# SPDX-License-Identifier: Apache-2.0
"""What an outer container keeps from us: its seccomp filter, its masks on /proc, its few ids.

Reads files, and, only where a filter is in force, makes system calls whose arguments no kernel
takes, in a copy of this process (asking.py): a kernel refuses them with an errno of its own, a
filter with another one, or by death.
"""

from __future__ import annotations

import errno
import signal

from isolate.abi.caps import CAPABILITIES
from isolate.abi.flags import CLONE_NEWNET, CLONE_NEWUSER
from isolate.abi.syscalls import numbers
from isolate.host import asking

__all__ = [
    "has_cap",
    "id_range",
    "ids_why",
    "initial_ids",
    "proc_why",
    "refused_calls",
]

ALL_IDS = (0, 0, (1 << 32) - 1)
OWN_RANGE = (1 << 30, (1 << 31) - 64)  # where nobody's accounts and subordinate ids are
LEAST_IDS = 4096  # below that a container's own users and a box's ids would meet
CLONE_FS = 0x200
BAD = (1 << 31) | 1
# Permanently empty directories of procfs: what is mounted there hides nothing
# (fs/namespace.c, mnt_already_visible).
HIDES_NOTHING = ("/sys/fs/binfmt_misc", "/fs/nfsd", "/xen")

# Each call's arguments, and the errno of a kernel that looks at them.
HARMLESS: dict[str, tuple[tuple[int, ...], int]] = {
    "clone": ((CLONE_NEWUSER | CLONE_FS | signal.SIGCHLD, 0, 0, 0, 0), errno.EINVAL),
    "clone3": ((0, 0), errno.EINVAL),
    "unshare": ((CLONE_NEWUSER | 1,), errno.EINVAL),
    "setns": ((-1, CLONE_NEWNET), errno.EBADF),
    "keyctl": ((0xFFFF, 0, 0, 0, 0), errno.EOPNOTSUPP),
    "mount": ((0, 0, 1, 0, 0), errno.EFAULT),
    "umount2": ((0, BAD), errno.EINVAL),
    "open_tree": ((-1, 0, BAD), errno.EINVAL),
    "mount_setattr": ((-1, 0, BAD, 0, 0), errno.EINVAL),
}


def has_cap(status: str, name: str) -> bool:
    """Whether a capability is in the effective set."""
    return bool(int(asking.status_field(status, "CapEff") or "0", 16) >> CAPABILITIES[name] & 1)


def refused_calls(arch: str, filtered: bool | None = None) -> tuple[str, ...]:
    """Calls that the filter in force refuses, or kills for; none without a filter.

    Args:
        arch: uname's machine.
        filtered: whether there is one; None looks.
    """
    if not (asking.is_filtered() if filtered is None else filtered):
        return ()
    try:
        table = numbers(arch)
    except KeyError:
        return ()
    calls = [(table[name], *args) for name, (args, _) in HARMLESS.items()]
    told = asking.answers(calls, filtered=True)
    return tuple(
        name
        for (name, (_, expected)), answer in zip(HARMLESS.items(), told, strict=True)
        if is_refusal(name, answer, expected)
    )


def is_refusal(name: str, answer: int | None, expected: int) -> bool:
    """Whether an answer is a filter's: the kernel's own is `expected`."""
    if answer is None:
        return True
    # A kernel without keys has nothing to refuse.
    return -answer != expected and answer < 0 and (name, -answer) != ("keyctl", errno.ENOSYS)


def proc_why(mountinfo: str) -> str:
    """Why a new /proc can't be mounted in a new user namespace; empty if it can.

    The kernel wants one procfs that hides nothing: without mounts on it, and writable.
    """
    rows = [line.split() for line in mountinfo.splitlines()]
    whole, why = [], "no /proc is mounted here"
    for row in rows:
        if row[row.index("-") + 1] != "proc" or row[3] != "/":
            continue
        on_it = [
            other[4]
            for other in rows
            if other[1] == row[0] and other[4].removeprefix(row[4]) not in HIDES_NOTHING
        ]
        if on_it:
            shown = ", ".join(sorted(on_it)[:3])
            why = f"{len(on_it)} masks lie on {row[4]} ({shown}, ...)"
        elif "ro" in row[5].split(","):
            why = f"{row[4]} is mounted read-only"
        else:
            whole.append(row[4])
    return "" if whole else f"{why}; the kernel then refuses a new one (mount_too_revealing)"


def id_lines(text: str) -> list[tuple[int, int, int]]:
    """The lines of a uid_map or gid_map."""
    rows = (line.split() for line in text.splitlines())
    return [(int(a), int(b), int(c)) for a, b, c in rows]


def initial_ids(uid_map: str) -> bool:
    """Whether this is the initial user namespace, as far as its map can tell."""
    return id_lines(uid_map) == [ALL_IDS]


def id_range(uid_map: str, gid_map: str) -> tuple[int, int] | None:
    """(first, last) of the host ids that boxes take theirs from; None if too few are mapped.

    In a container with mapped ids it is the upper half of what uids and gids both have, less the
    last 64, where "nobody" is.
    """
    uids, gids = id_lines(uid_map), id_lines(gid_map)
    if uids == gids == [ALL_IDS]:
        return OWN_RANGE
    best: tuple[int, int] | None = None
    for a, _, n in uids:
        for b, _, m in gids:
            first, last = max(a, b), min(a + n, b + m)
            if last - first >= LEAST_IDS and (best is None or last - first > best[1] - best[0]):
                best = (first, last)
    if best is None:
        return None
    first, last = best
    if first <= OWN_RANGE[0] and last >= OWN_RANGE[1]:
        return OWN_RANGE
    return (first + last) // 2, last - 64


def ids_why(status: str, uid_map: str, gid_map: str) -> str:
    """Why root can't give a box ids of its own; empty if it can."""
    missing = [name for name in ("CAP_SETUID", "CAP_SETGID") if not has_cap(status, name)]
    if missing:
        return f"{' and '.join(missing)} are missing, which writing id maps needs"
    if id_range(uid_map, gid_map) is None:
        count = sum(n for _, _, n in id_lines(uid_map))
        return f"only {count} user ids are mapped into this user namespace"
    return ""
