# SPDX-License-Identifier: Apache-2.0
"""Talking with isolate-init: requests with their descriptors, records back. Layouts: the cdef."""

from __future__ import annotations

import array
import os
import select
import socket
import struct
from collections.abc import Sequence

from attrs import frozen

from isolate.abi.ops import Record, Request
from isolate.errors import IsolateError

__all__ = ["InitGone", "InitRecord", "Status", "ask", "blob_fd", "socket_pair"]

REQUEST = struct.Struct("<4I")
RECORD = struct.Struct("<IiIiiI15Q")
SPAWN_LAST = 1
SPAWN_CGROUP = 2
SPAWN_KEPT = 4


class InitGone(IsolateError):
    """isolate-init ended before it answered: it was killed, or the box is closed."""


@frozen
class InitRecord:
    """One record; see struct iso_record. Times in microseconds, `at_ns` of CLOCK_MONOTONIC."""

    type: Record
    pid: int
    step: int
    error: int
    status: int
    max_rss_kib: int
    user_us: int
    system_us: int
    at_ns: int
    phase_ns: tuple[int, ...]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a SEQPACKET socket, CLOEXEC."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def blob_fd(blob: bytes) -> int:
    """A memfd that holds a plan."""
    fd = os.memfd_create("isolate-plan", os.MFD_CLOEXEC)
    try:
        view = memoryview(blob)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


class Status:
    """Our end of one request's status socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        """For poll: readable when there is a record, or init is gone."""
        return self.sock.fileno()

    def close(self) -> None:
        """Close our end."""
        self.sock.close()

    def receive(self, timeout: float | None = None) -> tuple[InitRecord, int | None]:
        """Wait for the next record: (record, an fd that came with it or None).

        Raises: InitGone; TimeoutError.
        """
        if timeout is not None:
            poller = select.poll()
            poller.register(self.sock, select.POLLIN)
            if not poller.poll(max(0, int(timeout * 1000))):
                raise TimeoutError(f"isolate-init didn't answer within {timeout} s")
        try:
            data, ancillary, _, _ = self.sock.recvmsg(
                RECORD.size, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            data, ancillary = b"", []
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if len(data) != RECORD.size:
            raise InitGone("isolate-init ended before it answered")
        values = RECORD.unpack(data)
        fields = (Record(values[0]), *values[1:9], values[9:])
        record = InitRecord(*fields)
        return record, (fds[0] if fds else None)


def ask(
    control: socket.socket,
    request: Request,
    fds: Sequence[int] = (),
    flags: int = 0,
    serial: int = 0,
) -> Status:
    """Send one request; its answers come on the Status that is returned.

    Raises: InitGone.
    """
    ours, theirs = socket_pair()
    try:
        passed = array.array("i", [theirs.fileno(), *fds])
        head = REQUEST.pack(request, flags, len(passed), serial)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]
        control.sendmsg([head], rights, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError) as error:
        ours.close()
        raise InitGone("isolate-init is gone: the box has ended") from error
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Status(ours)
