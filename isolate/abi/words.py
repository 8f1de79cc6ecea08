# SPDX-License-Identifier: Apache-2.0
"""Numbers of system-call arguments as the words that the manual pages have for them.

Source: linux/{sched,fcntl,socket,mman,mount,prctl,ptrace,bpf,keyctl}.h, asm-generic/ioctls.h.
"""

from __future__ import annotations

import signal

from isolate.abi.flags import RLIMITS

__all__ = ["BITS", "NAMES", "in_words"]


def numbered(words: str, start: int = 0) -> dict[int, str]:
    """Names that count up."""
    return dict(enumerate(words.split(), start))


CLONE = {
    0x100: "CLONE_VM",
    0x200: "CLONE_FS",
    0x400: "CLONE_FILES",
    0x800: "CLONE_SIGHAND",
    0x1000: "CLONE_PIDFD",
    0x2000: "CLONE_PTRACE",
    0x4000: "CLONE_VFORK",
    0x8000: "CLONE_PARENT",
    0x10000: "CLONE_THREAD",
    0x20000: "CLONE_NEWNS",
    0x40000: "CLONE_SYSVSEM",
    0x80000: "CLONE_SETTLS",
    0x100000: "CLONE_PARENT_SETTID",
    0x200000: "CLONE_CHILD_CLEARTID",
    0x1000000: "CLONE_CHILD_SETTID",
    0x2000000: "CLONE_NEWCGROUP",
    0x4000000: "CLONE_NEWUTS",
    0x8000000: "CLONE_NEWIPC",
    0x10000000: "CLONE_NEWUSER",
    0x20000000: "CLONE_NEWPID",
    0x40000000: "CLONE_NEWNET",
}
# kind -> (bits by value, the mask of what is a number and not bits, its names)
BITS: dict[str, tuple[dict[int, str], int, dict[int, str]]] = {
    "clone": (CLONE, 0xFF, {}),
    "namespace": ({**CLONE, 0x80: "CLONE_NEWTIME"}, 0, {}),
    "open": (
        {
            0o100: "O_CREAT",
            0o200: "O_EXCL",
            0o400: "O_NOCTTY",
            0o1000: "O_TRUNC",
            0o2000: "O_APPEND",
            0o4000: "O_NONBLOCK",
            0o200000: "O_DIRECTORY",
            0o400000: "O_NOFOLLOW",
            0o2000000: "O_CLOEXEC",
            0o10000000: "O_PATH",
        },
        3,
        {0: "O_RDONLY", 1: "O_WRONLY", 2: "O_RDWR"},
    ),
    "socktype": (
        {0o4000: "SOCK_NONBLOCK", 0o2000000: "SOCK_CLOEXEC"},
        0xF,
        {1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 5: "SOCK_SEQPACKET", 10: "SOCK_PACKET"},
    ),
    "prot": ({1: "PROT_READ", 2: "PROT_WRITE", 4: "PROT_EXEC"}, 0, {}),
    "map": (
        {0x10: "MAP_FIXED", 0x20: "MAP_ANONYMOUS", 0x4000: "MAP_NORESERVE", 0x20000: "MAP_STACK"},
        0xF,
        {1: "MAP_SHARED", 2: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE"},
    ),
    "mount": (
        {
            1: "MS_RDONLY",
            2: "MS_NOSUID",
            4: "MS_NODEV",
            8: "MS_NOEXEC",
            32: "MS_REMOUNT",
            4096: "MS_BIND",
            8192: "MS_MOVE",
            16384: "MS_REC",
            1 << 17: "MS_UNBINDABLE",
            1 << 18: "MS_PRIVATE",
            1 << 19: "MS_SLAVE",
            1 << 20: "MS_SHARED",
        },
        0,
        {},
    ),
    "umount": (
        {1: "MNT_FORCE", 2: "MNT_DETACH", 4: "MNT_EXPIRE", 8: "UMOUNT_NOFOLLOW"},
        0,
        {},
    ),
}
FAMILIES = numbered(
    "UNSPEC UNIX INET AX25 IPX APPLETALK NETROM BRIDGE ATMPVC X25 INET6 ROSE DECnet NETBEUI "
    "SECURITY KEY NETLINK PACKET ASH ECONET ATMSVC RDS SNA IRDA PPPOX WANPIPE LLC IB MPLS CAN "
    "TIPC BLUETOOTH IUCV RXRPC ISDN PHONET IEEE802154 CAIF ALG NFC VSOCK KCM QIPCRTR SMC XDP MCTP"
)
PTRACE = numbered("TRACEME PEEKTEXT PEEKDATA PEEKUSER POKETEXT POKEDATA POKEUSER CONT KILL")
PTRACE |= {16: "ATTACH", 17: "DETACH", 24: "SYSCALL", 0x4200: "SETOPTIONS", 0x4206: "SEIZE"}
PRCTL = {
    1: "SET_PDEATHSIG",
    3: "GET_DUMPABLE",
    4: "SET_DUMPABLE",
    8: "SET_KEEPCAPS",
    15: "SET_NAME",
    16: "GET_NAME",
    22: "SET_SECCOMP",
    23: "CAPBSET_READ",
    24: "CAPBSET_DROP",
    28: "SET_SECUREBITS",
    35: "SET_MM",
    36: "SET_CHILD_SUBREAPER",
    38: "SET_NO_NEW_PRIVS",
    47: "CAP_AMBIENT",
    53: "SET_SPECULATION_CTRL",
    0x59616D61: "SET_PTRACER",
    0x53564D41: "SET_VMA",
}
FCNTL = numbered("DUPFD GETFD SETFD GETFL SETFL GETLK SETLK SETLKW SETOWN GETOWN")
FCNTL |= {1030: "DUPFD_CLOEXEC", 1033: "ADD_SEALS", 1034: "GET_SEALS"}
IOCTL = {
    0x5401: "TCGETS",
    0x5412: "TIOCSTI",
    0x5413: "TIOCGWINSZ",
    0x541B: "FIONREAD",
    0x541C: "TIOCLINUX",
    0x5421: "FIONBIO",
    0x5423: "TIOCSETD",
    0x5451: "FIOCLEX",
}
KEYCTL = numbered(
    "GET_KEYRING_ID JOIN_SESSION_KEYRING UPDATE REVOKE CHOWN SETPERM DESCRIBE CLEAR LINK UNLINK "
    "SEARCH READ"
)
BPF = numbered(
    "MAP_CREATE MAP_LOOKUP_ELEM MAP_UPDATE_ELEM MAP_DELETE_ELEM MAP_GET_NEXT_KEY PROG_LOAD"
)


def prefixed(prefix: str, names: dict[int, str]) -> dict[int, str]:
    """The kernel's full words."""
    return {number: prefix + name for number, name in names.items()}


NAMES: dict[str, dict[int, str]] = {
    "family": prefixed("AF_", FAMILIES),
    "ptrace": prefixed("PTRACE_", PTRACE),
    "prctl": prefixed("PR_", PRCTL),
    "fcntl": prefixed("F_", FCNTL),
    "ioctl": IOCTL,
    "keyctl": prefixed("KEYCTL_", KEYCTL),
    "bpf": prefixed("BPF_", BPF),
    "rlimit": {nr: f"RLIMIT_{name.strip('_').upper()}" for name, nr in RLIMITS.items()},
    "signal": {int(each): each.name for each in signal.Signals},
}


def bits_in_words(kind: str, value: int) -> str:
    """Flags by name, and what has none as a number."""
    bits, mask, names = BITS[kind]
    part = value & mask
    words = []
    if part in names:
        words.append(names[part])
    elif part:
        words.append(NAMES["signal"].get(part, hex(part)) if kind == "clone" else hex(part))
    rest = value & ~mask
    for bit, name in bits.items():
        if rest & bit:
            words.append(name)
            rest &= ~bit
    if rest or not words:
        words.append(hex(rest) if rest else "0")
    return "|".join(words)


def in_words(kind: str, value: int) -> str | None:
    """A number in words; None for a kind without any."""
    if kind in BITS:
        return bits_in_words(kind, value & 0xFFFFFFFF)
    if kind in NAMES:
        number = value & 0xFFFFFFFF
        return NAMES[kind].get(number, hex(number) if number > 9 else str(number))
    return None
