# SPDX-License-Identifier: Apache-2.0
"""`CgroupLimit`: ceilings on what all processes of a sandbox use together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import field, fields, frozen
from attrs.validators import instance_of

from isolate.errors import PolicyConflict, PolicyError
from isolate.policy.base import Primitive
from isolate.policy.devices import device_rules, narrow_devices
from isolate.policy.fields import at_least, ceiling, parse_bytes, parse_seconds, text, tighter

__all__ = ["PERIOD", "CgroupLimit", "HugetlbLimit", "IoLimit", "parse_cpus"]

PERIOD = 0.1  # seconds: what `cpu` is a share of (cpu.max, cpu.cfs_period_us)
DEVICE = re.compile(r"\d{1,4}:\d{1,7}")
LISTS = ("cpuset", "mems")


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


def weight() -> Any:
    """A field for a share among siblings, 1 to 10000; 100 is what others have."""
    check = at_least(1)

    def whole(owner: object, attribute: Any, value: Any) -> None:
        check(owner, attribute, value)
        if value is not None and (value > 10000 or value != int(value)):
            raise PolicyError(f"CgroupLimit.{attribute.name} is 1 to 10000, not {value!r}")

    return field(default=None, validator=whole)


@frozen(kw_only=True, order=True)
class IoLimit:
    """Ceilings on one block device.

    Attributes:
        device: "MAJOR:MINOR", the path of a block device, or of a file on one (its disk).
        read_bps, write_bps: bytes a second, or "1M".
        read_iops, write_iops: operations a second.

    Raises: PolicyError.
    """

    device: str
    read_bps: int | None = ceiling(least=1, convert=parse_bytes)
    write_bps: int | None = ceiling(least=1, convert=parse_bytes)
    read_iops: int | None = ceiling(least=1)
    write_iops: int | None = ceiling(least=1)

    def __attrs_post_init__(self) -> None:
        name = text(self.device, "IoLimit.device")
        if not DEVICE.fullmatch(name) and not name.startswith("/"):
            raise PolicyError(f'a device is "MAJOR:MINOR" or an absolute path, not {name!r}')
        if all(getattr(self, each) is None for each in RATES):
            raise PolicyError(f"IoLimit for {name} limits nothing; it has {', '.join(RATES)}")

    def narrow(self, inner: IoLimit) -> IoLimit:
        """The smaller of the two, rate by rate."""
        rates = {each: tighter(getattr(self, each), getattr(inner, each)) for each in RATES}
        return IoLimit(device=self.device, **rates)


RATES = ("read_bps", "write_bps", "read_iops", "write_iops")


@frozen(kw_only=True, order=True)
class HugetlbLimit:
    """A ceiling on huge pages of one size.

    Attributes:
        page: bytes of one page, or "2M".
        limit: bytes of all of them together.

    Raises: PolicyError.
    """

    page: int = field(converter=parse_bytes, validator=at_least(4096))
    limit: int = field(converter=parse_bytes, validator=at_least(0))

    def narrow(self, inner: HugetlbLimit) -> HugetlbLimit:
        """The smaller of the two."""
        return HugetlbLimit(page=self.page, limit=min(self.limit, inner.limit))


def io_limits(value: Any) -> tuple[IoLimit, ...]:
    """From {"8:0": {"read_bps": "1M"}}, or IoLimits. Raises: PolicyError."""
    if isinstance(value, Mapping):
        value = [
            each if isinstance(each, IoLimit) else IoLimit(device=name, **each)
            for name, each in value.items()
        ]
    return merged((value,) if isinstance(value, IoLimit) else value, IoLimit, by_device)


def hugetlb_limits(value: Any) -> tuple[HugetlbLimit, ...]:
    """From {"2M": "64M"}, or HugetlbLimits. Raises: PolicyError."""
    if isinstance(value, Mapping):
        value = [HugetlbLimit(page=page, limit=limit) for page, limit in value.items()]
    return merged((value,) if isinstance(value, HugetlbLimit) else value, HugetlbLimit, by_page)


def by_device(item: IoLimit) -> str:
    """What two limits of one device share."""
    return item.device


def by_page(item: HugetlbLimit) -> int:
    """What two limits of one page size share."""
    return item.page


def merged(items: Iterable[Any], kind: type[Any], key: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Sorted, one for each key; two for the same are narrowed. Raises: PolicyError."""
    found: dict[Any, Any] = {}
    for item in items or ():
        if not isinstance(item, kind):
            raise PolicyError(f"{item!r} is no {kind.__name__}")
        name = key(item)
        found[name] = found[name].narrow(item) if name in found else item
    return tuple(found[name] for name in sorted(found))


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
        memory: bytes or "256M"; memory.max.
        memory_high: bytes above which it is slowed and reclaimed; memory.high.
        memory_low, memory_min: bytes that are not taken from it, if possible and in any case.
        swap: bytes of swap besides memory; memory.swap.max. None is none, if memory is set.
        pids: tasks, at least 1; pids.max.
        cpu: processors' worth of time, 0.5 is half of one; cpu.max.
        cpu_burst: seconds that may be saved up and spent at once, at most one period's share
            (0.1 s * cpu); cpu.max.burst.
        cpu_weight: 1 to 10000, 100 is the others'; cpu.weight.
        cpuset, mems: lists like "0-3,5".
        io: limits by device: {"/dev/vda": {"write_bps": "1M"}}; io.max.
        io_weight: 1 to 10000; io.weight, io.bfq.weight.
        hugetlb: bytes by page size: {"2M": "64M"}; hugetlb.2MB.max.
        devices: rules like "c 10:229 rw" (b or c, numbers or *, read write mknod) for what may be
            opened besides null, zero, full, random, urandom, tty, ptmx and pts: nothing else;
            None asks for nothing. devices.allow on v1; elsewhere the box's mounts hold it.
        account: whether everything that the machine can count is counted, also where it has no
            ceiling; not a ceiling itself, so that a machine without counters refuses nothing.

    Raises: PolicyError.
    Source: kernel Documentation/admin-guide/cgroup-v2.rst, "Controllers".
    """

    memory: int | None = ceiling(least=4096, convert=parse_bytes)
    memory_high: int | None = ceiling(least=4096, convert=parse_bytes)
    memory_low: int | None = ceiling(least=0, convert=parse_bytes)
    memory_min: int | None = ceiling(least=0, convert=parse_bytes)
    swap: int | None = ceiling(least=0, convert=parse_bytes)
    pids: int | None = ceiling(least=1)
    cpu: float | None = ceiling(least=0.01)
    cpu_burst: float | None = ceiling(least=0.0, convert=parse_seconds)
    cpu_weight: int | None = weight()
    cpuset: str | None = field(default=None, converter=canonical_cpus)
    mems: str | None = field(default=None, converter=canonical_cpus)
    io: tuple[IoLimit, ...] = field(default=(), converter=io_limits)
    io_weight: int | None = weight()
    hugetlb: tuple[HugetlbLimit, ...] = field(default=(), converter=hugetlb_limits)
    devices: tuple[str, ...] | None = field(default=None, converter=device_rules)
    account: bool = field(default=False, validator=instance_of(bool))

    def __attrs_post_init__(self) -> None:
        if self.cpu_burst is not None:
            if self.cpu is None:
                raise PolicyError("CgroupLimit.cpu_burst is saved up from cpu=, which is not given")
            if self.cpu_burst > self.cpu * PERIOD + 1e-9:
                most = f"cpu={self.cpu} allows {self.cpu * PERIOD:g} s"
                raise PolicyError(f"CgroupLimit.cpu_burst is at most a period's share: {most}")

    def given(self, *names: str) -> bool:
        """Whether any of these fields is set."""
        return any(getattr(self, name) not in (None, ()) for name in names)

    def narrow(self, inner: CgroupLimit) -> CgroupLimit:
        """The smaller of the two, field by field; processor lists intersect."""
        values: dict[str, Any] = {}
        for each in fields(CgroupLimit):
            a, b = getattr(self, each.name), getattr(inner, each.name)
            if each.name in LISTS and a is not None and b is not None:
                both = parse_cpus(a) & parse_cpus(b)
                if not both:
                    raise PolicyConflict(f"no {each.name} is in both {a!r} and {b!r}")
                values[each.name] = ",".join(map(str, sorted(both)))
            elif each.name in LISTS:
                values[each.name] = a if b is None else b
            elif each.name in ("io", "hugetlb"):
                values[each.name] = (*a, *b)  # the converter narrows what is there twice
            elif each.name == "devices":
                values[each.name] = narrow_devices(a, b)
            elif each.name == "account":
                values[each.name] = a or b
            elif each.name == "swap":
                values[each.name] = tighter_swap(self, inner)
            else:
                values[each.name] = tighter(a, b)
        if values["cpu_burst"] is not None:
            values["cpu_burst"] = min(values["cpu_burst"], values["cpu"] * PERIOD)
        return CgroupLimit(**values)
