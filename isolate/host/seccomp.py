# SPDX-License-Identifier: Apache-2.0
"""What filters may be installed with, each flag asked for by itself."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading

from isolate.abi.syscalls import numbers

__all__ = ["probe_flags"]

SET_MODE_FILTER = 1
NEW_LISTENER = 8
FLAGS = {
    "tsync": 1,
    "spec_allow": 4,
    "new_listener": NEW_LISTENER,
    "wait_killable_recv": NEW_LISTENER | 32,  # the kernel takes it with a listener only
}
PR_SET_NO_NEW_PRIVS = 38
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
NESTED = "a filter that this process is under has a listener already; there can be one only"


def call(flags: int, program: object) -> tuple[int, int]:
    """seccomp(SET_MODE_FILTER): (result, errno)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number = numbers(os.uname().machine)["seccomp"]
    result = libc.syscall(
        ctypes.c_long(number), ctypes.c_ulong(SET_MODE_FILTER), ctypes.c_ulong(flags), program
    )
    return int(result), ctypes.get_errno()


def is_filtered(status: str) -> bool:
    """Whether this process is under a filter, by /proc/self/status."""
    for line in status.splitlines():
        if line.startswith("Seccomp:"):
            return line.split()[1] != "0"
    return False


def try_listener() -> str:
    """Install a filter that allows everything, with a listener, on a thread that ends then.

    Nothing else shows whether a filter above has a listener. Only for that thread: filters and
    no_new_privs are per thread. Returns: why it failed; empty if it did not.
    """
    told: list[str] = []

    def attempt() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            told.append(f"no_new_privs can't be set: {os.strerror(ctypes.get_errno())}")
            return
        code = ctypes.create_string_buffer(ALLOW, len(ALLOW))
        program = struct.pack("@HP", 1, ctypes.addressof(code))
        fd, error = call(NEW_LISTENER, ctypes.create_string_buffer(program, len(program)))
        if fd >= 0:
            os.close(fd)
            told.append("")
        else:
            told.append(NESTED if error == errno.EBUSY else f"no listener: {os.strerror(error)}")

    thread = threading.Thread(target=attempt, name="isolate-probe")
    thread.start()
    thread.join()
    return told[0] if told else "the probe of a listener failed"


def probe_flags(status: str) -> tuple[tuple[str, ...], str]:
    """(names of the flags that may be used, why no listener or "").

    With no program the kernel says EFAULT for flags that it knows, EINVAL for others.
    """
    if os.uname().machine not in ("x86_64", "aarch64", "riscv64"):
        return (), "there is no table of system calls for this machine"
    known = [name for name, flag in FLAGS.items() if call(flag, None)[1] == errno.EFAULT]
    if "new_listener" not in known:
        return tuple(known), "the kernel, or a filter above, knows no listeners"
    why = try_listener() if is_filtered(status) else ""
    if why:
        known = [name for name in known if name not in ("new_listener", "wait_killable_recv")]
    return tuple(known), why
