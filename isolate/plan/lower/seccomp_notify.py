# SPDX-License-Identifier: Apache-2.0
"""Filters whose refusals the parent sees: many layers as one program with a listener. Pure.

The kernel takes the strictest answer of all filters, lets one of them have a listener, and treats
errno as stricter than notify. So every refusal that is to be reported has to come, as notify, from
one program, which asks layer after layer at the leaves of one search for the number.
"""

from __future__ import annotations

from functools import lru_cache

from attrs import evolve, frozen

from isolate.abi.syscalls import AUDIT_ARCH, numbers
from isolate.errors import PolicyError
from isolate.plan.bpf.assemble import JEQ, MAX_INSTRUCTIONS, OFFSET_NR, Code, assemble, join
from isolate.plan.bpf.evaluate import outcomes
from isolate.policy.handlers import NOTIFY
from isolate.policy.rules import ALLOW, KILL_PROCESS, Action, Arg, Errno, Layer, Rule
from isolate.policy.seccomp import EVERYTHING, SeccompFilter

__all__ = ["DOORS", "Listening", "listening", "plain"]

# _native/isolate.cdef.h: ISO_DOOR, ISO_DOOR_*: (bit, the argument whose upper half is the key)
DOOR = 0x69736F64
DOORS = {"sendmsg": (1, 2), "seccomp": (2, 0), "write": (4, 0)}
SIZE = 8
LOWER, UPPER = 16, 20  # of argument 0 in struct seccomp_data
FLAG_NEW_LISTENER = 8
# Asked for by libraries at every start, whether there or not, and of no interest.
NOISE = frozenset("mbind set_mempolicy set_mempolicy_home_node rseq set_robust_list".split())
QUIET_ERRNO = Errno("ENOSYS")  # "this kernel is older": programs fall back, nobody is refused
NEVER = ("kill_thread", "trap")  # no supervisor can do these: such filters stay with the kernel
EPERM = Errno("EPERM")
OPEN = Layer((), ALLOW)


@frozen
class Listening:
    """What is installed, and what the supervisor decides by.

    Attributes:
        main: the program with the listener; the first that is installed.
        further: (name, program) of what only the kernel can do, and the seal of the doors.
        doors: bits of the calls that set-up still makes by their doors.
        policy: the layers' own programs: what they say is what a call gets.
    """

    main: bytes
    further: tuple[tuple[str, bytes], ...]
    doors: int
    policy: tuple[bytes, ...]


def plain(layer: Layer) -> Layer:
    """For a host without listeners: what a handler would decide is refused."""
    return mapped(layer, lambda action, _: EPERM if action == NOTIFY else action)


def mapped(layer: Layer, change: object) -> Layer:
    """A layer with other actions: change(action, name of the call or "")."""
    assert callable(change)
    return evolve(
        layer,
        rules=tuple(evolve(rule, action=change(rule.action, rule.syscall)) for rule in layer.rules),
        default=change(layer.default, ""),
        unknown=None if layer.unknown is None else change(layer.unknown, "?"),
    )


def actions(layer: Layer) -> set[str]:
    """The names of all actions that it has."""
    found = {rule.action.name for rule in layer.rules} | {layer.default.name}
    return found | ({layer.unknown.name} if layer.unknown else set())


def told(layer: Layer, silent: frozenset[str], kernel_kills: bool) -> Layer:
    """The layer's part of the program with the listener."""
    exact = "kill_process" in actions(layer) and not kernel_kills

    def change(action: Action, name: str) -> Action:
        if action.name == "kill_process":
            return ALLOW if kernel_kills else NOTIFY
        if action.name != "errno":
            return NOTIFY if action == NOTIFY else ALLOW
        # Where a layer kills, even what is silent goes by the supervisor: it knows all layers.
        quiet = action == QUIET_ERRNO or name in NOISE or name in silent or "*" in silent
        return NOTIFY if exact or not quiet else action

    return mapped(layer, change)


def kernels(layer: Layer, kernel_kills: bool) -> Layer | None:
    """The layer's part that only the kernel can do; None if there is none."""
    kept = {*NEVER, "log"} | ({"kill_process"} if kernel_kills else set())
    if not kept & actions(layer):
        return None
    return mapped(layer, lambda action, _: action if action.name in kept else ALLOW)


