# SPDX-License-Identifier: Apache-2.0
"""The plan: what one start will do, as data. `compile` builds it; C and `supervise` run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from isolate.abi.ops import OpCode, OpFlag, Phase

__all__ = ["Guarantee", "Limits", "Op", "Plan", "Program", "Step", "Vector", "Verdict", "Watch"]


@frozen
class Vector:
    """A list of strings among an op's arguments: argv, envp, candidate paths."""

    items: tuple[bytes, ...]


Item = bytes | Vector | None


@frozen(kw_only=True)
class Op:
    """One op of the child.

    Attributes:
        code, phase, flags: see `isolate.abi.ops`.
        slots: names of the fds it uses or fills, or None; `supervise` puts fds in by name.
        strs: up to four byte strings or vectors.
        nums: up to four unsigned 64-bit numbers.
        about: what is done to what, for errors: "mount tmpfs on /out".
        origin: the primitive that asked, or a word for the library's own part ("launch").
    """

    code: OpCode
    phase: Phase
    about: str
    origin: Any = field(default="launch", eq=False)
    slots: tuple[str | None, ...] = ()
    strs: tuple[Item, ...] = ()
    nums: tuple[int, ...] = ()
    flags: OpFlag = OpFlag(0)


@frozen(kw_only=True)
class Step:
    """One thing the parent does around the clone; `supervise.steps` knows how, and how to undo it.

    Attributes:
        kind: "open_tree", "open", "reserve_ids", "id_map", "cgroup", "namespace", …: a name in
            `supervise.steps`.
        args: what it is done with, hashable.
        slot: the slot that its fd fills, if it makes one.
        about, origin: as in `Op`.
    """

    kind: str
    about: str
    args: tuple[Any, ...] = ()
    slot: str | None = None
    origin: Any = field(default="launch", eq=False)


class Verdict:
    """How far a guarantee is held: the words that `guarantees` uses."""

    ENFORCED = "enforced"
    WEAKENED = "weakened"


@frozen
class Guarantee:
    """One promise of the policy, and how this host keeps it.

    Attributes:
        name: the feature, as `weaken=` takes it.
        verdict: Verdict.ENFORCED or Verdict.WEAKENED.
        by: what enforces it, or why it is weaker.
    """

    name: str
    verdict: str
    by: str


@frozen(kw_only=True)
class Limits:
    """What the supervisor watches while it runs; None is no limit. Seconds and bytes."""

    wall: float | None = None
    cpu_time: float | None = None
    output: int | None = None
    files_size: int | None = None
    memory: int | None = None
    pids: int | None = None


@frozen(kw_only=True)
class Watch:
    """What a supervisor of refused calls decides by.

    Attributes:
        programs: the policy's own filters: what they say is what a call gets.
        arch: of the machine, as `isolate.abi.syscalls` has it.
        handlers: of `SeccompFilter.on`.
        silent: names of calls that are answered without a report; "*" is all.
        lethal: whether a reported refusal ends the program.
        observe: calls that rules call "notify" go on, and are counted: for learning.
    """

    programs: tuple[bytes, ...]
    arch: str
    handlers: tuple[Any, ...] = ()
    silent: frozenset[str] = frozenset()
    lethal: bool = False
    observe: bool = False


@frozen(kw_only=True)
class Plan:
    """Everything one box does, in order; hashable and comparable.

    Attributes:
        clone_flags: CLONE_NEW* of the process that becomes the box's init.
        template: ops that make the mount tree which the box starts with a copy of; run once
            for all boxes, in a process of their own. Empty: the box makes its own.
        stockable: whether its network and IPC namespaces may be made ahead, by the caller's rights.
        joining: ops by which a first init joins namespaces of others and clones the box's init; it
            is that clone which has `clone_flags` then. Empty: nothing is joined.
        setup: ops that init runs once.
        program: ops that each program's process runs before its exec; the last is EXEC.
        steps: what the parent does, in order, before init is asked to set up.
        limits: what the supervisor watches.
        guarantees: every promise, with what holds it.
        watch: what the supervisor of refused calls decides by; None: nothing is reported.
    """

    clone_flags: int = 0
    template: tuple[Op, ...] = ()
    stockable: bool = False
    joining: tuple[Op, ...] = ()
    setup: tuple[Op, ...] = ()
    program: tuple[Op, ...] = ()
    steps: tuple[Step, ...] = ()
    limits: Limits = Limits()
    guarantees: tuple[Guarantee, ...] = ()
    watch: Watch | None = None

    def index(self, code: OpCode, where: Callable[[Op], bool] = lambda op: True) -> int:
        """The place of the first such op among set-up and program; ValueError if absent."""
        for i, op in enumerate((*self.setup, *self.program)):
            if op.code is code and where(op):
                return i
        raise ValueError(f"the plan has no {code.name}")


@frozen(eq=False)
class Program:
    """One program's ops, in two parts: what its policy makes of it, and its own exec.

    Attributes:
        body: the same object for every program of a policy, so that its bytes are made once.
        exec: the last op.
    """

    body: tuple[Op, ...]
    exec: Op

    @property
    def ops(self) -> tuple[Op, ...]:
        """All of them, in order."""
        return (*self.body, self.exec)
