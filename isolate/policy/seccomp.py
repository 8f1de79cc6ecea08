# SPDX-License-Identifier: Apache-2.0
"""`SeccompFilter`: which system calls, with which arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from isolate.abi.syscalls import ARCHES, numbers
from isolate.errors import PolicyConflict, PolicyError
from isolate.policy import ambient, seccomp_docker
from isolate.policy.base import Primitive
from isolate.policy.capabilities import canonical
from isolate.policy.fields import parse_seconds
from isolate.policy.findings import Finding, Wider
from isolate.policy.handlers import NOTIFY, Handler
from isolate.policy.rules import ALLOW, KILL_PROCESS, STRICTNESS, Action, Errno, Layer, Rule
from isolate.policy.seccomp_default import GROUPS, default_layer
from isolate.policy.seccomp_load import load

EVERYTHING = frozenset(("*",))

__all__ = ["SeccompFilter", "Verdict", "deciding"]


@frozen
class Verdict:
    """What a filter does with a call.

    Attributes:
        action: the kernel's answer.
        rule: the rule that decided; None where the default did, or the architecture.
        layer: the name of its layer.
    """

    action: Action
    rule: Rule | None
    layer: str


def expanded(items: Iterable[str | Rule], action: Action) -> tuple[Rule, ...]:
    """Names, groups ("@network") and rules, as rules. Raises: PolicyError."""
    known = {name for arch in ARCHES for name in numbers(arch)}
    rules: list[Rule] = []
    wrong = []
    for item in items:
        if isinstance(item, Rule):
            named = [item if item.own_action else evolve(item, action=action)]
        elif isinstance(item, str):
            names = GROUPS.get(item, (item,))
            named = [Rule(name, action) for name in names]
        else:
            raise PolicyError(f"a filter is made of names and rules, not of {item!r}")
        for rule in named:
            if rule.syscall not in known:
                wrong.append(f"{rule.syscall!r} is no system call of {', '.join(ARCHES)}")
        rules += named
    if wrong:
        raise PolicyError(*wrong)
    return tuple(rules)


def strictness(action: Action) -> int:
    """Less is stricter."""
    return STRICTNESS.index(action.name)


def deciding(layer: Layer, syscall: str) -> list[Rule]:
    """The rules of a call, strictest first, up to the first that always holds."""
    rules = sorted(
        (rule for rule in layer.rules if rule.syscall == syscall),
        key=lambda rule: (strictness(rule.action), rule.action.data),
    )
    found: list[Rule] = []
    for rule in rules:
        found.append(rule)
        if not rule.conditions:
            break
    return found


def this_machine() -> tuple[str, tuple[int, int]]:
    """The architecture, and the kernel's version."""
    uname = os.uname()
    major, minor = re.findall(r"\d+", uname.release)[:2]
    return uname.machine, (int(major), int(minor))


