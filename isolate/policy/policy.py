# SPDX-License-Identifier: Apache-2.0
"""`Policy`: primitives put together, each kind once, narrowed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from attrs import field, frozen

from isolate.errors import PolicyConflict, PolicyError
from isolate.policy.base import Primitive
from isolate.policy.mount import Mount

__all__ = ["Policy"]

T = TypeVar("T", bound=Primitive)


def flattened(items: Iterable[Any]) -> Iterator[Primitive]:
    """Primitives, also those of policies among them. Raises: PolicyError."""
    for item in items:
        if isinstance(item, Policy):
            yield from item.primitives
        elif isinstance(item, Primitive):
            yield item
        else:
            raise PolicyError(f"a policy is made of primitives, not of {item!r}")


def narrowed(items: Iterable[Any]) -> tuple[Primitive, ...]:
    """Each kind once; mounts by target, in order. Raises: PolicyConflict."""
    found: dict[Any, Primitive] = {}
    for item in flattened(items):
        key = (Mount, item.target) if isinstance(item, Mount) else type(item)
        found[key] = found[key].narrow(item) if key in found else item
    return tuple(found.values())


@frozen(init=False)
class Policy:
    """What the user wants, as one value.

    Attributes:
        primitives: each kind once, mounts in order.
        weaken: names of guarantees that this machine may hold less well than asked.

    Raises: PolicyConflict, where two can't both hold.
    """

    primitives: tuple[Primitive, ...] = field()
    weaken: frozenset[str] = field(default=frozenset())

    def __init__(self, *items: Any, weaken: Iterable[str] = ()) -> None:
        if isinstance(weaken, str):
            weaken = (weaken,)
        # attrs' generated initialiser, under the name that init=False gives it.
        self.__attrs_init__(narrowed(items), frozenset(weaken))

    def get(self, kind: type[T]) -> T | None:
        """The primitive of that kind, or None."""
        for item in self.primitives:
            if type(item) is kind:
                return item
        return None

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """All bare mounts, in order."""
        return tuple(item for item in self.primitives if isinstance(item, Mount))

    def __iter__(self) -> Iterator[Primitive]:
        return iter(self.primitives)

    def __or__(self, other: Any) -> Policy:
        """Both: never wider than either; what may be weakened is what both allow."""
        if isinstance(other, Policy):
            return Policy(self, other, weaken=self.weaken & other.weaken)
        if isinstance(other, Primitive):
            return Policy(self, other, weaken=self.weaken)
        raise PolicyConflict(f"a policy can't be joined with {other!r}")

    def explain(self, operation: str, path: str) -> Any:
        """Which layers let a fresh box's program "read", "write", "execute" or "create" a path.

        Returns: an Answer: `.allowed` is True, False, or None where only a run could tell;
            `.layers` say each why; as text it is a table. Nothing is run.
        """
        from isolate.policy import ambient

        return ambient.verb("explain_access")(self, operation, path)

    def dumps(self, format: str = "toml") -> str:
        """As the text of a policy file, "toml" or "json". Raises: PolicyError."""
        from isolate.policy import codec

        return codec.dumps(self, format)

    @classmethod
    def loads(cls, text: str, format: str = "toml") -> Policy:
        """From such a text. Raises: PolicyError with all mistakes, each with its key."""
        from isolate.policy import codec

        return codec.loads(text, format)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """From a file, by its ending. Raises: PolicyError with all mistakes; OSError."""
        from isolate.policy import codec

        return codec.load(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.primitives, tuple(sorted(self.weaken)))


def rebuild(primitives: tuple[Primitive, ...], weaken: tuple[str, ...]) -> Policy:
    """For pickle."""
    return Policy(*primitives, weaken=weaken)
