# SPDX-License-Identifier: Apache-2.0
"""Weak spots of a filter, told from what its programs do, each with a call that shows it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence

from isolate.abi.arguments import WORDS32, is_32_bit, is_64_bit
from isolate.abi.syscalls import ARCHES, AUDIT_ARCH, X32_BIT, numbers
from isolate.plan.bpf.assemble import JEQ, JGE, LOW, OFFSET_ARCH, OFFSET_NR
from isolate.plan.bpf.compare import answered, known_calls, native, programs
from isolate.plan.bpf.diagram import Diagrams
from isolate.plan.bpf.symbolic import call_of, compared
from isolate.plan.bpf.view import PASSES, View, passing
from isolate.policy.findings import Call, Finding
from isolate.policy.rules import Action, Compare, Condition, Layer
from isolate.policy.seccomp import SeccompFilter
from isolate.policy.seccomp_default import CLONE_NEW, REFUSED, TERMINAL

__all__ = ["lint", "lint_programs"]

HOLE, SURFACE, FAULT = "hole", "surface", "fault"
KERNEL = {  # of the default's @kernel, each by itself
    "io-uring": ("io_uring_setup io_uring_enter io_uring_register", "its work passes by filters"),
    "bpf": ("bpf", "programs in the kernel; its verifier has been passed by"),
    "userfaultfd": (
        "userfaultfd",
        "it stops the kernel in the middle of copies, which exploits use",
    ),
}
GROUPS = KERNEL | {name[1:]: spot for name, spot in REFUSED.items() if name != "@kernel"}
CLONE_NEWTIME = 0x80  # unshare's and clone3's only
# READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, MMAP_PAGE_ZERO (sys/personality.h)
UNPROTECTED = 0x0400000 | 0x0040000 | 0x0200000 | 0x0100000
ASKS = 0xFFFFFFFF
FAMILIES = {"AF_PACKET": 17, "AF_ALG": 38, "AF_VSOCK": 40, "AF_NETLINK but for ROUTE": 16}
USUAL = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
# What i386's two calls do for others, whose arguments are then in memory.
MULTIPLEXED = {
    "socketcall": """socket socketpair bind connect listen accept4 getsockname getpeername sendto
        recvfrom setsockopt getsockopt shutdown sendmsg recvmsg""",
    "ipc": "semget semctl msgget msgsnd msgrcv msgctl shmget shmat shmdt shmctl",
}


def surfaces(view: View) -> Iterator[Finding]:
    """Calls that the default has reasons to refuse, and this filter lets through."""
    for name, (calls, why) in GROUPS.items():
        found = [call for call in calls.split() if view.lets(call)]
        if found:
            example = view.found(found[0], view.space.yes)
            yield Finding(name, SURFACE, tuple(found), view.arch, why, example)


def namespaces(view: View) -> Iterator[Finding]:
    """New namespaces by clone and clone3; unshare and setns are among the surfaces."""
    why = "a namespace of its own gives capabilities in it, and with them much of the kernel"
    made = view.found("clone", view.any_bit(0, CLONE_NEW))
    if made:
        yield Finding("namespaces", SURFACE, ("clone",), view.arch, why, made)
    clone3 = view.found("clone3", view.space.yes)
    if clone3 and view.lets("clone") and not made:
        why = "clone's flags are tested, and clone3 has the same in memory, where no filter looks"
        yield Finding("clone3", HOLE, ("clone3",), view.arch, why, clone3)
    elif clone3:
        yield Finding("namespaces", SURFACE, ("clone3",), view.arch, why, clone3)


def terminals(view: View) -> Iterator[Finding]:
    """Requests of ioctl that reach what others read."""
    for request, why in TERMINAL.items():
        example = view.found("ioctl", view.exactly(1, request))
        if example:
            yield Finding("terminal", SURFACE, ("ioctl",), view.arch, why, example)


def personalities(view: View) -> Iterator[Finding]:
    """Flags that take protections away from every program that is started afterwards."""
    test = view.space.without(view.any_bit(0, UNPROTECTED), view.equal(0, ASKS))
    example = view.found("personality", test)
    if example:
        why = "it turns address randomisation or no-execute off"
        yield Finding("personality", SURFACE, ("personality",), view.arch, why, example)


def families(view: View) -> Iterator[Finding]:
    """Sockets beyond those of ordinary programs."""
    space = view.space
    usual = view.one_of(0, USUAL)
    route = space.both(view.equal(0, FAMILIES["AF_NETLINK but for ROUTE"]), view.equal(2, 0))
    other = space.without(view.args("socket"), space.either((usual, route)))
    other = view.upper_as_zero(other, 0)
    named = [
        name for name, n in FAMILIES.items() if space.both(other, view.equal(0, n)) != space.no
    ]
    if other != space.no:
        shown = space.both(other, view.equal(0, FAMILIES[named[0]])) if named else other
        also = f": {', '.join(named)} among them" if named else ""
        why = f"socket families other than UNIX, INET and INET6 are let in{also}"
        yield Finding("families", SURFACE, ("socket",), view.arch, why, view.found("socket", shown))


def upper_halves(view: View) -> Iterator[Finding]:
    """Arguments of 32 bits that are compared in 64: with an upper half they pass."""
    if view.arch == "i386":
        return
    for call, indexes in WORDS32.items():
        passes = view.args(call)
        for index in indexes:
            hole = view.space.without(passes, view.upper_as_zero(passes, index))
            if hole != view.space.no:
                why = f"argument {index} is compared in 64 bits, and the kernel takes 32 of them"
                example = view.found(call, hole)
                yield Finding("upper-half", HOLE, (call,), view.arch, why, example)


def multiplexed(view: View) -> Iterator[Finding]:
    """i386's calls that hide other calls."""
    for call, others in MULTIPLEXED.items():
        refused = [other for other in others.split() if view.args(other) != view.space.yes]
        if view.arch == "i386" and view.lets(call) and refused:
            why = f"it makes the calls {', '.join(refused[:3])} with arguments that no filter sees"
            example = view.found(call, view.space.yes)
            yield Finding("multiplexed", HOLE, (call,), view.arch, why, example)


