# SPDX-License-Identifier: Apache-2.0
"""What to type on this machine so that a rung of the ladder holds, or holds more: texts only."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["delegate_more", "hand_down", "mount_v1", "own_v1", "own_v2", "scope", "scope_cure"]


def scope(uid: int) -> str:
    """Start the program in a scope of its own, with systemd."""
    user = "" if uid == 0 else "--user "
    return f"systemd-run {user}--scope -p Delegate=yes -- PROGRAM"


def own_v2(point: str, uid: int, pid: int) -> str:
    """A cgroup of the user's own, without systemd; the process goes there."""
    own = f"{point}/isolate-{uid}"
    return (
        f"sudo sh -c 'echo +memory +pids +cpu +cpuset +io >{point}/cgroup.subtree_control; "
        f"mkdir -p {own} && chown {uid} {own} {own}/cgroup.procs {own}/cgroup.subtree_control"
        f" {own}/cgroup.threads && echo {pid} >{own}/cgroup.procs'"
    )


def own_v1(points: Iterable[str], uid: int) -> str:
    """A directory of the user's own in every v1 hierarchy."""
    places = " ".join(dict.fromkeys(points))
    return (
        f"sudo sh -c 'for d in {places}; do mkdir -p $d/isolate-{uid} && "
        f"chown -R {uid} $d/isolate-{uid}; done'; export ISOLATE_CGROUP_PARENT=isolate-{uid}"
    )


def mount_v1(names: Iterable[str], base: str = "/sys/fs/cgroup") -> str:
    """Mount controllers of v1 that are not there; by v1's names."""
    names = " ".join(names)
    return (
        f"for c in {names}; do mkdir -p {base}/$c && mount -t cgroup -o $c cgroup {base}/$c; done"
    )


def hand_down(path: str, names: Iterable[str]) -> str:
    """Let a cgroup have more controllers, without systemd."""
    words = " ".join(f"+{name}" for name in names)
    return f"sudo sh -c 'echo {words} >{path}/cgroup.subtree_control'"


def delegate_more(uid: int) -> str:
    """Let systemd give users' managers every controller: many give only memory and pids."""
    place = "/etc/systemd/system/user@.service.d"
    return (
        f"sudo sh -c 'mkdir -p {place} && printf \"[Service]\\nDelegate=yes\\n\" "
        f">{place}/delegate.conf && systemctl daemon-reload && "
        f"systemctl restart user@{uid}.service'"
    )


def scope_cure(why: str, uid: int) -> str:
    """What to do about a systemd scope that can't be had."""
    if "jeepney" in why:
        return "pip install 'isolate-linux[systemd]'"
    if "bus" in why and uid == 0:
        return "apt install dbus && systemctl start dbus.socket"
    if "bus" in why:
        bus = f"export XDG_RUNTIME_DIR=/run/user/{uid}"
        return f"sudo apt install dbus-user-session; sudo loginctl enable-linger {uid}; {bus}"
    if "controllers" in why:
        return delegate_more(uid)
    return "nothing to type: it takes a machine that was booted with systemd"
