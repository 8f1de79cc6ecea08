# SPDX-License-Identifier: Apache-2.0
"""`CgroupLimit`: ceilings on what all processes of a sandbox use together."""

from __future__ import annotations

import re
from typing import Any

from attrs import field, fields, frozen
from attrs.validators import instance_of

from isolate.errors import PolicyConflict, PolicyError
from isolate.policy.base import Primitive
from isolate.policy.fields import ceiling, parse_bytes, tighter

__all__ = ["CgroupLimit", "parse_cpus"]


def parse_cpus(value: str) -> frozenset[int]:
    """The numbers of a list like "0-3,5", cpuset(7). Raises: PolicyError."""
    if not isinstance(value, str) or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
        raise PolicyError(f'{value!r} is not a list of numbers like "0-3,5"')
    found: set[int] = set()
    for part in value.split(","):
        first, _, last = part.partition("-")
        if int(last or first) > 65535 or int(first) > int(last or first):
            raise PolicyError(f"{part!r} is not a range of processors")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def canonical_cpus(value: Any) -> str | None:
    """Sorted numbers, comma-separated."""
    return None if value is None else ",".join(map(str, sorted(parse_cpus(value))))


def tighter_swap(a: CgroupLimit, b: CgroupLimit) -> int | None:
    """The smaller of two, where None beside a memory ceiling is none at all."""
    if a.memory is None and b.memory is None:
        return tighter(a.swap, b.swap)
    found = tighter(*(0 if each.memory and each.swap is None else each.swap for each in (a, b)))
    return found if found or None not in (a.swap, b.swap) else None


@frozen(kw_only=True)
class CgroupLimit(Primitive):
    """Ceilings on what all processes of the sandbox may use together.

    Attributes:
        memory: bytes or "256M"; becomes memory.max.
        memory_high: bytes above which it is slowed; memory.high.
        swap: bytes of swap besides memory; memory.swap.max. None is none, if memory is set.
        pids: tasks, at least 1; pids.max.
        cpu: processors' worth of time, 0.5 is half of one; cpu.max.
        cpu_weight: 1 to 10000; cpu.weight.
        cpuset, mems: lists like "0-3,5".
        account: whether everything that the machine can count is counted, also where it has no
            ceiling; not a ceiling itself, so that a machine without counters refuses nothing.

    Raises: PolicyError.
    Source: kernel Documentation/admin-guide/cgroup-v2.rst, "Controllers".
    """

    memory: int | None = ceiling(least=4096, convert=parse_bytes)
    memory_high: int | None = ceiling(least=4096, convert=parse_bytes)
    swap: int | None = ceiling(least=0, convert=parse_bytes)
    pids: int | None = ceiling(least=1)
    cpu: float | None = ceiling(least=0.01)
    cpu_weight: int | None = ceiling(least=1)
    cpuset: str | None = field(default=None, converter=canonical_cpus)
    mems: str | None = field(default=None, converter=canonical_cpus)
    account: bool = field(default=False, validator=instance_of(bool))

    def narrow(self, inner: CgroupLimit) -> CgroupLimit:
        """The smaller of the two, field by field; processor lists intersect."""
        values: dict[str, Any] = {}
        for each in fields(CgroupLimit):
            a, b = getattr(self, each.name), getattr(inner, each.name)
            if each.name in ("cpuset", "mems") and a is not None and b is not None:
                both = parse_cpus(a) & parse_cpus(b)
                if not both:
                    raise PolicyConflict(f"no {each.name} is in both {a!r} and {b!r}")
                values[each.name] = ",".join(map(str, sorted(both)))
            elif each.name in ("cpuset", "mems"):
                values[each.name] = a if b is None else b
            elif each.name == "account":
                values[each.name] = a or b
            elif each.name == "swap":
                values[each.name] = tighter_swap(self, inner)
            else:
                values[each.name] = tighter(a, b)
        return CgroupLimit(**values)
