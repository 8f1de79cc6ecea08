# SPDX-License-Identifier: Apache-2.0
"""What filters may be installed with, each flag asked for by itself."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from isolate.abi.syscalls import numbers
from isolate.host import asking

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


def try_listener(seccomp: int, prctl: int) -> str:
    """Install a filter that allows everything, with a listener, in a copy of this process.

    Nothing else shows whether a filter above has a listener. Returns: why it failed; empty if it
    did not.
    """
    code = ctypes.create_string_buffer(ALLOW, len(ALLOW))
    text = struct.pack("@HP", 1, ctypes.addressof(code))
    program = ctypes.create_string_buffer(text, len(text))
    privs, fd = asking.answers(
        [
            (prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            (seccomp, SET_MODE_FILTER, NEW_LISTENER, program),
        ],
        filtered=True,
    )
    if privs is None or privs < 0:
        why = "a filter above kills for it" if privs is None else os.strerror(-privs)
        return f"no_new_privs can't be set: {why}"
    if fd is None:
        return "no listener: a filter above kills for it"
    if fd >= 0:
        return ""
    return NESTED if fd == -errno.EBUSY else f"no listener: {os.strerror(-fd)}"


def probe_flags(status: str) -> tuple[tuple[str, ...], str]:
    """(names of the flags that may be used, why no listener or "").

    With no program the kernel says EFAULT for flags that it knows, EINVAL for others.
    """
    machine = os.uname().machine
    if machine not in ("x86_64", "aarch64", "riscv64"):
        return (), "there is no table of system calls for this machine"
    table = numbers(machine)
    filtered = asking.is_filtered(status)
    calls = [(table["seccomp"], SET_MODE_FILTER, flag, 0) for flag in FLAGS.values()]
    told = zip(FLAGS, asking.answers(calls, filtered), strict=True)
    known = [name for name, answer in told if answer == -errno.EFAULT]
    if "new_listener" not in known:
        return tuple(known), "the kernel, or a filter above, knows no listeners"
    why = try_listener(table["seccomp"], table["prctl"]) if filtered else ""
    if why:
        known = [name for name in known if name not in ("new_listener", "wait_killable_recv")]
    return tuple(known), why
