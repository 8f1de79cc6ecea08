# SPDX-License-Identifier: Apache-2.0
"""`SeccompFilter.learn`: what a program calls, seen by notification, as a filter.

The program runs in an ordinary box: what the box's own filters refuse is refused, and not learnt.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from attrs import evolve

from isolate.abi.signatures import ENUMS, params
from isolate.abi.syscalls import ARCHES, numbers
from isolate.errors import HostLacks, IsolateError, PolicyError
from isolate.machine import this_host
from isolate.plan.compile import compile_box
from isolate.policy import ambient
from isolate.policy.handlers import NOTIFY
from isolate.policy.policy import Policy
from isolate.policy.rules import ALLOW, Arg, Condition, Errno, Layer, Rule
from isolate.policy.seccomp import SeccompFilter
from isolate.sandbox import Sandbox
from isolate.supervise.outcome import Exited
from isolate.supervise.violations import Violation

__all__ = ["bind", "learn", "learnt"]

# By these the launch itself ends, so that they can't be watched.
LAUNCH = ("execve", "exit_group")
# Whether these are called is a matter of time and of memory, not of what a program does.
CHANCE = ("brk", "exit", "futex", "munmap", "restart_syscall", "rt_sigreturn", "sched_yield")
FEW = 8  # so many different arguments are conditions; more are none


def watching(sandbox: Sandbox) -> Sandbox:
    """The same box, in which every call that it lets through is counted."""
    rules = tuple(Rule(name) for name in LAUNCH)
    observer = SeccompFilter((Layer(rules, NOTIFY, name="observer"),))
    own = sandbox.policy.get(SeccompFilter)
    if own is not None and own.handlers:
        raise PolicyError("a box with handlers can't be learnt from: they decide, and not the box")
    both = observer if own is None else own.narrow(observer)
    wanted = evolve(both, observed=True, silent=frozenset(), lethal=False)
    rest = [each for each in sandbox.policy if not isinstance(each, SeccompFilter)]
    watched = copy.copy(sandbox)
    policy = Policy(*rest, wanted, weaken=sandbox.policy.weaken)
    object.__setattr__(watched, "policy", policy)  # a frozen value, and a copy of our own
    return watched


def one_run(sandbox: Sandbox, target: Any, args: Any, options: Any) -> tuple[Violation, ...]:
    """The calls of one run. Raises: what the function raises; IsolateError for a program."""
    if callable(target):
        box = sandbox.open()
        try:
            box.call(target, *args)
        finally:
            box.close()
        return box.violations
    done = sandbox.run(target, **options)
    if done.outcome != Exited(0):
        raise IsolateError(f"learning needs runs that end well; {target!r} ended: {done.outcome}")
    return done.violations


def arguments(seen: Violation) -> tuple[tuple[int, int], ...]:
    """(index, value) of those arguments that have few values in any program."""
    known = params(seen.syscall) or ()
    return tuple(
        (index, seen.args[index]) for index, each in enumerate(known) if each.kind in ENUMS
    )


def learnt(seen: Iterable[Violation]) -> SeccompFilter:
    """A filter of the calls that were let through. Pure. Raises: IsolateError."""
    known = {name for arch in ARCHES for name in numbers(arch)}
    found: dict[str, set[tuple[tuple[int, int], ...]]] = {}
    for each in seen:
        if each.syscall == "others":
            raise IsolateError(f"{each.count} calls are of more kinds than can be counted")
        if each.action == ALLOW and each.syscall in known:
            found.setdefault(each.syscall, set()).add(arguments(each))
    # Box filters answer clone3 so, for its flags are in memory: then libc takes clone.
    rules = [] if "clone3" in found else [Rule("clone3", Errno("ENOSYS"))]
    for name in sorted({*found, *LAUNCH, *CHANCE}):
        ways = found.get(name, set())
        if not ways or len(ways) > FEW or () in ways or name in (*LAUNCH, *CHANCE):
            rules.append(Rule(name, ALLOW))
            continue
        for way in sorted(ways):
            tests: tuple[Condition, ...] = tuple(Arg(index) == value for index, value in way)
            rules.append(Rule(name, ALLOW, tests))
    return SeccompFilter((Layer(tuple(rules), Errno("EPERM"), Errno("ENOSYS"), name="learnt"),))


def learn(
    target: Any, *args: Any, runs: int = 3, sandbox: Sandbox | None = None, **options: Any
) -> SeccompFilter:
    """See `SeccompFilter.learn`."""
    if runs < 1:
        raise PolicyError(f"learning takes at least one run, not {runs}")
    if callable(target) and options:
        raise PolicyError(f"a function is called with arguments only, not with {sorted(options)}")
    watched = watching(sandbox or Sandbox())
    host = this_host()
    if compile_box(watched.policy, host).watch is None:
        why = host.seccomp_why or "no filter of ours may have a listener here"
        raise HostLacks("learning", why, "learn on a machine that has user notification")
    seen: list[Violation] = []
    for _ in range(runs):
        seen += one_run(watched, target, args, options)
    return learnt(seen)


def bind() -> None:
    """Make it `SeccompFilter.learn`; the policy's floor knows no boxes."""
    ambient.bind_verbs(learn=learn)
