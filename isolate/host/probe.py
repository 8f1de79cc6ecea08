# SPDX-License-Identifier: Apache-2.0
"""Finding the facts: reads only, changes nothing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from isolate.host import asking, confinement, lsm
from isolate.host.cgroups import probe_cgroup
from isolate.host.facts import Host, PythonFacts
from isolate.host.seccomp import probe_flags

__all__ = ["probe", "probe_python"]

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = """
    alternatives ca-certificates ca-certificates.conf debian_version ld.so.cache ld.so.conf
    ld.so.conf.d localtime magic mime.types os-release protocols python3 python3.11 services
    ssl/certs ssl/openssl.cnf timezone
""".split()
ACTIONS = {"user_notif": "notify"}  # the kernel's name and ours; the others are the same
# Entries of sys.path that hold more than code: they, and what is above them, are not shown.
PRIVATE = ("/root", "/home", "/etc", "/tmp", "/var", "/var/tmp", "/proc", "/sys", "/dev", "/run")


def read(path: str) -> str | None:
    """A small file's text, None if it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def entry(path: str) -> tuple[str, str] | None:
    """What is there: a directory, a file, or a link with its text."""
    if os.path.islink(path):
        return path, f"link:{os.readlink(path)}"
    if os.path.isdir(path):
        return path, "dir"
    return (path, "file") if os.path.isfile(path) else None


def link_chain(path: str) -> tuple[tuple[str, str], ...]:
    """Each symbolic link on the way from `path` to the real file, parents included."""
    links: dict[str, str] = {}
    todo = [path]
    while todo and len(links) < 64:
        parts = [part for part in todo.pop().split("/") if part]
        here = ""
        for index, part in enumerate(parts):
            here = f"{here}/{part}"
            if here in links:
                break
            if not os.path.islink(here):
                continue
            links[here] = os.readlink(here)
            rest = parts[index + 1 :]
            target = os.path.join(os.path.dirname(here), links[here], *rest)
            todo.append(os.path.normpath(target))
            break
    return tuple(links.items())


def too_wide(path: str, homes: tuple[str, ...]) -> bool:
    """Whether a directory holds a home or the like: itself, or above one."""
    return any(each == path or each.startswith(path.rstrip("/") + "/") for each in homes)


def absolute(path: str) -> str:
    """An entry of sys.path as a path; "" is the directory that we are in, if it is still there."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        return f"/{path}"


def probe_python() -> PythonFacts:
    """The running interpreter: cheap, since sys.path may change at any time."""
    homes = tuple({*PRIVATE, os.path.expanduser("~"), os.environ.get("HOME", "/root")})
    executable = sys.executable or "/usr/bin/python3"
    real = os.path.realpath(executable)
    wanted = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    wanted += [os.path.dirname(os.path.dirname(real)), *sys.path]
    trees: list[str] = []
    skipped: list[str] = []
    for path in dict.fromkeys(absolute(each) for each in wanted):
        if not os.path.exists(path):
            continue
        (skipped if too_wide(path, homes) else trees).append(path)
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if here not in trees:
        trees.append(os.path.join(here, "isolate"))
    links = dict(link_chain(executable))
    for tree in trees:
        links.update(link_chain(tree))
    return PythonFacts(
        executable=executable,
        links=tuple(links.items()),
        trees=tuple(dict.fromkeys(os.path.realpath(tree) for tree in trees)),
        skipped=tuple(skipped),
    )


def user_namespace_fact(refused: tuple[str, ...], status: str, own_ids: bool) -> tuple[bool, str]:
    """Whether user namespaces can be made, by the filter and the sysctls that forbid them."""
    if "clone" in refused:
        return False, "a seccomp filter around this process refuses new namespaces"
    if not os.path.exists("/proc/self"):
        return False, "no /proc is mounted here, through which id maps are written"
    if not os.path.exists("/proc/self/ns/user"):
        return False, "the kernel is built without user namespaces"
    if (read("/proc/sys/user/max_user_namespaces") or "1").strip() == "0":
        return False, "sysctl user.max_user_namespaces is 0"
    if os.geteuid() == 0:
        if not own_ids and not confinement.has_cap(status, "CAP_SETFCAP"):
            return False, "CAP_SETFCAP is missing, without which root's own id can't be mapped"
        return True, ""
    if (read("/proc/sys/kernel/unprivileged_userns_clone") or "1").strip() == "0":
        return False, "sysctl kernel.unprivileged_userns_clone is 0"
    if (read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") or "0").strip() == "1":
        return False, "sysctl kernel.apparmor_restrict_unprivileged_userns is 1"
    return True, ""


def probe() -> Host:
    """All facts about this machine, for this process."""
    uname = os.uname()
    major, minor = (int(part) for part in re.findall(r"\d+", uname.release)[:2])
    status = read("/proc/self/status") or ""
    uid_map, gid_map = read("/proc/self/uid_map") or "", read("/proc/self/gid_map") or ""
    filtered = asking.is_filtered()
    refused = confinement.refused_calls(uname.machine, filtered)
    root = os.geteuid() == 0
    ids_why = confinement.ids_why(status, uid_map, gid_map) if root else ""
    usable, why = user_namespace_fact(refused, status, own_ids=not ids_why)
    paths = [*SYSTEM, *(f"/etc/{name}" for name in ETC)]
    flags, no_listener = probe_flags(status)
    landlock, landlock_why = lsm.landlock()
    apparmor, apparmor_label = lsm.apparmor()
    actions = (read("/proc/sys/kernel/seccomp/actions_avail") or "").split()
    return Host(
        kernel=(major, minor),
        arch=uname.machine,
        euid=os.geteuid(),
        egid=os.getegid(),
        sys_admin=confinement.has_cap(status, "CAP_SYS_ADMIN"),
        user_namespaces=usable,
        user_why=why,
        seccomp=tuple(ACTIONS.get(name, name) for name in actions),
        seccomp_flags=flags,
        seccomp_why=no_listener,
        root_entries=tuple(found for path in paths if (found := entry(path))),
        filtered=filtered,
        refused=refused,
        proc_why=confinement.proc_why(read("/proc/self/mountinfo") or ""),
        ids_why=ids_why,
        id_range=confinement.id_range(uid_map, gid_map) or confinement.OWN_RANGE,
        idmap=confinement.initial_ids(uid_map),
        landlock=landlock,
        landlock_why=landlock_why,
        apparmor=apparmor,
        apparmor_label=apparmor_label,
        python=probe_python(),
        cgroup=probe_cgroup(),
    )
