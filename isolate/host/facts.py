# SPDX-License-Identifier: Apache-2.0
"""What a machine can do, as a frozen value that goes through JSON."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict, frozen

__all__ = ["CgroupFacts", "Host", "PythonFacts"]


@frozen(kw_only=True)
class PythonFacts:
    """Where the running interpreter lives.

    Attributes:
        executable: sys.executable.
        links: (link, its text), each hop from the executable to the real file.
        trees: directories and zips that it needs: prefixes and sys.path, absolute.
        skipped: entries of sys.path that would show too much (a home, the root, /tmp …).
    """

    executable: str
    links: tuple[tuple[str, str], ...] = ()
    trees: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@frozen(kw_only=True)
class CgroupFacts:
    """Which controllers a leaf could have.

    Attributes:
        version: 1 (also hybrid: some controllers of v1, some of v2), 2, or 0 for none.
        controllers: names that are usable by us, by v2's names.
        why: what was looked at where there are none.
        unified: those of them that v2 has, on hybrid machines too.
        rungs: (where a place was looked for, why it is none or "").
        command: what to type on this machine to get one, or one with more controllers.
        commands: (rung, what to type so that it holds).
    """

    version: int = 0
    controllers: tuple[str, ...] = ()
    why: str = ""
    unified: tuple[str, ...] = ()
    rungs: tuple[tuple[str, str], ...] = ()
    command: str = ""
    commands: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Host:
    """Facts about one machine, for one user.

    Attributes:
        kernel: (major, minor).
        arch: of uname -m.
        euid, egid: of the caller.
        sys_admin: whether the caller has CAP_SYS_ADMIN (and so may clone mounts).
        user_namespaces: whether they can be made; `user_why` says why not.
        seccomp: the actions that filters may have; none without seccomp.
        seccomp_flags: "tsync", "spec_allow", "new_listener", "wait_killable_recv": what a filter
            may be installed with, each probed; `seccomp_why` says why no listener.
        root_entries: (path, "dir" or "file" or "link:TEXT") of system paths that exist.
        filtered: whether a seccomp filter around us is in force.
        refused: system calls that a filter around us refuses: "clone" (for new namespaces), ...
        proc_why: why a new /proc can't be mounted in a new user namespace; empty if it can.
        ids_why: why root can't give a box ids of its own; empty if it can.
        id_range: (first, last) of the ids that boxes of root take theirs from.
        idmap: whether a mount may show the caller's files as the box's (needs sys_admin too).
        landlock: the ABI level, 0 for none; `landlock_why` says why not.
        apparmor: why AppArmor can't be used, empty where it can.
        apparmor_label: the caller's, "unconfined" or "NAME (MODE)"; empty without AppArmor.
        python, cgroup: see there.
    """

    kernel: tuple[int, int]
    arch: str
    euid: int
    egid: int
    sys_admin: bool
    user_namespaces: bool
    user_why: str = ""
    seccomp: tuple[str, ...] = ()
    seccomp_flags: tuple[str, ...] = ()
    seccomp_why: str = ""
    root_entries: tuple[tuple[str, str], ...] = ()
    filtered: bool = False
    refused: tuple[str, ...] = ()
    proc_why: str = ""
    ids_why: str = ""
    id_range: tuple[int, int] = (1 << 30, (1 << 31) - 64)
    idmap: bool = True
    landlock: int = 0
    landlock_why: str = ""
    apparmor: str = "the kernel has no AppArmor"
    apparmor_label: str = ""
    python: PythonFacts
    cgroup: CgroupFacts = CgroupFacts()

    def to_json(self) -> str:
        """For a museum of hosts, and for bug reports."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Host:
        """The inverse of `to_json`."""
        data = json.loads(text)
        data["python"] = PythonFacts(**tuples(data["python"]))
        data["cgroup"] = CgroupFacts(**tuples(data["cgroup"]))
        return cls(**tuples(data))


def tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Lists, at any depth, as tuples."""

    def convert(value: Any) -> Any:
        return tuple(convert(each) for each in value) if isinstance(value, list) else value

    return {key: convert(value) for key, value in data.items()}
