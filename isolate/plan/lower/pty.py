# SPDX-License-Identifier: Apache-2.0
"""A terminal for one program, of the devpts that its box has mounted for itself."""

from __future__ import annotations

from isolate.abi.ops import OpCode, Phase
from isolate.errors import HostLacks
from isolate.plan.lower.draft import Draft, encoded
from isolate.plan.model import Plan
from isolate.policy.identity import Identity

__all__ = ["SOCKET", "TERMINAL", "lower"]

SOCKET = "pty"
TERMINAL = "temp:terminal"
HINT = "give the root a /dev: Mount.dev(), which Sandbox() and Chroot.host_view() have"


def devpts(box: Plan) -> str | None:
    """Where the box has a devpts of its own; None if it would find the host's."""
    for op in (*box.template, *box.setup):
        if op.code is OpCode.MOUNT_NEW and op.strs[0] == b"devpts":
            target = op.strs[2]
            return target.decode("utf-8", "surrogateescape") if isinstance(target, bytes) else None
    return None


def lower(size: tuple[int, int], draft: Draft, box: Plan) -> None:
    """Open one, send its master to the caller, keep the other end.

    Raises: HostLacks.
    """
    where = devpts(box)
    if where is None:
        raise HostLacks("pty", "the box has no devpts of its own", HINT)
    identity = draft.policy.get(Identity) if draft.reserved_ids else None
    owner = (identity.uid + 1, identity.gid + 1) if identity else (0, 0)
    rows, columns = size
    draft.op(
        OpCode.PTY, Phase.FD, f"open a terminal of {where}", "launch",
        encoded(f"{where}/ptmx"), slots=(SOCKET, TERMINAL),
        nums=(rows << 16 | columns, *owner),
    )  # fmt: skip
