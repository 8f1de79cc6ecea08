# SPDX-License-Identifier: Apache-2.0
"""The caller's end of a program's terminal."""

from __future__ import annotations

import array
import errno
import fcntl
import io
import os
import socket
import struct
import termios
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from isolate.errors import IsolateError, PolicyError
from isolate.plan.lower.pty import SOCKET
from isolate.plan.model import Limits
from isolate.policy.command import checked_pty
from isolate.supervise.channel import socket_pair
from isolate.supervise.setup import watching

__all__ = ["Terminal", "no_other_streams", "received", "terminal_socket"]

TEXT = ("text", "universal_newlines", "encoding", "errors")


class Terminal(io.RawIOBase):
    """A master of a pseudo terminal as a file of bytes; its end is the program's last close.

    What comes out of it was written inside: don't copy it to a terminal of yours unless you trust
    its escape sequences.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd

    def fileno(self) -> int:
        """For select and poll."""
        if self.closed:
            raise ValueError("the terminal is closed")
        return self.fd

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What is there, at least one byte; 0 when nobody inside has the terminal any more."""
        try:
            return os.readv(self.fileno(), [buffer])
        except OSError as error:
            if error.errno == errno.EIO:  # Linux' way to say that the other end is closed
                return 0
            raise

    def write(self, data: Any) -> int:
        """As typed; how many bytes were taken."""
        return os.write(self.fileno(), data)

    def resize(self, rows: int, columns: int) -> None:
        """Set the window's size. Raises: PolicyError."""
        size = checked_pty((rows, columns))
        assert size is not None
        fcntl.ioctl(self.fileno(), termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        found = struct.unpack("4H", fcntl.ioctl(self.fileno(), termios.TIOCGWINSZ, bytes(8)))
        return found[0], found[1]

    def close(self) -> None:
        """Hang up; safe to call twice."""
        if not self.closed:
            super().close()
            os.close(self.fd)


def no_other_streams(stdin: Any, stdout: Any, stderr: Any, options: Mapping[str, Any]) -> None:
    """Raises: PolicyError, for streams and text beside a terminal."""
    if any(each is not None for each in (stdin, stdout, stderr)):
        raise PolicyError("with pty= the terminal is stdin, stdout and stderr: give none of them")
    wrong = [name for name in TEXT if options.get(name)]
    if wrong:
        raise PolicyError(f"a terminal gives bytes: with pty= there is no {wrong[0]}=")


def terminal_socket(names: dict[str, int], limits: Limits, theirs: ExitStack) -> socket.socket:
    """Our end of the socket that a terminal comes by; the other end's name is put to the others.

    Raises: PolicyError, where output is to be counted.
    """
    if limits.output is not None:
        raise PolicyError("output= counts what goes through pipes of ours; with pty= nothing does")
    ours, other = socket_pair()
    theirs.callback(ours.close)
    theirs.callback(other.close)
    del names["stdin"]
    names[SOCKET] = other.fileno()
    return ours


def received(sock: socket.socket) -> Terminal:
    """The terminal of a program that was started. Raises: IsolateError."""
    with watching("take the program's terminal"):
        sock.setblocking(False)
        try:
            _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            ancillary = []
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    if not fds:
        raise IsolateError("the program was started, but its terminal did not come")
    return Terminal(fds[0])
