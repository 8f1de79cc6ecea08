# SPDX-License-Identifier: Apache-2.0
"""`CapabilitySet`: the five sets of a program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import field, frozen

from isolate.abi.caps import CAPABILITIES, DOCKER, names_of
from isolate.errors import PolicyError
from isolate.policy.base import Primitive

__all__ = ["CapabilitySet"]


def canonical(names: Any) -> frozenset[str]:
    """CAP_ names from any spelling. Raises: PolicyError for an unknown one."""
    found = set()
    for name in (names,) if isinstance(names, str) else names:
        full = str(name).upper()
        full = full if full.startswith("CAP_") else f"CAP_{full}"
        if full not in CAPABILITIES:
            raise PolicyError(f"unknown capability {name!r}; see capabilities(7)")
        found.add(full)
    return frozenset(found)


@frozen(init=False)
class CapabilitySet(Primitive):
    """The capabilities that a program starts with.

    Attributes:
        effective, permitted, inheritable, bounding, ambient: frozensets of "CAP_…" names.

    Positional names fill effective, permitted, inheritable, bounding and ambient, so that they
    survive exec by any uid. Raises: PolicyError. Source: capabilities(7).
    """

    effective: frozenset[str] = field()
    permitted: frozenset[str] = field()
    inheritable: frozenset[str] = field()
    bounding: frozenset[str] = field()
    ambient: frozenset[str] = field()

    def __init__(self, *names: str, **sets: Any) -> None:
        base = canonical(names)
        known = ("effective", "permitted", "inheritable", "bounding", "ambient")
        unknown = sorted(set(sets) - set(known))
        if unknown:
            raise PolicyError(f"CapabilitySet has no set {', '.join(unknown)}; it has {known}")
        values = {name: canonical(sets[name]) if name in sets else base for name in known}
        if not values["effective"] <= values["permitted"]:
            raise PolicyError("CapabilitySet.effective must lie within permitted")
        if not values["ambient"] <= values["permitted"] & values["inheritable"]:
            raise PolicyError("CapabilitySet.ambient must lie within permitted and inheritable")
        # attrs writes it: the generated __init__ takes one argument a field.
        self.__attrs_init__(**values)

    @classmethod
    def none(cls) -> CapabilitySet:
        """The empty set."""
        return cls()

    @classmethod
    def docker(cls) -> CapabilitySet:
        """The fourteen that Docker gives by default; see `isolate.abi.caps`."""
        return cls(*DOCKER)

    @classmethod
    def all(cls) -> CapabilitySet:
        """Every capability that this library knows."""
        return cls(*CAPABILITIES)

    @classmethod
    def of(cls, pid: int) -> CapabilitySet:
        """The five sets of a running process, from /proc/PID/status. Raises: OSError."""
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        bits = dict(re.findall(r"^Cap(\w+):\s*([0-9a-f]+)$", status, re.MULTILINE))
        keys = {
            "effective": "Eff",
            "permitted": "Prm",
            "inheritable": "Inh",
            "bounding": "Bnd",
            "ambient": "Amb",
        }
        return cls(**{name: names_of(int(bits[key], 16)) for name, key in keys.items()})

    def narrow(self, inner: CapabilitySet) -> CapabilitySet:
        """The intersection, set by set."""
        return CapabilitySet(
            effective=self.effective & inner.effective,
            permitted=self.permitted & inner.permitted,
            inheritable=self.inheritable & inner.inheritable,
            bounding=self.bounding & inner.bounding,
            ambient=self.ambient & inner.ambient,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("effective", "permitted", "inheritable", "bounding", "ambient")
        return rebuild, tuple(tuple(sorted(getattr(self, name))) for name in names)


def rebuild(effective: Any, permitted: Any, inheritable: Any, bounding: Any, ambient: Any) -> Any:
    """For pickle."""
    return CapabilitySet(
        effective=effective,
        permitted=permitted,
        inheritable=inheritable,
        bounding=bounding,
        ambient=ambient,
    )
