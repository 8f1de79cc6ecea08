# SPDX-License-Identifier: Apache-2.0
"""Inside the box: a fork server for calls. Loaded by file, so it imports nothing else of isolate.

One message on fd 3 is one call, with four descriptors: the pickled call, the reply pipe, stdout and
stderr; and a fifth, on which the server (not the call) reports pid and exit status.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import select
import socket
import struct
import sys
import traceback
from typing import Any

CONTROL_FD = 3
PR_SET_DUMPABLE = 4
MAX_TEXT = 10_000


def set_dumpable(value: int) -> None:
    """Out of reach of ptrace and /proc/PID/mem, or in. Raises: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def write_all(fd: int, data: bytes) -> None:
    """All of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def refuse(fn: Any, result: Any) -> None:
    """What can't come back as data. Raises: TypeError."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"{fn!r} is a coroutine function; call one that runs it: asyncio.run(...)")
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(f"{fn!r} gave a generator, which lives inside; return list(...) of it")


def failed(wire: Any, error: BaseException) -> bytes:
    """An exception as bounded text, with its arguments where those are plain."""
    kind = type(error)
    text = "".join(traceback.format_exception(kind, error, error.__traceback__))
    head = ["x", f"{kind.__module__}.{kind.__qualname__}"]
    tail = [str(error)[:MAX_TEXT], text[-MAX_TEXT:]]
    try:
        plain = all(isinstance(each, (str, int, float, bytes, type(None))) for each in error.args)
        args = tuple(error.args) if plain and len(repr(error.args)) < MAX_TEXT else None
        return bytes(wire.encode([*head, args, *tail]))
    except Exception:  # an error that can't even be described: its class is said all the same
        return bytes(wire.encode([*head, None, "", ""]))


def perform(wire: Any, payload_fd: int) -> bytes:
    """Run one call; the bytes of its reply."""
    try:
        import cloudpickle

        with open(payload_fd, "rb") as file:
            fn, args, kw, allowed = cloudpickle.load(file)
        result = fn(*args, **kw)
        refuse(fn, result)
        return bytes(wire.encode(["v", result], allowed))
    except BaseException as error:  # SystemExit and KeyboardInterrupt are answers as well
        return failed(wire, error)


def child(wire: Any, fds: list[int]) -> None:
    """The process of one call; never returns."""
    payload, reply, out, err, status = fds
    code = 1
    try:
        os.close(status)
        os.close(CONTROL_FD)
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.close(out)
        os.close(err)
        set_dumpable(1)
        data = perform(wire, payload)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        write_all(reply, data)
        code = 0
    finally:
        os._exit(code)


def start(wire: Any, control: socket.socket, fds: list[int], others: dict[int, Any]) -> None:
    """Fork one call, and tell its pidfd; first that it is taken: from here it may have run."""
    status = socket.socket(fileno=fds[4])
    status.send(b"t")
    pid = os.fork()
    if pid == 0:
        for pidfd, (_, other) in others.items():
            os.close(pidfd)
            other.close()
        control.detach()
        status.detach()
        child(wire, fds)
    for fd in fds[:4]:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    socket.send_fds(status, [b"p"], [pidfd])
    others[pidfd] = (pid, status)


def finish(pidfd: int, running: dict[int, Any]) -> None:
    """Reap one call, and report how it ended."""
    pid, status = running.pop(pidfd)
    _, code, usage = os.wait4(pid, 0)
    try:
        status.send(struct.pack("<cidd", b"s", code, usage.ru_utime, usage.ru_stime))
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the caller has stopped waiting; nobody is left to tell
    status.close()
    os.close(pidfd)


def serve(wire: Any, path: list[str]) -> None:
    """Serve calls until the caller closes its end."""
    set_dumpable(0)
    sys.path.extend(entry for entry in path if entry not in sys.path)
    import cloudpickle  # noqa: F401  once, before the forks

    control = socket.socket(fileno=CONTROL_FD)
    running: dict[int, Any] = {}
    while True:
        poller = select.poll()
        for fd in (CONTROL_FD, *running):
            poller.register(fd, select.POLLIN)
        for fd, _ in poller.poll():
            if fd != CONTROL_FD:
                finish(fd, running)
                continue
            message, fds, _, _ = socket.recv_fds(control, 16, 5)
            if not message:
                return
            start(wire, control, list(fds), running)
