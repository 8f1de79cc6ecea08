# SPDX-License-Identifier: Apache-2.0
"""`Network`: what of a network is there inside."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from isolate.errors import PolicyError
from isolate.policy.base import Primitive

__all__ = ["Network"]

WIDTH = {"none": 0, "loopback": 1, "host": 2}


def known(owner: object, attribute: Any, value: Any) -> None:
    """An attrs validator. Raises: PolicyError."""
    if value not in WIDTH:
        raise PolicyError(f"Network must be one of {', '.join(WIDTH)}, not {value!r}")


@frozen
class Network(Primitive):
    """The links that exist inside.

    Attributes:
        kind: "none" (lo is down), "loopback" (lo of its own is up), "host" (the caller's).

    Raises: PolicyError. Source: network_namespaces(7).
    """

    kind: str = field(validator=known)

    @classmethod
    def none(cls) -> Network:
        """No link is up, not even lo."""
        return cls("none")

    @classmethod
    def loopback(cls) -> Network:
        """A loopback of its own, and nothing else."""
        return cls("loopback")

    @classmethod
    def host(cls) -> Network:
        """The caller's network; a Sandbox takes it only with allow.HostNetwork()."""
        return cls("host")

    def narrow(self, inner: Network) -> Network:
        """The one that reaches less."""
        return self if WIDTH[self.kind] <= WIDTH[inner.kind] else inner
