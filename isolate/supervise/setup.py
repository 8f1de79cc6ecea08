# SPDX-License-Identifier: Apache-2.0
"""Having isolate-init run a plan's ops in itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from isolate.abi.ops import Request
from isolate.errors import IsolateError, LaunchError
from isolate.plan.encode import Encoded, encode
from isolate.plan.hints import hint
from isolate.plan.model import Op, Step
from isolate.supervise import channel
from isolate.supervise.channel import InitRecord
from isolate.supervise.start import Init

__all__ = ["ANSWER_SECONDS", "failure", "parent_step", "set_up"]

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


def failure(ops: tuple[Op, ...], step: int, error: int) -> LaunchError:
    """The error of one op, with its cause."""
    op = ops[min(step, len(ops) - 1)]
    found = LaunchError(step, op, error, hint(op, error, None), steps=len(ops))
    found.__cause__ = OSError(error, os.strerror(error))
    return found


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
        why = f"isolate-init didn't answer within {ANSWER_SECONDS} s" if late else None
        raise LaunchError(0, Step(kind="ask", about=about), number, why) from error


def set_up(init: Init, ops: tuple[Op, ...], fds: Mapping[str, int]) -> InitRecord:
    """Have init run `ops`, with descriptors by slot name.

    Raises: LaunchError naming the op; InitGone; OSError.
    """
    blob = blob_of(ops)
    fd = channel.blob_fd(blob.blob)
    try:
        passed = [fd, *(fds[name] for name in blob.slots)]
        status = channel.ask(init.control, Request.SETUP, passed)
    finally:
        os.close(fd)
    try:
        record, _ = status.receive(ANSWER_SECONDS)
    finally:
        status.close()
    if record.error:
        raise failure(ops, record.step, record.error)
    return record
