# SPDX-License-Identifier: Apache-2.0
"""Having isolate-init run a plan's ops in itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attrs import define

from isolate.abi.ops import Request
from isolate.errors import IsolateError, LaunchError, SupervisorError
from isolate.plan.encode import Encoded, encode
from isolate.plan.hints import forbidden, hint
from isolate.plan.model import Op, Step
from isolate.supervise import channel
from isolate.supervise.channel import InitRecord, Status
from isolate.supervise.start import Init

__all__ = [
    "ANSWER_SECONDS",
    "Setup",
    "ask_set_up",
    "failure",
    "parent_step",
    "set_up",
    "watching",
]

ANSWER_SECONDS = 60.0  # for a set-up, or a start: a stopped init must not stop us
KEPT = 256
BLOBS: dict[int, tuple[tuple[Op, ...], Encoded]] = {}


def blob_of(ops: tuple[Op, ...]) -> Encoded:
    """Cached by identity, which the entry keeps: a policy's set-up is the same every time."""
    found = BLOBS.get(id(ops))
    if found is None:
        if len(BLOBS) >= KEPT:
            BLOBS.clear()
        BLOBS[id(ops)] = found = (ops, encode(ops))
    return found[1]


def failure(ops: tuple[Op, ...], step: int, error: int) -> IsolateError:
    """The error of one op, with its cause: what the machine lacks, where the op tells that."""
    op = ops[min(step, len(ops) - 1)]
    found = LaunchError(step, op, error, hint(op, error, None), steps=len(ops))
    found.__cause__ = OSError(error, os.strerror(error))
    lack = forbidden(op, error)
    if lack is None:
        return found
    lack.__cause__ = found
    return lack


@contextmanager
def parent_step(about: str) -> Iterator[None]:
    """What fails in the parent names its step, as an op does."""
    try:
        yield
    except IsolateError:
        raise
    except OSError as error:
        late = isinstance(error, TimeoutError)
        number = errno.ETIMEDOUT if late else error.errno or 0
        why = f"isolate-init didn't answer: {error}" if late else None
        raise LaunchError(0, Step(kind="ask", about=about), number, why) from error


@contextmanager
def watching(about: str) -> Iterator[None]:
    """What fails in the parent when the program may run already."""
    try:
        yield
    except IsolateError:
        raise
    except OSError as error:
        raise SupervisorError(about, error.errno or errno.EIO) from error


@define
class Setup:
    """A set-up that init was asked for; it works while the caller goes on."""

    ops: tuple[Op, ...]
    status: Status

    def settle(self) -> InitRecord:
        """Wait for its end. Raises: LaunchError naming the op; InitGone; TimeoutError."""
        try:
            record, _ = self.status.receive(ANSWER_SECONDS)
        finally:
            self.status.close()
        if record.error:
            raise failure(self.ops, record.step, record.error)
        return record


def ask_set_up(init: Init, ops: tuple[Op, ...], fds: Mapping[str, int]) -> Setup:
    """Ask init to run `ops`, with descriptors by slot name.

    Raises: InitGone; OSError.
    """
    blob = blob_of(ops)
    passed = [fds[name] for name in blob.slots]
    return Setup(ops, channel.ask(init.control, Request.SETUP, passed, blob=blob.blob))


def set_up(init: Init, ops: tuple[Op, ...], fds: Mapping[str, int]) -> InitRecord:
    """Have init run `ops`, and wait.

    Raises: LaunchError naming the op; InitGone; OSError.
    """
    return ask_set_up(init, ops, fds).settle()
