# SPDX-License-Identifier: Apache-2.0
"""`Network` into links: in a new network namespace there is lo, and it is down."""

from __future__ import annotations

from isolate.abi.ops import OpCode, Phase
from isolate.plan.lower.draft import Draft
from isolate.policy.network import Network

__all__ = ["lower"]


def lower(network: Network, draft: Draft) -> None:
    """Bring lo up where it is the box's own; nothing else is ever there."""
    if draft.new("net") and network.kind == "loopback":
        draft.op(OpCode.LOOPBACK_UP, Phase.NETWORK, "bring lo up", network)
