# SPDX-License-Identifier: Apache-2.0
"""Landlock's and AppArmor's answers to "may this path be …", from the rules that they are given.

Pure models of the two kernels' matching; `tests/live/test_explain.py` holds them against the real
ones, `tests/pure/test_enforcers.py` against each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from attrs import evolve

from isolate.abi import landlock as abi
from isolate.host.facts import Host
from isolate.plan.access import DIRECTORY, Found, Look, Said, find
from isolate.plan.lower.landlock import PathRule, Ruleset, ruleset, view_ruleset
from isolate.plan.model import Plan
from isolate.plan.view import View, grants_of
from isolate.policy.apparmor import AppArmorProfile
from isolate.policy.fields import inside
from isolate.policy.landlock import Landlock
from isolate.policy.policy import Policy

__all__ = ["apparmor_allows", "later_layers", "rights_of"]

PERMISSIONS = {"read": "r", "write": "w", "execute": "x", "create": "w"}
FILE_RULE = re.compile(r'(allow|deny) file "(.*)" ([a-z]+),')
# Rules about anything but files, which can't decide about a path.
OTHER = re.compile(
    r"(deny )?(network|capability|signal|ptrace|unix|dbus|mount|umount|pivot_root)\b"
)
ESCAPE = re.compile(r"\\(.)")


def rights_of(operation: str, is_directory: bool) -> tuple[str, ...]:
    """What Landlock asks for one operation."""
    if operation == "read":
        return ("read_dir",) if is_directory else ("read_file",)
    return {
        "write": ("write_file",),
        "execute": ("execute", "read_file"),
        "create": ("make_reg", "write_file"),
    }[operation]


def resolved(rules: Ruleset, view: View, look: Look) -> Ruleset:
    """The rules where their paths lead: a rule lies on what it finds, not on a link."""
    paths = tuple(
        PathRule(find(rule.path, view, look).path, rule.rights, rule.optional)
        for rule in rules.paths
    )
    return evolve(rules, paths=paths)


def landlock_says(rules: Ruleset, name: str, operation: str, found: Found) -> Said:
    """One layer's answer."""
    is_directory = found.node is not None and found.node.kind == DIRECTORY
    lacking = [
        right
        for right in rights_of(operation, is_directory)
        if not rules.allows(right, found.path)
    ]
    if lacking:
        return Said("landlock", False, f"no rule of the {name} grants {', '.join(lacking)}")
    free = [right for right in rights_of(operation, is_directory) if right not in rules.fs]
    if free:
        return Said("landlock", True, f"the {name} doesn't rule {', '.join(free)}")
    above = [rule.path for rule in rules.paths if inside(found.path, rule.path)]
    return Said("landlock", True, f"the {name}'s rule for {max(above, key=len)}")


def matches(pattern: str, path: str) -> bool:
    """Whether one of our own patterns, a literal with all below it, holds a path."""
    if pattern == "/{,**}":
        return True
    literal = ESCAPE.sub(r"\1", pattern.removesuffix("{,/,/**}"))
    return inside(path, literal)


def apparmor_allows(texts: Iterable[str], permission: str, path: str) -> bool | None:
    """Whether rules allow a permission on a path; None if one of them is not of our own form."""
    allowed, unknown = False, False
    for text in texts:
        match = FILE_RULE.fullmatch(text)
        if text == "file,":
            allowed = True
        elif match is None:
            unknown = unknown or not OTHER.match(text)
        elif permission in match[3].replace("ix", "x") and matches(match[2], path):
            if match[1] == "deny":
                return False
            allowed = True
    return None if unknown else allowed


def apparmor_says(profile: AppArmorProfile, operation: str, found: Found) -> Said:
    """A profile's answer."""
    who = profile.name or "the box's own"
    if profile.rules is None:
        return Said("apparmor", None, f"the rules of {who} are not known here")
    told = [
        apparmor_allows((text for text, _ in profile.rules), permission, found.path)
        for permission in PERMISSIONS[operation]
    ]
    if profile.complain:
        return Said("apparmor", True, f"{who} is in complain mode")
    verdict = False if False in told else None if None in told else True
    words = {True: "allows it", False: "has no rule for it", None: "has rules of its own for paths"}
    return Said("apparmor", verdict, f"{who} {words[verdict]}")


def landlock_layers(
    policy: Policy, host: Host, plan: Plan, view: View, look: Look
) -> list[tuple[str, Ruleset]]:
    """The layers that are in force on this host, by name."""
    wanted = policy.get(Landlock)
    if wanted is None or not host.landlock:
        return []
    layers = []
    held = any(op.about.endswith("of the view") for op in plan.setup)
    if wanted.view and held:
        level = min(host.landlock, abi.MAX_LEVEL)
        layers.append(("view", view_ruleset(grants_of(view), level, (), False)))
    if wanted.has("files"):
        layers.append(("policy", ruleset(wanted, host.landlock)))
    return [(name, resolved(rules, view, look)) for name, rules in layers]


def later_layers(
    policy: Policy, host: Host, plan: Plan, view: View, look: Look
) -> Callable[[str, Found], Iterator[Said]]:
    """What answers after mounts and files have."""
    layers = landlock_layers(policy, host, plan, view, look)
    profile = policy.get(AppArmorProfile)
    enters = any(step.kind == "apparmor" for step in plan.steps)

    def later(operation: str, found: Found) -> Iterator[Said]:
        for name, rules in layers:
            yield landlock_says(rules, name, operation, found)
        if not layers:
            yield Said("landlock", True, "not in force")
        if profile is not None and enters:
            yield apparmor_says(profile, operation, found)
        else:
            yield Said("apparmor", True, "not in force")

    return later
