# SPDX-License-Identifier: Apache-2.0
"""`CapabilitySet` into securebits, the bounding set, and the other four."""

from __future__ import annotations

from isolate.abi.caps import mask
from isolate.abi.flags import SECBIT_NOROOT, SECBIT_NOROOT_LOCKED
from isolate.abi.ops import OpCode, Phase
from isolate.plan.lower.draft import Draft
from isolate.policy.capabilities import CapabilitySet

__all__ = ["lower_bounding", "lower_box", "lower_sets"]


def lower_box(caps: CapabilitySet, draft: Draft) -> None:
    """The bounding set of init, which each program has from it: that saves forty calls a start.

    Init keeps its rights; it execs nothing, which is where a bounding set matters.
    """
    bounding(caps, draft, Phase.ROOT)
    draft.promise("caps", "capset, and the bounding set")


def bounding(caps: CapabilitySet, draft: Draft, phase: Phase) -> None:
    """Drop what the bounding set is not to have."""
    draft.op(
        OpCode.BOUNDING, phase, "drop from the bounding set", caps, nums=(mask(caps.bounding),)
    )  # fmt: skip


def lower_bounding(caps: CapabilitySet, draft: Draft) -> None:
    """What exec could give again is dropped first: it needs CAP_SETPCAP, which goes next."""
    draft.op(
        OpCode.SECUREBITS, Phase.CREDENTIALS, "lock SECBIT_NOROOT", caps,
        nums=(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED,),
    )  # fmt: skip
    bounding(caps, draft, Phase.CREDENTIALS)


def lower_sets(caps: CapabilitySet, draft: Draft) -> None:
    """Effective, permitted and inheritable in one call; ambient after them, within them."""
    sets = (mask(caps.effective), mask(caps.permitted), mask(caps.inheritable))
    draft.op(OpCode.CAPSET, Phase.CREDENTIALS, "set capabilities", caps, nums=sets)
    draft.op(
        OpCode.AMBIENT, Phase.CREDENTIALS, "set ambient capabilities", caps,
        nums=(mask(caps.ambient),),
    )  # fmt: skip
