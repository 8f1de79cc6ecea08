# SPDX-License-Identifier: Apache-2.0
"""Small made-up hosts for tests that ask no machine; recorded ones are in tests/museum."""

from __future__ import annotations

from attrs import evolve

from isolate.host.facts import CgroupFacts, Host, PythonFacts

PYTHON = PythonFacts(
    executable="/srv/venv/bin/python",
    links=(("/srv/venv/bin/python", "/usr/bin/python3"), ("/usr/bin/python3", "python3.11")),
    trees=("/srv/venv", "/usr/lib/python3.11"),
)
ROOT_V1 = Host(
    kernel=(6, 18),
    arch="x86_64",
    euid=0,
    egid=0,
    sys_admin=True,
    user_namespaces=True,
    seccomp=("kill_process", "kill_thread", "trap", "errno", "notify", "log", "allow"),
    root_entries=(("/usr", "dir"), ("/bin", "link:usr/bin"), ("/etc/ld.so.cache", "file")),
    landlock=7,
    python=PYTHON,
    cgroup=CgroupFacts(version=1, controllers=("cpu", "cpuacct", "cpuset", "memory", "pids")),
)
ORDINARY = evolve(
    ROOT_V1,
    euid=1000,
    egid=1000,
    sys_admin=False,
    cgroup=CgroupFacts(why="no v1 controller is writable"),
)
NO_USERNS = evolve(
    ORDINARY, user_namespaces=False, user_why="sysctl user.max_user_namespaces is 0"
)
OLD = evolve(ROOT_V1, kernel=(5, 15), landlock=1)
ARM = evolve(ORDINARY, arch="aarch64")
NESTED = evolve(  # a container's root: no SYS_ADMIN outside, nothing of cgroups to write
    ROOT_V1, sys_admin=False, cgroup=CgroupFacts(why="no cgroup file system is mounted")
)
LISTENING = evolve(  # what a machine of today has: refused calls are reported
    ROOT_V1, seccomp_flags=("tsync", "spec_allow", "new_listener", "wait_killable_recv")
)
V2 = CgroupFacts(
    version=2,
    controllers=("cpu", "cpuset", "hugetlb", "io", "memory", "pids"),
    unified=("cpu", "cpuset", "hugetlb", "io", "memory", "pids"),
)
ROOT_V2 = evolve(ROOT_V1, kernel=(6, 1), cgroup=V2)
DELEGATED = evolve(ORDINARY, kernel=(6, 1), cgroup=V2)
ALL = {
    "root-v2": ROOT_V2,
    "delegated-v2": DELEGATED,
    "root-v1": ROOT_V1,
    "ordinary": ORDINARY,
    "old-5.15": OLD,
    "aarch64": ARM,
    "nested": NESTED,
    "listening": LISTENING,
}
