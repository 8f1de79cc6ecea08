# SPDX-License-Identifier: Apache-2.0
"""Talking with isolate-init: requests with their descriptors, records back. Layouts: the cdef."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

from attrs import frozen

from isolate import native
from isolate.abi.ops import Record, Request
from isolate.errors import IsolateError

__all__ = ["InitGone", "InitRecord", "Status", "ask", "blob_fd", "socket_pair"]

RECORD = struct.Struct("<IiIiiI15Q")
KINDS = frozenset(Record)
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

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        """For poll: readable when there is a record, or init is gone."""
        return self.fd

    def close(self) -> None:
        """Close our end; safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def receive(self, timeout: float | None = None) -> tuple[InitRecord, int | None]:
        """Wait for the next record: (record, an fd that came with it or None).

        Raises: InitGone; TimeoutError; OSError.
        """
        try:
            data, fd = native.answer(self.fd, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"isolate-init didn't answer within {timeout} s") from error
        if not data:
            raise InitGone("isolate-init ended before it answered")
        values = RECORD.unpack(data)
        if values[0] not in KINDS:
            if fd >= 0:
                os.close(fd)
            raise InitGone(f"isolate-init gave a record of no known kind: {values[0]}")
        fields = (Record(values[0]), *values[1:9], values[9:])
        record = InitRecord(*fields)
        return record, (fd if fd >= 0 else None)


def ask(
    control: socket.socket,
    request: Request,
    fds: Sequence[int] = (),
    flags: int = 0,
    serial: int = 0,
    blob: bytes | None = None,
) -> Status:
    """Send one request, with its plan if it has one; its answers come on the Status.

    Raises: InitGone; OSError.
    """
    try:
        return Status(native.ask(control.fileno(), request, flags, serial, blob, fds))
    except (BrokenPipeError, ConnectionResetError) as error:
        raise InitGone("isolate-init is gone: the box has ended") from error
