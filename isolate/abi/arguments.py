# SPDX-License-Identifier: Apache-2.0
"""Which arguments the kernel takes as 32 bits, though a filter is shown 64 of them.

Of an `int` or `unsigned int` the upper half is dropped before anybody looks at it, so a filter that
compares all 64 bits can be passed by. Calls that are not listed are not known to have any.

Source: the SYSCALL_DEFINE macros of Linux 6.17 (net/socket.c, fs/ioctl.c, kernel/exec_domain.c, …).
"""

from __future__ import annotations

__all__ = ["WORDS32", "WORDS64", "is_32_bit", "is_64_bit"]

# call -> its arguments of 32 bits. Those of 64 follow in WORDS64: a call's others may be absent.
WORDS32: dict[str, tuple[int, ...]] = {
    "accept4": (0, 3),
    "bpf": (0, 2),
    "chmod": (1,),
    "clone": (0,),  # an unsigned long, of which kernel_clone is given the lower half
    "fchmod": (0, 1),
    "fchmodat": (0, 2),
    "fcntl": (0, 1),
    "futex": (1, 2, 5),
    "ioctl": (0, 1),
    "io_uring_register": (0, 1, 3),
    "io_uring_setup": (0,),
    "kcmp": (0, 1, 2),
    "keyctl": (0,),
    "kill": (0, 1),
    "landlock_create_ruleset": (2,),
    "madvise": (2,),
    "memfd_create": (1,),
    "mknod": (1, 2),
    "mknodat": (0, 2, 3),
    "open": (1, 2),
    "openat": (0, 2, 3),
    "perf_event_open": (1, 2, 3),
    "personality": (0,),
    "pidfd_open": (0, 1),
    "pidfd_send_signal": (0, 1, 3),
    "prctl": (0,),
    "prlimit64": (0, 1),
    "quotactl": (0, 2),
    "reboot": (0, 1, 2),
    "sched_setscheduler": (0, 1),
    "seccomp": (0, 1),
    "sendto": (0, 3, 5),
    "setns": (0, 1),
    "setpriority": (0, 1, 2),
    "setsockopt": (0, 1, 2, 4),
    "shmctl": (0, 1),
    "socket": (0, 1, 2),
    "socketpair": (0, 1, 2),
    "tgkill": (0, 1, 2),
    "tkill": (0, 1),
    "userfaultfd": (0,),
    "wait4": (0, 2),
}
# call -> its arguments of which every bit counts: pointers, lengths, offsets, longs.
WORDS64: dict[str, tuple[int, ...]] = {
    "bpf": (1,),
    "fcntl": (2,),
    "futex": (0, 3, 4),
    "ioctl": (2,),
    "keyctl": (1, 2, 3, 4),
    "madvise": (0, 1),
    "mmap": (0, 1, 2, 3, 4, 5),
    "mprotect": (0, 1, 2),
    "prctl": (1, 2, 3, 4),
    "prlimit64": (2, 3),
    "ptrace": (0, 1, 2, 3),
    "seccomp": (2,),
    "sendto": (1, 2, 4),
    "setsockopt": (3,),
    "unshare": (0,),
}


def is_32_bit(call: str, index: int) -> bool:
    """Whether the kernel is known to drop the upper half of an argument."""
    return index in WORDS32.get(call, ())


def is_64_bit(call: str, index: int) -> bool:
    """Whether the kernel is known to look at all of it."""
    return index in WORDS64.get(call, ())
