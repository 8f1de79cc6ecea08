# SPDX-License-Identifier: Apache-2.0
"""The plan while it is being written: ops by phase, steps, guarantees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import Factory, define

from isolate.abi.flags import NAMESPACES
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.errors import HostLacks
from isolate.host.facts import Host
from isolate.plan.model import Guarantee, Item, Op, Step, Verdict, Watch
from isolate.policy.namespace import Namespace
from isolate.policy.policy import Policy

__all__ = ["Draft"]

BOX_PHASES = 6


@define
class Draft:
    """Collects what each primitive is lowered to; `compile` puts it in phase order."""

    policy: Policy
    host: Host
    ops: list[Op] = Factory(list)
    joining: list[Op] = Factory(list)
    steps: list[Step] = Factory(list)
    guarantees: list[Guarantee] = Factory(list)
    template: list[Op] = Factory(list)
    clone_flags: int = 0
    reserved_ids: bool = False
    has_template: bool = False
    in_template: bool = False
    trees: int = 0
    watch: Watch | None = None

    def op(
        self,
        code: OpCode,
        phase: Phase,
        about: str,
        origin: Any,
        *strs: Item,
        nums: tuple[int, ...] = (),
        slots: tuple[str | None, ...] = (),
        flags: OpFlag | None = None,
    ) -> None:
        """One more op."""
        (self.template if self.in_template else self.ops).append(
            Op(
                code=code,
                phase=phase,
                about=about,
                origin=origin,
                strs=strs,
                nums=nums,
                slots=slots,
                flags=flags or OpFlag(0),
            )
        )

    @contextmanager
    def shared(self) -> Iterator[None]:
        """What is the same for all boxes of a policy: it goes to the template, where there is one.

        Mounts of the host that are made here stay as long as the template does.
        """
        before, self.in_template = self.in_template, self.has_template
        try:
            yield
        finally:
            self.in_template = before

    def step(self, kind: str, about: str, origin: Any, *args: Any, slot: str | None = None) -> None:
        """One more thing for the parent to do."""
        self.steps.append(Step(kind=kind, about=about, args=args, slot=slot, origin=origin))

    def promise(self, name: str, by: str) -> None:
        """A guarantee that is held."""
        self.guarantees.append(Guarantee(name, Verdict.ENFORCED, by))

    def lacks(self, name: str, why: str, hint: str) -> None:
        """A guarantee that this host can't hold: refused, or weakened where the policy says so.

        Raises: HostLacks.
        """
        if name not in self.policy.weaken:
            raise HostLacks(name, why, f'{hint}; or weaken={{"{name}"}} to run without')
        self.guarantees.append(Guarantee(name, Verdict.WEAKENED, why))

    def new(self, kind: str) -> bool:
        """Whether the box has a new namespace of that kind, in spite of what was weakened."""
        return bool(self.clone_flags & NAMESPACES[kind])

    def counts_alone(self) -> bool:
        """Whether RLIMIT_NPROC counts processes of a box's user namespace, not all of a user's."""
        return self.new("user") or self.joins_user()

    def joins_user(self) -> bool:
        """Whether the box is in a user namespace of somebody else's."""
        spaces = self.policy.get(Namespace)
        return spaces is not None and any(kind == "user" for kind, _ in spaces.joins)

    def weaker(self, name: str, why: str) -> None:
        """A second lock that this host hasn't; the first one holds."""
        self.guarantees.append(Guarantee(name, Verdict.WEAKENED, why))

    def bind(
        self,
        source: str,
        target: str,
        attr_set: int,
        origin: Any,
        *,
        recursive: bool = True,
        optional: bool = False,
        owned: bool = False,
    ) -> None:
        """A host path at a place of the new root. `owned`: the caller's files are the program's.

        A parent with CAP_SYS_ADMIN opens the tree, since the box's ids may not reach it; a template
        is made by root itself.
        """
        flags = OpFlag.MAKE_ANY
        flags |= OpFlag.RECURSIVE if recursive else OpFlag(0)
        flags |= OpFlag.OPTIONAL if optional else OpFlag(0)
        about = f"bind {source} on {target}"
        if self.in_template or not self.host.sys_admin:
            strs = (source.encode("utf-8", "surrogateescape"), encoded(target))
            self.op(OpCode.BIND, Phase.MOUNT, about, origin, *strs, nums=(attr_set,), flags=flags)
            return
        slot = f"tree:{self.trees}"
        self.trees += 1
        idmap = owned and self.reserved_ids
        self.step(
            "open_tree", f"open {source}", origin,
            source, recursive, attr_set, 0, optional, idmap, slot=slot,
        )  # fmt: skip
        self.op(
            OpCode.BIND, Phase.MOUNT, about, origin, None, encoded(target),
            slots=(slot,), flags=flags,
        )  # fmt: skip


def encoded(path: str) -> bytes:
    """A path as the kernel takes it."""
    return path.encode("utf-8", "surrogateescape")
