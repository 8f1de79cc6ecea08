# SPDX-License-Identifier: Apache-2.0
"""Which box a `with` block of a Sandbox has opened: a Sandbox is a value, and can't hold it."""

from __future__ import annotations

import threading
from types import FrameType
from typing import Any

from attrs import frozen

from isolate.errors import IsolateError
from isolate.policy import ambient

__all__ = ["entered", "forget", "of"]


@frozen(eq=False)
class Block:
    """One that has begun.

    Attributes:
        frame: the number of the frame that it is in, which is nobody else's while it lives.
    """

    sandbox: Any
    box: Any
    frame: int


BLOCKS: list[Block] = []  # the newest last
LOCK = threading.Lock()


def entered(sandbox: Any, box: Any, frame: FrameType) -> None:
    """A block begins, in a frame."""
    with LOCK:
        BLOCKS.append(Block(sandbox, box, id(frame)))


def of(sandbox: Any, frame: FrameType) -> Any:
    """The box whose block ends.

    Blocks of generators and tasks end in any order, and sometimes in another context or thread. Of
    the blocks of one Sandbox it is the same frame's, else this context's, else the newest.

    Raises: IsolateError, if there is none.
    """
    here = ambient.collected()
    with LOCK:
        ours = [each for each in reversed(BLOCKS) if each.sandbox is sandbox]
    same = [each for each in ours if each.frame == id(frame)]
    context = [each for each in ours if any(each.box is item for item in here)]
    for block in (*same, *context, *ours):
        return block.box
    raise IsolateError("this block of a Sandbox has ended already")


def forget(box: Any) -> None:
    """Its block has ended; nothing if that is known."""
    with LOCK:
        BLOCKS[:] = [each for each in BLOCKS if each.box is not box]
