# SPDX-License-Identifier: Apache-2.0
"""Capabilities by name. Source: linux/capability.h, through CAP_CHECKPOINT_RESTORE (Linux 5.9)."""

from __future__ import annotations

__all__ = ["CAPABILITIES", "DOCKER", "mask", "names_of"]

NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER
    SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
    CHECKPOINT_RESTORE
""".split()
CAPABILITIES = {f"CAP_{name}": number for number, name in enumerate(NAMES)}

# The fourteen that Docker's documentation ("Runtime privilege and Linux capabilities") says a
# container gets by default.
DOCKER = tuple(
    f"CAP_{name}"
    for name in """
        AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW
        SETFCAP SETGID SETPCAP SETUID SYS_CHROOT
    """.split()
)


def mask(names: frozenset[str]) -> int:
    """Names as the kernel's bit mask."""
    return sum(1 << CAPABILITIES[name] for name in names)


def names_of(bits: int) -> frozenset[str]:
    """The known names in a bit mask."""
    return frozenset(name for name, number in CAPABILITIES.items() if bits >> number & 1)
