# SPDX-License-Identifier: Apache-2.0
"""Our box in the words of the OCI runtime specification, for crun and runc."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from isolate.policy.seccomp_default import REFUSED

__all__ = ["bundle"]

PROFILE = "/usr/share/containers/seccomp.json"
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
TIOCSTI = 0x5412
ALLOW = "SCMP_ACT_ALLOW"


def applies(includes: dict[str, Any], excludes: dict[str, Any]) -> bool:
    """Whether a rule of the profile is for a container on this machine that has no capability."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    right = not includes.get("arches") or machine in includes["arches"]
    return right and not includes.get("caps") and machine not in excludes.get("arches", ())


def rule(names: list[str], **more: Any) -> dict[str, Any]:
    """One entry."""
    return {"names": names, "action": ALLOW, **more}


def compared(index: int, value: int, op: str) -> list[dict[str, Any]]:
    """One test of an argument."""
    return [{"index": index, "value": value, "op": f"SCMP_CMP_{op}"}]


def oci_filter() -> dict[str, Any]:
    """podman's profile, less what our filter refuses: podman lets a user namespace do more."""
    loaded: dict[str, Any] = json.loads(Path(PROFILE).read_text())
    refused = {name for calls, _ in REFUSED.values() for name in calls.split()}
    refused |= {"clone3", "socket", "socketpair", "ioctl"}
    kept = []
    for each in loaded["syscalls"]:
        if each["action"] != ALLOW:
            continue
        if not applies(each.get("includes") or {}, each.get("excludes") or {}):
            continue
        names = [name for name in each["names"] if name not in refused]
        if names:
            kept.append(rule(names, args=each.get("args") or []))
    kept += [rule(["socket"], args=compared(0, family, "EQ")) for family in FAMILIES]
    kept += [rule(["socketpair"], args=compared(0, 1, "EQ"))]
    kept += [rule(["ioctl"], args=compared(1, TIOCSTI, "NE"))]
    kept.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    arch = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[os.uname().machine]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": [arch],
        "syscalls": kept,
    }


def oci_mounts(trees: list[str]) -> list[dict[str, Any]]:
    """Ours, in their words."""
    strict = ["nosuid", "nodev", "noexec"]
    small = ["nosuid", "nodev", "mode=1777", "size=64m"]
    dev = ["nosuid", "noexec", "mode=755", "size=64k"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    found = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": strict},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": dev},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": small},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": small},
    ]
    options = ["rbind", "ro", "nosuid", "nodev"]
    for path in trees:
        found.append({"destination": path, "type": "bind", "source": path, "options": options})
    return found


def oci_config(
    program: str, trees: list[str], masked: list[str], read_only: list[str], base: int
) -> dict[str, Any]:
    """config.json of a bundle."""
    maps = [{"containerID": n, "hostID": base + i, "size": 1} for i, n in enumerate((0, 1000))]
    kinds = ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")
    process = {
        "terminal": False,
        "user": {"uid": 1000, "gid": 1000},
        "args": [program],
        "env": ["PATH=/usr/bin:/bin"],
        "cwd": "/tmp",
        "noNewPrivileges": True,
        "capabilities": {},
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
    }
    linux = {
        "namespaces": [{"type": kind} for kind in kinds],
        "uidMappings": maps,
        "gidMappings": maps,
        "maskedPaths": masked,
        "readonlyPaths": read_only,
        "resources": {"pids": {"limit": 256}},
        "seccomp": oci_filter(),
    }
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sandbox",
        "mounts": oci_mounts(trees),
        "linux": linux,
    }


def rootfs(root: Path, trees: list[str], links: list[tuple[str, str]]) -> None:
    """Mount points and links, on the disk: a runtime can't make them in a read-only root."""
    for name in ("proc", "dev", "tmp", "etc", "home", "run", "var"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)  # runc gives a tmpfs the mode of what it covers
    for path in trees:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.isdir(path):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
    for text, path in links:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(text)
    root.chmod(0o755)


def bundle(
    folder: Path,
    program: str,
    trees: list[str],
    links: list[tuple[str, str]],
    masked: list[str],
    read_only: list[str],
    base: int = 1 << 29,
) -> None:
    """Write a bundle of our kind of box for one program."""
    folder.mkdir()
    folder.chmod(0o755)
    rootfs(folder / "rootfs", trees, links)
    config = oci_config(program, trees, masked, read_only, base)
    (folder / "config.json").write_text(json.dumps(config))
