# SPDX-License-Identifier: Apache-2.0
"""Inside the box: a fork server for calls. Loaded by file, so it imports nothing else of isolate.

One message on fd 3 is one call, with four descriptors: the pickled call, the reply pipe, stdout and
stderr; and a fifth, on which the call's keeper (not the call) reports its exit status.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import select
import socket
import sys
import traceback
from typing import Any

CONTROL_FD = 3
PR_SET_DUMPABLE = 4
MAX_TEXT = 10_000
MESSAGE = 16
MAX_IDLE = 16


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


def arguments(error: BaseException) -> tuple[Any, ...]:
    """What the exception was made of; an OSError's file names are not among its args."""
    names = [getattr(error, each, None) for each in ("filename", "filename2")]
    if not isinstance(error, OSError) or len(error.args) != 2 or names == [None, None]:
        return tuple(error.args)
    return (*error.args, names[0], *([None, names[1]] if names[1] is not None else []))


def clean(text: str) -> str:
    """Text without what no reply can hold: lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def failed(wire: Any, error: BaseException) -> bytes:
    """An exception as bounded text, with its arguments where those are plain."""
    kind = type(error)
    text = "".join(traceback.format_exception(kind, error, error.__traceback__))
    head = ["x", f"{kind.__module__}.{kind.__qualname__}"]
    try:
        tail = [clean(str(error))[:MAX_TEXT], clean(text)[-MAX_TEXT:]]
        args = arguments(error)
        plain = all(isinstance(each, (str, int, float, bytes, type(None))) for each in args)
        short = plain and len(repr(args)) < MAX_TEXT
        try:
            return bytes(wire.encode([*head, args if short else None, *tail]))
        except ValueError:  # text in it that has no form
            return bytes(wire.encode([*head, None, *tail]))
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


class Server:
    """Hands each call to a keeper that is idle, or to a new one."""

    def __init__(self, wire: Any, keeper: Any) -> None:
        self.wire, self.keeper = wire, keeper
        self.keepers: dict[int, tuple[socket.socket, int]] = {}
        self.idle: list[int] = []

    def start(self, held: list[int]) -> int:
        """Fork a keeper, which gets what is held by a message of its own: the descriptor that it
        is known by."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            os.close(CONTROL_FD)
            ours.close()
            for other, _ in self.keepers.values():
                other.close()
            for fd in held:
                os.close(fd)
            self.keeper.main(theirs, lambda fds: child(self.wire, fds))
        theirs.close()
        self.keepers[ours.fileno()] = (ours, pid)
        return ours.fileno()

    def hand_over(self, message: bytes, fds: list[int]) -> None:
        """One call; a keeper that died while it was idle is passed over."""
        try:
            while self.idle:
                fd = self.idle.pop()
                try:
                    socket.send_fds(self.keepers[fd][0], [message], fds)
                    return
                except (BrokenPipeError, ConnectionResetError):
                    self.forget(fd)
            socket.send_fds(self.keepers[self.start(fds)][0], [message], fds)
        finally:
            for fd in fds:
                os.close(fd)

    def forget(self, fd: int) -> None:
        """A keeper that is gone, or that has orphans to wait for."""
        self.keepers.pop(fd)[0].close()

    def news(self, fd: int) -> None:
        """A keeper is idle again, or gone."""
        try:
            message = self.keepers[fd][0].recv(MESSAGE)
        except ConnectionResetError:
            message = b""
        if message and len(self.idle) < MAX_IDLE:
            self.idle.append(fd)
        else:
            self.idle = [each for each in self.idle if each != fd]
            self.forget(fd)

    def reap(self) -> None:
        """Keepers that have ended."""
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return

    def loop(self, control: socket.socket) -> None:
        """Until the caller closes its end."""
        while True:
            poller = select.poll()
            for fd in (CONTROL_FD, *self.keepers):
                poller.register(fd, select.POLLIN)
            for fd, _ in poller.poll():
                if fd in self.keepers:
                    self.news(fd)
                elif fd == CONTROL_FD:
                    message, fds, _, _ = socket.recv_fds(control, MESSAGE, 5)
                    if not message:
                        return
                    self.hand_over(message, list(fds))
            self.reap()


def serve(wire: Any, keeper: Any, path: list[str]) -> None:
    """Serve calls until the caller closes its end."""
    set_dumpable(0)
    sys.path.extend(entry for entry in path if entry not in sys.path)
    import cloudpickle  # noqa: F401  once, before the forks

    Server(wire, keeper).loop(socket.socket(fileno=CONTROL_FD))
