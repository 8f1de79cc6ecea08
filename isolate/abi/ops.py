# SPDX-License-Identifier: Apache-2.0
"""The ops of a plan by number; the C side is `_native/isolate.cdef.h`, and a test compares them."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["MAGIC", "STEP_READY", "VERSION", "OpCode", "OpFlag", "Phase", "Record", "Request"]

MAGIC = 0x314F5349
VERSION = 1
STEP_READY = 0xFFFFFFFF


class OpCode(IntEnum):
    """One system call's work in the child, named for the call. Arguments: see the cdef."""

    JOIN_CGROUP = 1
    UNSHARE = 2
    SETNS = 3
    WRITE = 4
    SETGROUPS = 5
    SETRESGID = 6
    SETRESUID = 7
    SETHOSTNAME = 8
    SETDOMAINNAME = 9
    LOOPBACK_UP = 10
    PROPAGATION = 11
    ROOT_TMPFS = 12
    ROOT_BIND = 13
    MKDIR = 14
    FILE = 15
    SYMLINK = 16
    BIND = 17
    MOUNT_NEW = 18
    MOUNT_ATTR = 19
    MASK = 20
    PIVOT_ROOT = 21
    KEYRING = 22
    SETSID = 23
    CTTY = 24
    DUP2 = 25
    CLOSE_FROM = 26
    RLIMIT = 27
    UMASK = 28
    NICE = 29
    CHDIR = 30
    SECUREBITS = 31
    BOUNDING = 32
    CAPSET = 33
    AMBIENT = 34
    NO_NEW_PRIVS = 35
    DUMPABLE = 36
    APPARMOR = 37
    LANDLOCK_CREATE = 38
    LANDLOCK_PATH = 39
    LANDLOCK_PORT = 40
    LANDLOCK_RESTRICT = 41
    READY = 42
    SECCOMP = 43
    EXEC = 44
    PDEATHSIG = 45
    TIMENS = 46
    IDMAP = 47
    SETSCHED = 48
    SECCOMP_NOTIFY = 49
    OVERLAY = 53
    PTY = 54
    UNPACK = 55
    PLACE = 56
    ROOT_HERE = 57
    ROOT_LEAVE = 58
    LEAF = 59
    REBORN = 60
    STEWARD = 64


class OpFlag(IntFlag):
    """Bits that change how an op works; which op takes which: see the cdef."""

    OPTIONAL = 1
    RECURSIVE = 2
    FROM_ROOT = 4
    MAKE_DIR = 8
    MAKE_FILE = 16
    MAKE_ANY = 32


class Phase(IntEnum):
    """The one order of set-up: phases never go down within a plan (law 4).

    The first six run once a box, in isolate-init; the rest once a program, in its own process.
    """

    CGROUP = 0
    IDS = 1
    NAMESPACE = 2
    NETWORK = 3
    MOUNT = 4
    ROOT = 5
    SESSION = 6
    FD = 7
    LIMIT = 8
    CREDENTIALS = 9
    LSM = 10
    EXEC = 11


class Request(IntEnum):
    """What the parent may ask of isolate-init."""

    SETUP = 1
    SPAWN = 2
    END = 3
    KILL = 4
    GUARD = 5


class Record(IntEnum):
    """What isolate-init says of it."""

    SETUP = 1
    SPAWNED = 2
    EXITED = 3
    ENDED = 4
    REFUSED = 5
