# SPDX-License-Identifier: Apache-2.0
"""Hosts for tests that ask no machine: recorded ones, and ones made up from documentation."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from isolate.host.facts import CgroupFacts, Host, PythonFacts

HERE = Path(__file__).parent
PYTHON = PythonFacts(
    executable="/usr/bin/python3",
    links=(("/usr/bin/python3", "python3.11"),),
    trees=("/usr/lib/python3.11",),
)


def recorded(name: str) -> Host:
    """What `probe` said there."""
    return Host.from_json((HERE / f"{name}.json").read_text(encoding="utf-8"))


def without(host: Host, *words: str) -> tuple[tuple[str, str], ...]:
    """System paths, less those that another distribution has not."""
    return tuple(entry for entry in host.root_entries if not any(w in entry[0] for w in words))


RECORDED = {path.stem: recorded(path.stem) for path in sorted(HERE.glob("*.json"))}
ROOT, USER = RECORDED["vm-6.18-root"], RECORDED["vm-6.18-user"]
V2 = ("cpu", "cpuset", "io", "memory", "pids")
V2_ROOT = CgroupFacts(version=2, controllers=V2, unified=V2)
NO_V2 = CgroupFacts(why="no cgroup that we may write: the session's is not delegated")
MADE_UP = {
    # Debian 12: cgroup v2, Landlock 2, root.
    "debian-12-root": evolve(
        ROOT, kernel=(6, 1), landlock=2, cgroup=V2_ROOT
    ),
    # A user of the same in a scope with Delegate=yes.
    "debian-12-delegated": evolve(
        USER,
        kernel=(6, 1),
        landlock=2,
        cgroup=CgroupFacts(version=2, controllers=("memory", "pids"), unified=("memory", "pids")),
    ),
    # Ubuntu 24.04 as it is installed: user namespaces only for programs with a profile.
    "ubuntu-24.04-user": evolve(
        USER,
        kernel=(6, 8),
        landlock=4,
        user_namespaces=False,
        user_why="sysctl kernel.apparmor_restrict_unprivileged_userns is 1",
        apparmor="",
        apparmor_label="unconfined",
        cgroup=NO_V2,
    ),
    # Ubuntu 22.04: the oldest kernel that is supported.
    "old-5.15-root": evolve(
        ROOT, kernel=(5, 15), landlock=1, cgroup=V2_ROOT
    ),
    # RHEL 9 and its kin: an older number with newer features; no Landlock in it, no /lib32.
    "rhel-9-user": evolve(
        USER,
        kernel=(5, 14),
        landlock=0,
        landlock_why="it is not among the kernel's security modules",
        root_entries=without(USER, "debian", "lib32", "ca-certificates", "/etc/ssl/"),
        cgroup=NO_V2,
    ),
    "aarch64-root": evolve(
        ROOT,
        arch="aarch64",
        kernel=(6, 1),
        landlock=2,
        root_entries=without(ROOT, "lib32", "lib64"),
        cgroup=V2_ROOT,
    ),
    # CONFIG_USER_NS is not set.
    "no-user-namespaces": evolve(
        USER, user_namespaces=False, user_why="the kernel is built without user namespaces"
    ),
    # The same, as root: the other namespaces can be made.
    "no-user-namespaces-root": evolve(
        ROOT, user_namespaces=False, user_why="the kernel is built without user namespaces"
    ),
    # A container whose root is one of 65536 ids of the machine (Docker's userns-remap).
    "remapped-root": evolve(
        RECORDED["in-unfiltered"], idmap=False, id_range=(32768, 65472), proc_why=""
    ),
}
ALL: dict[str, Host] = {**RECORDED, **MADE_UP}
