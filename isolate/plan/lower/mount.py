# SPDX-License-Identifier: Apache-2.0
"""`Mount` into one or a few ops in the new root."""

from __future__ import annotations

from isolate.abi.flags import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.plan.lower import overlay
from isolate.plan.lower.draft import Draft, encoded
from isolate.policy.mount import Mount

__all__ = ["dev", "devices", "lower", "private_dev", "proc", "tmpfs"]

SAFE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
STRICT = SAFE | MOUNT_ATTR_NOEXEC
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
)
PROC_HINT = (
    "start the container with --security-opt systempaths=unconfined (podman: unmask=ALL), or share "
    'its own with Mount.bind("/proc", "/proc") beside weaken={"proc"}'
)
# HARDENING 11: /proc is mostly harmless in a pid namespace, but for what belongs to the machine.
PROC_READ_ONLY = ("sys", "irq", "bus", "fs", "sysrq-trigger")
PROC_MASKED = """
    kcore keys key-users timer_list sched_debug kallsyms kmsg slabinfo pagetypeinfo
    latency_stats scsi acpi vmallocinfo iomem ioports
""".split()


def tmpfs(
    draft: Draft, origin: object, target: str, size: int, mode: int, attr: int = SAFE
) -> None:
    """An empty file system in memory."""
    options = f"size={size}\0mode={mode:o}\0nr_inodes={max(64, size >> 12)}".encode()
    draft.op(
        OpCode.MOUNT_NEW, Phase.MOUNT, f"mount tmpfs on {target}", origin,
        b"tmpfs", options, encoded(target), nums=(attr,), flags=OpFlag.MAKE_DIR,
    )  # fmt: skip


def devices(draft: Draft, origin: object, target: str) -> None:
    """A small /dev, read-only in the end, with the places of what `private_dev` mounts."""
    tmpfs(draft, origin, target, 65536, 0o755, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    for name in DEVICES:
        attr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
        draft.bind(f"/dev/{name}", f"{target}/{name}", attr, origin, recursive=False)
    for text, name in LINKS:
        draft.op(
            OpCode.SYMLINK, Phase.MOUNT, f"link {target}/{name} to {text}", origin,
            text.encode(), encoded(f"{target}/{name}"),
        )  # fmt: skip
    for name in ("pts", "shm"):
        path = f"{target}/{name}"
        draft.op(
            OpCode.MKDIR, Phase.MOUNT, f"make {path}", origin, encoded(path), nums=(0o755,)
        )
    draft.op(
        OpCode.MOUNT_ATTR, Phase.MOUNT, f"make {target} read-only", origin,
        encoded(target), nums=(MOUNT_ATTR_RDONLY,),
    )  # fmt: skip


def private_dev(draft: Draft, origin: object, target: str) -> None:
    """Pseudo-terminals and shared memory of the box's own."""
    draft.op(
        OpCode.MOUNT_NEW, Phase.MOUNT, f"mount devpts on {target}/pts", origin,
        b"devpts", b"ptmxmode=0666\0mode=0620", encoded(f"{target}/pts"),
        nums=(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,),
    )  # fmt: skip
    tmpfs(draft, origin, f"{target}/shm", 64 << 20, 0o1777)


def dev(draft: Draft, origin: object, target: str) -> None:
    """Both."""
    devices(draft, origin, target)
    private_dev(draft, origin, target)


def proc(draft: Draft, origin: object, target: str) -> None:
    """/proc of this pid namespace, without the machine's own knobs.

    Weakened it is empty: the one around us would show other processes. Raises: HostLacks.
    """
    if draft.host.proc_why and draft.new("user"):
        draft.lacks("proc", draft.host.proc_why, PROC_HINT)
        tmpfs(draft, origin, target, 4096, 0o555, STRICT | MOUNT_ATTR_RDONLY)
        return
    draft.op(
        OpCode.MOUNT_NEW, Phase.MOUNT, f"mount proc on {target}", origin,
        b"proc", None, encoded(target), nums=(STRICT,), flags=OpFlag.MAKE_DIR,
    )  # fmt: skip
    for name in PROC_READ_ONLY:
        path = f"{target}/{name}"
        draft.op(
            OpCode.BIND, Phase.MOUNT, f"make {path} read-only", origin,
            encoded(path), encoded(path), nums=(STRICT | MOUNT_ATTR_RDONLY,),
            flags=OpFlag.FROM_ROOT | OpFlag.OPTIONAL | OpFlag.RECURSIVE,
        )  # fmt: skip
    for name in PROC_MASKED:
        path = f"{target}/{name}"
        draft.op(
            OpCode.MASK, Phase.MOUNT, f"mask {path}", origin, encoded(path), flags=OpFlag.OPTIONAL
        )


def made(each: Mount, draft: Draft) -> None:
    """A file, a directory or a link of the new root."""
    target = encoded(each.target)
    if each.kind == "file":
        draft.op(
            OpCode.FILE, Phase.MOUNT, f"write {each.target}", each,
            target, each.data or b"", nums=(each.mode,),
        )  # fmt: skip
    elif each.kind == "dir":
        draft.op(
            OpCode.MKDIR, Phase.MOUNT, f"make {each.target}", each, target, nums=(each.mode,)
        )
    else:
        text = encoded(each.source or "")
        draft.op(OpCode.SYMLINK, Phase.MOUNT, f"link {each.target}", each, text, target)


def lower(each: Mount, draft: Draft) -> None:
    """One mount. Raises: HostLacks."""
    if each.kind == "bind":
        attr = SAFE if each.writable else SAFE | MOUNT_ATTR_RDONLY
        draft.bind(each.source or "", each.target, attr, each, owned=True)
    elif each.kind == "tmpfs":
        tmpfs(draft, each, each.target, each.size or 64 << 20, each.mode)
    elif each.kind == "proc":
        proc(draft, each, each.target)
    elif each.kind == "dev":
        dev(draft, each, each.target)
    elif each.kind == "overlay":
        overlay.lower_mount(each, draft)
    else:
        made(each, draft)
