# SPDX-License-Identifier: Apache-2.0
"""What this machine can hold, and for what it can't: why, and what to do. `doctor` asks; the rest
is pure."""

from __future__ import annotations

from attrs import evolve, frozen

from isolate.host.cgroups import probe_cgroup
from isolate.host.facts import Host
from isolate.host.probe import probe
from isolate.policy import ambient

__all__ = ["Finding", "doctor", "examine"]

LEAST_KERNEL = (5, 15)
USERNS_CURES = {
    "max_user_namespaces": "as root: sysctl -w user.max_user_namespaces=15000",
    "unprivileged_userns_clone": "as root: sysctl -w kernel.unprivileged_userns_clone=1",
    "apparmor_restrict": "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an "
    "AppArmor profile with `userns,` for this Python",
    "built without": "a kernel with CONFIG_USER_NS",
}
DELEGATE = (
    "run as root, or below a delegated cgroup: systemd-run --user --scope -p Delegate=yes PROGRAM"
)
CONTROLLERS = {
    "memory": "mem= and swap=, and the account of memory",
    "pids": "pids= for the box as a whole",
    "cpu": "cpu=",
    "cpuset": "cpus=",
}
SECCOMP = {
    "errno": "refusing system calls",
    "kill_process": "ending a program for a system call",
    "notify": "seeing which system calls were refused",
}


@frozen(kw_only=True)
class Finding:
    """One thing that a sandbox is made of, on this machine.

    Attributes:
        name: of the thing, as `weaken=` takes it where it is a guarantee.
        ok: whether it is there.
        found: what there is, or what is missing.
        why: where it is missing: what was looked at.
        cure: where it is missing: what to do.
        required: whether no Sandbox can be made without it.
    """

    name: str
    ok: bool
    found: str
    why: str = ""
    cure: str = ""
    required: bool = False


def kernel(host: Host) -> Finding:
    """Old ones lack system calls that every start needs."""
    version = ".".join(map(str, host.kernel))
    return Finding(
        name="kernel",
        ok=host.kernel >= LEAST_KERNEL,
        found=f"Linux {version} on {host.arch}",
        why="" if host.kernel >= LEAST_KERNEL else "Linux 5.15 is the oldest that is supported",
        cure="" if host.kernel >= LEAST_KERNEL else "a newer kernel",
        required=True,
    )


def user(host: Host) -> Finding:
    """User namespaces: without them only root can make a box."""
    cure = next((text for key, text in USERNS_CURES.items() if key in host.user_why), "")
    return Finding(
        name="user",
        ok=host.user_namespaces,
        found="user namespaces" if host.user_namespaces else "no user namespaces",
        why=host.user_why,
        cure=cure or ("" if host.user_namespaces else "see user_namespaces(7)"),
        required=True,
    )


def privilege(host: Host) -> Finding:
    """Not a fault: an ordinary user's boxes hold as well, but their ids are his own."""
    found = f"uid {host.euid}, with CAP_SYS_ADMIN" if host.sys_admin else f"uid {host.euid}"
    return Finding(name="privilege", ok=True, found=found)


def controller(name: str, use: str, host: Host) -> Finding:
    """One controller of cgroups."""
    there = name in host.cgroup.controllers
    found = f"cgroup v{host.cgroup.version}: {use}" if there else f"no {use}"
    if name == "pids" and not there:
        found += "; RLIMIT_NPROC holds pids= in a user namespace of the box"
    why = host.cgroup.why or f"the {name} controller is not there, or not ours to write"
    return Finding(
        name=name,
        ok=there,
        found=found,
        why="" if there else why,
        cure="" if there else f'{host.cgroup.command or DELEGATE}; or weaken={{"{name}"}}',
    )


def rungs(host: Host) -> tuple[Finding, ...]:
    """Where a place for cgroups was looked for; one is enough."""
    cures, usable = dict(host.cgroup.commands), bool(host.cgroup.controllers)
    return tuple(
        Finding(
            name=f"cgroup: {name}",
            ok=not why,
            found="no place" if why else "a place for cgroups",
            why=f"{why} (another rung holds)" if why and usable else why,
            cure=(cures.get(name) or host.cgroup.command or DELEGATE) if why else "",
        )
        for name, why in host.cgroup.rungs
    )


def counters(host: Host) -> Finding:
    """The account of time: `cpu_time=` over all processes needs it, and `usage.cpu`."""
    there = host.cgroup.version == 2 or "cpuacct" in host.cgroup.controllers
    return Finding(
        name="cpu_time",
        ok=there,
        found="cpu_time= for all processes together" if there else "cpu_time= by process only",
        why="" if there else host.cgroup.why or "the cpuacct controller is not ours to write",
        cure="" if there else host.cgroup.command or DELEGATE,
    )


def freezer(host: Host) -> Finding:
    """`box.freeze()`."""
    there = host.cgroup.version == 2 or "freezer" in host.cgroup.controllers
    return Finding(
        name="freeze",
        ok=there,
        found="freeze() and thaw()" if there else "no freeze() and thaw()",
        why="" if there else host.cgroup.why or "the freezer controller is not ours to write",
        cure="" if there else host.cgroup.command or DELEGATE,
    )


def seccomp(action: str, use: str, host: Host) -> Finding:
    """One action of filters."""
    there = action in host.seccomp
    return Finding(
        name=f"seccomp {action}",
        ok=there,
        found=use if there else f"no {use}",
        why="" if there else "/proc/sys/kernel/seccomp/actions_avail doesn't name it",
        cure="" if there else "a kernel with CONFIG_SECCOMP_FILTER",
        required=action == "errno",
    )


def python(host: Host) -> Finding:
    """What of sys.path is not shown inside."""
    skipped = ", ".join(host.python.skipped)
    return Finding(
        name="python",
        ok=True,
        found=host.python.executable
        + (f"; not shown inside, modules there go by value: {skipped}" if skipped else ""),
    )


def examine(host: Host) -> tuple[Finding, ...]:
    """Everything that was looked for, in one order."""
    return (
        kernel(host),
        privilege(host),
        user(host),
        *rungs(host),
        *(controller(name, use, host) for name, use in CONTROLLERS.items()),
        counters(host),
        freezer(host),
        *(seccomp(action, use, host) for action, use in SECCOMP.items()),
        python(host),
    )


def doctor() -> tuple[Finding, ...]:
    """Look at this machine: what can be held here, and what is missing, with reason and cure."""
    with ambient.outside():  # under a filter it asks in a copy of this process
        host = evolve(probe(), cgroup=probe_cgroup(every=True))
    return examine(host)