def doorways(doors: int) -> tuple[Rule, ...]:
    """What lets the calls of set-up pass that carry the key."""
    return tuple(
        Rule(name, ALLOW, (Arg(arg, mask=0xFFFFFFFF << 32) == DOOR << 32,), "the launch's own")
        for name, (bit, arg) in DOORS.items()
        if doors & bit
    )


def seal(doors: int, arch: str) -> bytes:
    """The last filter: the key opens nothing any more. Other calls cost it three to five steps.

    It asks for no architecture: the upper halves of another's arguments are zero.
    """
    code = Code()
    refused, allowed = code.result(EPERM), code.result(ALLOW)
    asked = {}
    for name, (bit, arg) in DOORS.items():
        if doors & bit:
            test = code.branch(JEQ, DOOR, refused, allowed)
            asked[numbers(arch)[name]] = code.load(UPPER + 8 * arg, test)
    label = allowed
    for number, with_key in asked.items():
        label = code.branch(JEQ, number, with_key, label)
    code.load(OFFSET_NR, label)
    return code.bytes()


def answers(program: bytes, arch: str, call: str, key: int = 0) -> set[str]:
    """The actions that a call of set-up may get, whatever its other arguments: proved."""
    known = {UPPER + 8 * DOORS[call][1]: key} if key else {}
    if call == "seccomp":
        known[LOWER + 8] = 0  # set-up gives no flags after the listener is there
    found = outcomes(program, AUDIT_ARCH[arch], numbers(arch)[call], known)
    return {action.name for action in found}


def prove(found: Listening, arch: str) -> None:
    """What set-up calls after the listener is there passes, and is never notified.

    Raises: PolicyError.
    """
    programs = [found.main, *(program for _, program in found.further)]
    for call, (bit, _) in DOORS.items():
        key = DOOR if found.doors & bit else 0
        sealed = 1 if found.doors else 0
        for program in programs[: len(programs) - sealed]:
            if not answers(program, arch, call, key) <= {"allow", "log"}:
                raise PolicyError(f"the launch's own {call} would not pass by its filter")
        if sealed and key and answers(programs[-1], arch, call, key) != {"errno"}:
            raise PolicyError(f"the launch's way for {call} would stay open")


# No second listener, not even in the moment when ours is closed since the host has died: it could
# let refused calls go on. While ours is open the kernel says EBUSY by itself.
GUARD = Rule(
    "seccomp",
    Errno("EBUSY"),
    (Arg(1, width=32, mask=FLAG_NEW_LISTENER) == FLAG_NEW_LISTENER,),
    "one listener a program",
)


@lru_cache(maxsize=64)
def listening(wanted: SeccompFilter, arch: str) -> Listening:
    """The programs of a filter whose refusals are reported.

    Raises: PolicyError, where they can't be one program.
    """
    layers = [layer for layer in wanted.layers if layer.rules or layer.default != ALLOW]
    kernel_kills = any(actions(layer) & set(NEVER) for layer in layers)
    later_first = layers[::-1]  # as the kernel has it; but who kills is asked before all
    order = sorted(later_first, key=lambda layer: "kill_process" not in actions(layer))
    parts = tuple(told(layer, wanted.silent, kernel_kills) for layer in order)
    kept = [(layer.name, kernels(layer, kernel_kills)) for layer in layers]
    rest = [(name, layer) for name, layer in kept if layer is not None]
    # Who calls by another ABI is ended; the supervisor does it where it can, to tell of the call.
    kill = KILL_PROCESS if kernel_kills or wanted.silent >= EVERYTHING else NOTIFY
    main = join(parts or (OPEN,), arch, (GUARD,), kill)
    programs = [main, *(assemble(layer, arch) for _, layer in rest)]
    doors = 0
    for call, (bit, _) in DOORS.items():
        if any(answers(each, arch, call) - {"allow", "log"} for each in programs):
            doors |= bit
    further = [(name, assemble(layer, arch)) for name, layer in rest]
    if doors:
        ways = doorways(doors)
        main = join(parts or (OPEN,), arch, (*ways, GUARD), kill)
        further = [(name, join((layer,), arch, ways)) for name, layer in rest]
        further.append(("the seal", seal(doors, arch)))
    found = Listening(
        main, tuple(further), doors, tuple(assemble(layer, arch) for layer in wanted.layers)
    )
    prove(found, arch)
    longest = max(len(each) // SIZE for each in (main, *(each for _, each in further)))
    if longest > MAX_INSTRUCTIONS:
        raise PolicyError(f"the filters together have {longest} instructions; at most 4096 may be")
    return found
