# SPDX-License-Identifier: Apache-2.0
"""What every primitive is: frozen data that narrows, stacks with `with`, and joins with `|`."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from isolate.policy.ambient import Scope
    from isolate.policy.policy import Policy

__all__ = ["Primitive"]

P = TypeVar("P", bound="Primitive")
T = TypeVar("T")


class Primitive:
    """One thing that a sandbox is made of; a plain value without any kernel resource.

    Subclasses are `attrs.frozen(kw_only=…)` classes. `with primitive:` only declares (law 1):
    it pushes the value on the context's stack, see `isolate.policy.ambient`.
    """

    # __weakref__ is attrs' own business (weakref_slot=True); a second one would clash.
    __slots__ = ()

    def narrow(self: P, inner: P) -> P:
        """As tight as both: never wider than either.

        Raises: PolicyConflict, where the two can't both hold.
        """
        raise NotImplementedError(f"{type(self).__name__} doesn't narrow")

    def get(self, kind: type[T]) -> T | None:
        """Itself, if it is of that kind: a primitive is a policy of one."""
        return self if type(self) is kind else None

    def __or__(self, other: Any) -> Policy:
        from isolate.policy.policy import Policy

        joined: Policy = Policy(self) | other
        return joined

    def __enter__(self) -> Scope:
        from isolate.policy import ambient

        return ambient.push(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from isolate.policy import ambient

        ambient.pop(self)