CHECKS: tuple[Callable[[View], Iterator[Finding]], ...] = (
    upper_halves,
    multiplexed,
    namespaces,
    terminals,
    personalities,
    families,
    surfaces,
)


def abis(space: Diagrams, passes: int, arch: str) -> Iterator[Finding]:
    """Ways into the kernel by other numbers than the native ones."""
    by_arch = {each: compared(space, JEQ, OFFSET_ARCH, LOW, AUDIT_ARCH[each]) for each in ARCHES}
    foreign = space.without(passes, space.either(by_arch.values()))
    if foreign != space.no:
        why = "architectures that no rule is about are let in; their numbers mean other calls"
        yield Finding("foreign-arch", HOLE, (), arch, why, call_of(space, foreign))
    x32 = space.both(by_arch["x86_64"], compared(space, JGE, OFFSET_NR, LOW, X32_BIT))
    x32 = space.both(passes, x32)
    if x32 != space.no:
        why = "x32's numbers are let in, by which every call has a second name"
        yield Finding("x32", HOLE, (), arch, why, call_of(space, x32))
    for other, here in by_arch.items():
        both = space.both(passes, here)
        if other != arch and both != space.no:
            why = "a second ABI is let in: other numbers, and code that few look at"
            yield Finding("second-abi", SURFACE, (), other, why, call_of(space, both))
    native_ones = space.both(passes, by_arch[arch])
    unknown = space.without(space.without(native_ones, x32), known_calls(space))
    if unknown != space.no:
        why = "numbers that no table knows are let through: calls of newer kernels"
        yield Finding("unknown-calls", SURFACE, (), arch, why, call_of(space, unknown))


def refusals(view: View, installed: Sequence[bytes]) -> Iterator[Finding]:
    """clone3 must fail with ENOSYS, where programs are to go on with clone."""
    call = Call(AUDIT_ARCH[view.arch], numbers(view.arch)["clone3"])
    action = answered(installed, call)
    filtered = view.lets("clone") and view.args("clone") != view.space.yes
    if filtered and action.name == "errno" and action.data != errno.ENOSYS:
        why = f"it fails with {action}; libc falls back to clone only on ENOSYS, so threads fail"
        yield Finding("clone3-errno", FAULT, ("clone3",), view.arch, why)


def half_compared(test: Condition) -> bool:
    """Whether a test is about the lower half as a whole."""
    return test.width == 32 and (test.compare is not Compare.MASKED_EQ or test.mask & LOW == LOW)


def asks_upper(test: Condition) -> bool:
    """Whether a test wants something in the upper half."""
    exact = test.compare in (Compare.EQ, Compare.MASKED_EQ)
    return test.width == 64 and exact and test.value > LOW


def written(layer: Layer, view: View) -> Iterator[Finding]:
    """What the rules alone tell: tests of the wrong width, refusals that say success."""
    for rule in layer.rules:
        if rule.syscall not in numbers(view.arch):
            continue
        for test in rule.conditions:
            if rule.action.name in PASSES:
                if half_compared(test) and is_64_bit(rule.syscall, test.index):
                    why = f"argument {test.index} is compared in 32 bits, and the kernel takes 64"
                    yield Finding("lower-half", HOLE, (rule.syscall,), view.arch, why)
            elif asks_upper(test) and is_32_bit(rule.syscall, test.index):
                why = f"argument {test.index} is refused for an upper half that the kernel drops"
                yield Finding("upper-half", HOLE, (rule.syscall,), view.arch, why)
    silent = Action("errno", 0)
    calls = tuple(dict.fromkeys(r.syscall for r in layer.rules if r.action == silent))
    if calls or silent in (layer.default, layer.unknown):
        why = "errno 0 tells the program that the call was done"
        yield Finding("errno-0", FAULT, calls, view.arch, why)


def lint_programs(installed: Sequence[bytes], arch: str) -> tuple[Finding, ...]:
    """As `lint`, for programs."""
    space = Diagrams()
    passes = passing(space, installed)
    found = list(abis(space, passes, arch))
    for each in (arch, *(other for other in ARCHES if other != arch)):
        view = View(space, passes, each)
        if view.here != space.no:
            for check in CHECKS:
                found += check(view)
            found += refusals(view, installed)
    return ordered(found)


def ordered(found: list[Finding]) -> tuple[Finding, ...]:
    """Each once; holes first."""
    return tuple(
        sorted(dict.fromkeys(found), key=lambda each: (HOLE, FAULT, SURFACE).index(each.kind))
    )


def lint(wanted: SeccompFilter, arch: str | None = None) -> tuple[Finding, ...]:
    """The weak spots of a filter, holes first; empty: none of those that are known.

    Told from what all layers do together, for every argument; only the width of comparisons that
    allow, and errno 0, are read from the rules.

    Raises: Undecided, if the filter has too many cases; PolicyError as `assemble`.
    """
    here = native(arch)
    installed = programs(wanted, here)
    view = View(space := Diagrams(), passing(space, installed), here)
    found = [each for layer in wanted.layers for each in written(layer, view)]
    return ordered([*lint_programs(installed, here), *found])
