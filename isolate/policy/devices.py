# SPDX-License-Identifier: Apache-2.0
"""Which devices may be opened: rules like "c 10:229 rw", in one form, and what two lists share.

The form is the kernel's (devices.list): a kind, numbers or "*", and rights: read, write, mknod.
Source: kernel Documentation/admin-guide/cgroup-v1/devices.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from isolate.abi.cgroup import PRIVATE_DEVICES
from isolate.errors import PolicyError

__all__ = ["device_rules", "narrow_devices"]

RULE = re.compile(r"([bc]) (\d{1,4}|\*):(\d{1,7}|\*) ([rwm]{1,3})", re.ASCII)
ACCESS = "rwm"
Place = tuple[str, str, str]  # kind, major, minor


def parse(text: Any) -> tuple[Place, frozenset[str]]:
    """Place and rights of one rule. Raises: PolicyError."""
    match = RULE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise PolicyError(f'{text!r} is no device rule like "c 10:229 rw" or "b 8:* r"')
    kind, *numbers, access = match.groups()
    major, minor = (each if each == "*" else str(int(each)) for each in numbers)
    return (kind, major, minor), frozenset(access)


def covers(wide: Place, narrow: Place) -> bool:
    """Whether all devices of one place are of the other too."""
    return all(a in ("*", b) for a, b in zip(wide, narrow, strict=True))


def canonical(rules: Iterable[tuple[Place, frozenset[str]]]) -> tuple[str, ...]:
    """One form for one meaning: rights of a place together, none that a wider place gives."""
    given: dict[Place, frozenset[str]] = {}
    for place, access in rules:
        given[place] = given.get(place, frozenset()) | access
    found = []
    for place, access in given.items():
        wider = [rights for each, rights in given.items() if each != place and covers(each, place)]
        above = frozenset().union(*wider)
        if not access <= above:
            rights = "".join(each for each in ACCESS if each in access | above)
            found.append(f"{place[0]} {place[1]}:{place[2]} {rights}")
    return tuple(sorted(found))


def device_rules(value: Any) -> tuple[str, ...] | None:
    """What is asked for and what a private /dev holds; None stays None. Raises: PolicyError."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise PolicyError(f'devices= takes a list of rules like "c 10:229 rw", not {value!r}')
    return canonical(parse(each) for each in (*PRIVATE_DEVICES, *value))


def meet(a: Place, b: Place) -> Place | None:
    """The devices that are of both places; None for none."""
    if any(x != y and "*" not in (x, y) for x, y in zip(a, b, strict=True)):
        return None
    kind, major, minor = (y if x == "*" else x for x, y in zip(a, b, strict=True))
    return kind, major, minor


def narrow_devices(a: tuple[str, ...] | None, b: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """What two lists allow together; None allows everything."""
    if a is None or b is None:
        return b if a is None else a
    pairs = [(parse(x), parse(y)) for x in a for y in b]
    shared = [(meet(x[0], y[0]), x[1] & y[1]) for x, y in pairs]
    return canonical((place, access) for place, access in shared if place and access)
