# SPDX-License-Identifier: Apache-2.0
"""`AppArmorProfile`: which profile of the kernel's AppArmor a program runs under."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve, field, frozen

from isolate.errors import PolicyConflict, PolicyError
from isolate.policy import ambient
from isolate.policy.apparmor_docker import DOCKER
from isolate.policy.apparmor_text import (
    Line,
    checked_name,
    checked_rule,
    file_rule,
    network_rules,
    plain_name,
    render,
)
from isolate.policy.base import Primitive
from isolate.policy.capabilities import canonical
from isolate.policy.landlock import paths

__all__ = ["AppArmorProfile"]

READ, WRITE, EXECUTE = "r", "wlk", "rmix"


def name_or_none(value: Any) -> str | None:
    """A name, or None for one that each box makes up. Raises: PolicyError."""
    return None if value is None else checked_name(value)


def strings(values: Any) -> tuple[str, ...]:
    """One or many."""
    return (values,) if isinstance(values, str) else tuple(values)


def counted(rules: tuple[tuple[str, str], ...] | None) -> str:
    """How many there are, for repr."""
    return "None" if rules is None else f"<{len(rules)} rules>"


def pairs(values: Any) -> tuple[tuple[str, str], ...] | None:
    """(rule, field) of each, or None."""
    return None if values is None else tuple((str(text), str(field)) for text, field in values)


@frozen
class AppArmorProfile(Primitive):
    """A profile, entered at exec. A name alone is a profile that is loaded already.

    Attributes:
        name: as /sys/kernel/security/apparmor/profiles has it; None is a temporary one, loaded
            under a name of its own for each box and unloaded with it.
        rules: (rule, the field that asked) of a generated profile; None for a name alone.
        complain: the profile only logs what it would refuse.
        stack: add it to the caller's own profile instead of changing to it; None decides by what
            the kernel allows: stack where the caller is confined.

    Raises: PolicyError.
    Source: apparmor(7), apparmor.d(5), aa_change_profile(2), aa_stack_profile(2).
    """

    name: str | None = field(converter=name_or_none)
    rules: tuple[tuple[str, str], ...] | None = field(
        default=None, kw_only=True, converter=pairs, repr=counted
    )
    complain: bool = field(default=False, kw_only=True)
    stack: bool | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.rules is None and self.name is None:
            raise PolicyError("an AppArmorProfile has a name, or rules: AppArmorProfile.generate()")
        if self.rules is None:
            return
        if self.name is not None:
            plain_name(self.name)
        for text, asked in self.rules:
            checked_rule(text, asked)

    @classmethod
    def generate(
        cls,
        name: str | None = None,
        *,
        read: Any = (),
        write: Any = (),
        execute: Any = (),
        network: Any = ("unix",),
        capabilities: Iterable[str] = (),
        extra_rules: Any = (),
        complain: bool = False,
        stack: bool | None = None,
    ) -> AppArmorProfile:
        """A profile that refuses all but what is said.

        Args:
            name: None is a temporary one.
            read, write, execute: literal paths, with all below them; execute also reads and maps.
            network: "inet", "inet6 stream", …, or "all".
            capabilities: by name.
            extra_rules: lines of apparmor.d(5), each ending in ','.

        Raises: PolicyError naming the field, for a value that can't be written safely.
        """
        if name is not None and not isinstance(name, str):
            raise PolicyError(
                f"a profile's name is text, not a {type(name).__name__}; of a whole policy it is "
                "made by AppArmorProfile.from_policy(policy)"
            )
        lines: list[Line] = []
        for values, permissions, where in (
            (read, READ, "read"),
            (write, WRITE, "write"),
            (execute, EXECUTE, "execute"),
        ):
            lines += [file_rule(path, permissions, where) for path in paths(values) or ()]
        lines += network_rules(strings(network))
        for each in sorted(canonical(capabilities)):
            lines.append(Line(f"capability {each[4:].lower()},", "capabilities"))
        lines += [checked_rule(rule) for rule in strings(extra_rules)]
        rules = tuple((line.text, line.field) for line in lines)
        return cls(name, rules=rules, complain=complain, stack=stack)

    @classmethod
    def from_policy(
        cls, policy: Any, name: str | None = None, extra_rules: Any = (), complain: bool = False
    ) -> AppArmorProfile:
        """What a whole policy allows, once more: its mounts, its network, its capabilities.

        Raises: PolicyError, HostLacks, as compiling it does.
        """
        lines: list[Line] = ambient.verb("apparmor_lines")(getattr(policy, "policy", policy))
        lines += [checked_rule(rule) for rule in strings(extra_rules)]
        return cls(name, rules=tuple((each.text, each.field) for each in lines), complain=complain)

    @classmethod
    def docker_default(cls, name: str | None = "docker-default") -> AppArmorProfile:
        """Docker's default profile, as its documentation describes it; see apparmor_docker."""
        return cls(name, rules=tuple((text, "docker_default") for text in DOCKER))

    @property
    def is_temporary(self) -> bool:
        """Whether each box loads its own."""
        return self.name is None

    @property
    def mode(self) -> str:
        """The mode that the kernel has to show."""
        return "complain" if self.complain else "enforce"

    def text(self, name: str | None = None) -> str:
        """The profile in AppArmor's language. Raises: PolicyError for a name alone."""
        return self.rendered(name)[0]

    def rendered(self, name: str | None = None) -> tuple[str, tuple[str, ...]]:
        """Its text, and the field behind each line. Raises: PolicyError for a name alone."""
        if self.rules is None:
            raise PolicyError(f"{self.name!r} only names a profile: there is no text of it here")
        lines = [Line(text, where) for text, where in self.rules]
        return render(name or self.name or "isolate-temporary", lines, self.complain)

    def check(self) -> None:
        """Have apparmor_parser read the text; nothing is loaded.

        Raises: PolicyError naming the field; HostLacks without the parser.
        """
        ambient.verb("apparmor")("check", self)

    def load(self) -> None:
        """Load it; a profile of that name must not be there. Raises: PolicyError, HostLacks."""
        ambient.verb("apparmor")("load", self)

    def replace(self) -> None:
        """Load it, in place of one of that name. Raises: PolicyError, HostLacks."""
        ambient.verb("apparmor")("replace", self)

    def unload(self) -> None:
        """Take it out of the kernel; programs under it run unconfined then. Raises: HostLacks."""
        ambient.verb("apparmor")("unload", self)

    @staticmethod
    def loaded() -> dict[str, str]:
        """Mode by name of every loaded profile. Raises: HostLacks."""
        found: dict[str, str] = ambient.verb("apparmor")("loaded")
        return found

    @staticmethod
    def of(pid: int) -> str:
        """A process's label and mode: "docker-default (enforce)", "unconfined".

        Raises: HostLacks without AppArmor; ProcessLookupError.
        """
        label: str = ambient.verb("apparmor")("of", pid)
        return label

    def narrow(self, inner: AppArmorProfile) -> AppArmorProfile:
        """The same one; two different profiles are a conflict."""
        if evolve(self, stack=inner.stack) != inner:
            raise PolicyConflict(f"two AppArmor profiles: {self} and {inner}")
        return evolve(self, stack=None if self.stack != inner.stack else self.stack)
