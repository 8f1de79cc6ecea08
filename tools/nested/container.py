# SPDX-License-Identifier: Apache-2.0
"""Write an OCI bundle's config.json like Docker's default: `container.py KIND BUNDLE COMMAND...`.

KIND is "docker" (its filter and its masks), "podman" (the filter of containers-common, which lets
user namespaces be made), "unfiltered" (masks only) or "unmasked" (neither). Root, Docker's
capabilities, no user namespace. Masks as Docker's documentation and `docker inspect` show them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from isolate import CapabilitySet, SeccompFilter
from isolate.policy.rules import Action, Compare, Condition, Layer

PODMAN = "/usr/share/containers/seccomp.json"
MASKED = """
    /proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats
    /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware
    /sys/devices/virtual/powercap
""".split()
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()
NAMESPACES = ("mount", "pid", "ipc", "uts", "network")
OPERATORS = {
    Compare.EQ: "EQ",
    Compare.NE: "NE",
    Compare.LT: "LT",
    Compare.LE: "LE",
    Compare.GT: "GT",
    Compare.GE: "GE",
    Compare.MASKED_EQ: "MASKED_EQ",
}
ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def action(what: Action) -> dict[str, Any]:
    """An action, as the OCI runtime specification has it."""
    if what.name == "errno":
        return {"action": "SCMP_ACT_ERRNO", "errnoRet": what.data}
    return {"action": f"SCMP_ACT_{what.name.upper()}"}


def condition(each: Condition) -> dict[str, Any]:
    """One test; for a masked one `value` is the mask."""
    masked = each.compare is Compare.MASKED_EQ
    return {
        "index": each.index,
        "value": each.mask if masked else each.value,
        "valueTwo": each.value if masked else 0,
        "op": f"SCMP_CMP_{OPERATORS[each.compare]}",
    }


def seccomp(layer: Layer) -> dict[str, Any]:
    """A filter for the runtime to install."""
    default = action(layer.default)
    found: dict[str, Any] = {
        "defaultAction": default["action"],
        "architectures": [ARCHITECTURES[os.uname().machine]],
        "syscalls": [
            {
                "names": [rule.syscall],
                **action(rule.action),
                "args": [condition(each) for each in rule.conditions],
            }
            for rule in layer.rules
            if rule.action != layer.default
        ],
    }
    if "errnoRet" in default:
        found["defaultErrnoRet"] = default["errnoRet"]
    return found


def mount(kind: str, target: str, *options: str) -> dict[str, Any]:
    """One mount."""
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


def mounts() -> list[dict[str, Any]]:
    """Docker's, less cgroups, and the place where results go."""
    strict = ("nosuid", "noexec", "nodev")
    return [
        mount("proc", "/proc", *strict),
        mount("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
        mount("mqueue", "/dev/mqueue", *strict),
        mount("tmpfs", "/dev/shm", *strict, "mode=1777", "size=65536k"),
        mount("sysfs", "/sys", *strict, "ro"),
        mount("tmpfs", "/tmp", "nosuid", "nodev", "mode=1777"),
        mount("tmpfs", "/run", "nosuid", "nodev", "mode=755"),
    ]


def config(kind: str, bundle: Path, command: list[str]) -> dict[str, Any]:
    """The whole config.json."""
    caps = sorted(CapabilitySet.docker().effective)
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "container": kind}
    env |= {k: v for k, v in os.environ.items() if k.startswith("ISOLATE_")}
    linux: dict[str, Any] = {"namespaces": [{"type": each} for each in NAMESPACES]}
    if kind != "unmasked":
        linux |= {"maskedPaths": MASKED, "readonlyPaths": READ_ONLY}
    if kind == "docker":
        linux["seccomp"] = seccomp(SeccompFilter.docker(caps).layers[0])
    elif kind == "podman":
        linux["seccomp"] = seccomp(SeccompFilter.load(PODMAN, caps).layers[0])
    return {
        "ociVersion": "1.0.2",
        "hostname": "container",
        "root": {"path": "rootfs", "readonly": False},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": os.getcwd(),
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
            "noNewPrivileges": False,
        },
        "mounts": mounts(),
        "linux": linux,
    }


def main() -> None:
    """Write the file."""
    kind, bundle, *command = sys.argv[1:]
    if kind not in ("docker", "podman", "unfiltered", "unmasked"):
        raise SystemExit(f"no such kind of container: {kind}")
    path = Path(bundle)
    (path / "rootfs").mkdir(parents=True, exist_ok=True)
    text = json.dumps(config(kind, path, command), indent=1)
    (path / "config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