def checked_layers(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """As a tuple. Raises: PolicyError."""
    found = tuple(layers)
    for layer in found:
        if not isinstance(layer, Layer):
            raise PolicyError(f"a filter is made of layers, not of {layer!r}")
    return found


def silence(names: bool | Iterable[str]) -> frozenset[str]:
    """What is not reported: names and groups; True is everything. Raises: PolicyError."""
    if isinstance(names, bool):
        return EVERYTHING if names else frozenset()
    wanted = (names,) if isinstance(names, str) else names
    plain = [each for each in wanted if each != "*"]
    found = {rule.syscall for rule in expanded(plain, ALLOW)}
    return frozenset(found) | (EVERYTHING if "*" in wanted else frozenset())


@frozen
class SeccompFilter(Primitive):
    """Filters that stack: the kernel takes the strictest action of all (seccomp(2)).

    A plain value; nothing is installed before a program is started with it. `|` adds up.

    Attributes:
        layers: in the order of their installation.
        skipped: what `load` found in a profile and no table knows.
        handlers: functions that decide for a call; see `on`.
        silent: calls whose refusals are not reported; "*" is all of them.
        lethal: whether a reported refusal ends the program: `Violated`, or `SandboxViolation`.
        observed: what rules call "notify" is counted and goes on; `learn` alone needs it.

    Example: `Sandbox(seccomp=SeccompFilter.deny("@network"))`.
    """

    layers: tuple[Layer, ...] = field(converter=checked_layers)
    skipped: tuple[str, ...] = field(default=(), eq=False, repr=False)
    handlers: tuple[Handler, ...] = ()
    silent: frozenset[str] = frozenset()
    lethal: bool = False
    observed: bool = False

    @classmethod
    def default(
        cls, *, silent: bool | Iterable[str] = False, lethal: bool = False
    ) -> SeccompFilter:
        """What every `Sandbox` has: see `isolate.policy.seccomp_default`.

        Args:
            silent: calls or groups whose refusals are not reported; True for all.
            lethal: a reported refusal ends the program.
        """
        return cls((cached_default(),), silent=silence(silent), lethal=lethal)

    @classmethod
    def docker(cls, caps: Iterable[str] = ()) -> SeccompFilter:
        """Docker's default profile for this machine: see `isolate.policy.seccomp_docker`.

        Args:
            caps: capabilities of the box, by which the profile lets more in; a `Sandbox` has none.

        It is wider than `default()`; in a Sandbox both hold, unless `allow.SystemCalls()` is given.
        """
        arch, kernel = this_machine()
        return cls((seccomp_docker.layer(arch=arch, caps=canonical(caps), kernel=kernel),))

    @classmethod
    def load(
        cls, source: str | os.PathLike[str] | Mapping[str, Any], caps: Iterable[str] = ()
    ) -> SeccompFilter:
        """A profile in Docker's or OCI's JSON form, old or new, resolved for this machine.

        Args:
            source: a path, or the document.
            caps: capabilities of the box, for the profile's `includes` and `excludes`.

        Raises: PolicyError with every mistake; OSError. Names that no table knows are `skipped`.
        """
        arch, kernel = this_machine()
        where = source if isinstance(source, Mapping) else Path(source)
        known = {name for each in ARCHES for name in numbers(each)}
        found = load(where, arch=arch, caps=canonical(caps), kernel=kernel, known=known)
        return cls((found.layer,), found.skipped)

    @classmethod
    def allow(
        cls,
        *items: str | Rule,
        action: Action | None = None,
        silent: bool | Iterable[str] = False,
        lethal: bool = False,
    ) -> SeccompFilter:
        """Only these calls; the others get `action`, EPERM by default, unknown ones ENOSYS.

        Raises: PolicyError for an unknown name.
        """
        rules = expanded(items, ALLOW)
        layer = Layer(rules, action or Errno("EPERM"), Errno("ENOSYS"), name="allow")
        return cls((layer,), silent=silence(silent), lethal=lethal)

    @classmethod
    def deny(
        cls,
        *items: str | Rule,
        action: Action | None = None,
        silent: bool | Iterable[str] = False,
        lethal: bool = False,
    ) -> SeccompFilter:
        """All but these calls, which get `action`, EPERM by default.

        Raises: PolicyError for an unknown name.
        """
        layer = Layer(expanded(items, action or Errno("EPERM")), ALLOW, name="deny")
        return cls((layer,), silent=silence(silent), lethal=lethal)

    @classmethod
    def on(
        cls, item: str | Rule, handler: Callable[[Any], Any], timeout: float | str = 1.0
    ) -> SeccompFilter:
        """A function of the caller decides for one call, or for what a rule's conditions select.

        Args:
            handler: takes an `isolate.Notified`, gives an `isolate.Answer`; runs in a thread of
                the caller. An exception, anything else, or slowness is a refusal.
            timeout: seconds for each call, or "500ms".

        It is asked only where no other filter refuses. Raises: PolicyError.
        """
        conditions = item.conditions if isinstance(item, Rule) else ()
        name = item.syscall if isinstance(item, Rule) else item
        rules = expanded((Rule(name, NOTIFY, conditions),), NOTIFY)
        layer = Layer(rules, ALLOW, name=f"on {name}")
        return cls((layer,), handlers=(Handler(name, handler, parse_seconds(timeout)),))

    @staticmethod
    def learn(target: Any, *args: Any, runs: int = 3, **options: Any) -> SeccompFilter:
        """Run a program or a function in a box, and return a filter of the calls that it made.

        Args:
            target: argv, or a callable, which is called with `args`.
            runs: how often; what differs between runs is in the filter.
            options: `sandbox=`, a `Sandbox` to run it in; and what `run` takes, for a program.

        Raises: HostLacks; IsolateError, if a run fails.
        """
        found: SeccompFilter = ambient.verb("learn")(target, *args, runs=runs, **options)
        return found

    def __or__(self, other: Any) -> Any:
        """With another filter both, as one filter; with anything else a Policy."""
        return self.narrow(other) if isinstance(other, SeccompFilter) else super().__or__(other)

    def narrow(self, inner: SeccompFilter) -> SeccompFilter:
        """Both: filters only add up. The same layer twice is one."""
        layers = tuple(dict.fromkeys((*self.layers, *inner.layers)))
        handlers = tuple(dict.fromkeys((*self.handlers, *inner.handlers)))
        twice = {each.syscall for each in handlers}
        if len(twice) < len(handlers):
            raise PolicyConflict("two handlers for one call; let one function decide")
        return SeccompFilter(
            layers,
            (*self.skipped, *inner.skipped),
            handlers,
            self.silent | inner.silent,
            self.lethal or inner.lethal,
            self.observed and inner.observed,
        )

    def evaluate(self, syscall: str, *args: int, arch: str | None = None) -> Verdict:
        """What the kernel would do, without asking it.

        Args:
            syscall: a name of that architecture; one without a number there is unknown.
            args: up to six; those left out are 0.
            arch: "x86_64", "aarch64", …; this machine's by default.
        """
        native = os.uname().machine
        wanted = arch or native
        given = [*args, *[0] * (6 - len(args))]
        verdicts = [judged(layer, syscall, given, wanted, native) for layer in self.layers]
        verdicts.reverse()  # of equal strictness the last that was installed wins
        if not verdicts:
            return Verdict(ALLOW, None, "")
        return min(verdicts, key=lambda verdict: strictness(verdict.action))

    def disassemble(self, arch: str | None = None) -> str:
        """The programs as text: labels, calls by name, tests, actions, and the rules' reasons."""
        text: str = ambient.verb("disassemble")(self, arch)
        return text

    def lint(self, arch: str | None = None) -> tuple[Finding, ...]:
        """Weak spots, holes first, each a `Finding` with a call that shows it; empty: none known.

        Raises: Undecided.
        """
        found: tuple[Finding, ...] = ambient.verb("lint")(self, arch)
        return found

    def compare(self, other: SeccompFilter, arch: str | None = None) -> tuple[Wider, ...]:
        """The calls for which this filter is wider than another: a `Wider` with arguments for each.

        Told exactly, over every argument and architecture. Raises: Undecided.
        """
        found: tuple[Wider, ...] = ambient.verb("compare_filters")(self, other, arch)
        return found

    def stricter_than(self, other: SeccompFilter, arch: str | None = None) -> bool:
        """Whether it lets nothing through, for any argument, that the other doesn't; equal is yes.

        `compare` says which calls stand against it. Raises: Undecided, rather than to guess.
        """
        return not self.compare(other, arch)


def judged(layer: Layer, syscall: str, args: list[int], arch: str, native: str) -> Verdict:
    """One layer's answer."""
    if arch != native and arch not in layer.arches:
        return Verdict(KILL_PROCESS, None, layer.name)
    if syscall not in numbers(arch):
        return Verdict(layer.unknown or layer.default, None, layer.name)
    for rule in deciding(layer, syscall):
        if all(test.holds(args[test.index] & ((1 << 64) - 1)) for test in rule.conditions):
            return Verdict(rule.action, rule, layer.name)
    return Verdict(layer.default, None, layer.name)


@lru_cache(maxsize=1)
def cached_default() -> Layer:
    """It is some 500 rules long."""
    return default_layer()
