# SPDX-License-Identifier: Apache-2.0
"""`Rlimit`: the sixteen limits of one process, setrlimit(2)."""

from __future__ import annotations

from typing import Any

from attrs import field, fields, frozen

from isolate.abi.flags import RLIM_INFINITY
from isolate.errors import PolicyError
from isolate.policy.base import Primitive
from isolate.policy.fields import parse_bytes

__all__ = ["INFINITY", "INHERIT", "Rlimit"]

INFINITY = RLIM_INFINITY
INHERIT = None


def pair(value: Any) -> tuple[int, int] | None:
    """(soft, hard) from a value, a "64M", or a pair. Raises: PolicyError."""
    if value is None:
        return None
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise PolicyError(f"an rlimit is a value or (soft, hard), not {value!r}")
    soft, hard = (parse_bytes(each) for each in both)
    if soft > hard or hard > RLIM_INFINITY:
        raise PolicyError(f"an rlimit's soft value may not pass its hard one: {value!r}")
    return soft, hard


@frozen(kw_only=True)
class Rlimit(Primitive):
    """Limits of each process by itself; INHERIT leaves the caller's, and so does a value above it.

    Attributes: a value for soft and hard, or (soft, hard); bytes where the kernel counts bytes
        (as_, core, data, fsize, memlock, msgqueue, rss, stack), seconds for cpu, microseconds for
        rttime, else numbers. INFINITY is no limit.

    Raises: PolicyError. Source: getrlimit(2).
    """

    as_: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    core: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    cpu: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    data: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    fsize: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    locks: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    memlock: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    msgqueue: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    nice: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    nofile: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    nproc: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    rss: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    rtprio: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    rttime: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    sigpending: tuple[int, int] | None = field(default=INHERIT, converter=pair)
    stack: tuple[int, int] | None = field(default=INHERIT, converter=pair)

    def narrow(self, inner: Rlimit) -> Rlimit:
        """The smaller of the two, soft and hard by themselves."""
        values: dict[str, Any] = {}
        for each in fields(Rlimit):
            a, b = getattr(self, each.name), getattr(inner, each.name)
            both = (min(a[0], b[0]), min(a[1], b[1])) if a and b else a or b
            values[each.name] = both
        return Rlimit(**values)
