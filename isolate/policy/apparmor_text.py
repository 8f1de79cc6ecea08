# SPDX-License-Identifier: Apache-2.0
"""AppArmor's language, written so that no value can say more than it means. Pure.

Source: apparmor.d(5), of apparmor 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from isolate.errors import PolicyError

__all__ = [
    "Line",
    "checked_name",
    "checked_rule",
    "file_rule",
    "network_rules",
    "plain_name",
    "render",
]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
GLOBS = re.compile(r"([\\*?\[\]{}^@,])")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
FAMILIES = """
    unix inet inet6 netlink packet bluetooth alg vsock can tipc sctp rds key x25 appletalk
""".split()
TYPES = ("stream", "dgram", "seqpacket", "raw", "rdm", "packet")
# `abi` fixes what an omitted rule means; without it the parser asks its own configuration.
HEADER = "abi <abi/3.0>,"


@frozen
class Line:
    """One rule, and the field that asked for it."""

    text: str
    field: str


def plain_name(value: Any) -> str:
    """A name for a profile that we write ourselves. Raises: PolicyError."""
    if not isinstance(value, str) or not NAME.fullmatch(value) or value == "unconfined":
        raise PolicyError(
            "a generated AppArmor profile's name has 1 to 128 letters, digits, '.', '_' and '-', "
            f"and begins with none of the last two; not {value!r}"
        )
    return value


def checked_name(value: Any) -> str:
    """A name of a profile that somebody else has loaded: as the kernel prints it.

    Raises: PolicyError for what the kernel would read as something else: another namespace, a
        stack, a mode, a second line; and for "unconfined", which is no profile.
    """
    if not isinstance(value, str) or not 0 < len(value) <= 512:
        raise PolicyError(f"an AppArmor profile's name is text of 1 to 512 characters: {value!r}")
    wrong = CONTROL.search(value) or value != value.strip() or '"' in value or "\\" in value
    if wrong or value[0] in ":&" or "//&" in value or value.endswith(")"):
        raise PolicyError(f"{value!r} is no AppArmor profile's name")
    if value == "unconfined" or not value.isprintable():
        raise PolicyError(f"{value!r} is no AppArmor profile's name")
    return value


def quoted(path: str, field: str) -> str:
    """A path as the language's literal, without quotes: every glob and variable character escaped.

    Raises: PolicyError for a line end or another control character, and for a quote.
    """
    if CONTROL.search(path):
        raise PolicyError(f"AppArmorProfile.{field}: a control character in {path!r}")
    if '"' in path:
        raise PolicyError(f"AppArmorProfile.{field}: AppArmor has no path with a quote: {path!r}")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise PolicyError(f"AppArmorProfile.{field}: {path!r} is no UTF-8") from None
    return GLOBS.sub(r"\\\1", path)


def file_rule(path: str, permissions: str, field: str, deny: bool = False) -> Line:
    """A rule for a path, and for all that is below it if it is a directory.

    Raises: PolicyError.
    """
    inner = quoted(path.rstrip("/"), field)
    pattern = f"{inner}{{,/,/**}}" if inner else "/{,**}"
    verb = "deny" if deny else "allow"
    return Line(f'{verb} file "{pattern}" {permissions},', field)


def network_rules(values: Iterable[str]) -> list[Line]:
    """Rules of "inet", "inet6 stream", …; "all" is every family. Raises: PolicyError."""
    found = []
    for each in values:
        if each == "all":
            found.append(Line("network,", "network"))
            continue
        parts = each.split(" ") if isinstance(each, str) else []
        if not parts or parts[0] not in FAMILIES or len(parts) > 2:
            raise PolicyError(
                f'AppArmorProfile.network takes "all", or one of {", ".join(FAMILIES)} and a '
                f'type, like "inet stream"; not {each!r}'
            )
        if parts[1:] and parts[1] not in TYPES:
            raise PolicyError(f"a socket's type is one of {', '.join(TYPES)}, not {parts[1]!r}")
        found.append(Line(f"network {' '.join(parts)},", "network"))
    return found


def outside_quotes(text: str) -> str:
    """A rule without its quoted strings. Raises: PolicyError for one that doesn't end."""
    bare, inside, skip = [], False, False
    for char in text:
        if skip:
            skip = False
        elif char == "\\":
            skip = True
        elif char == '"':
            inside = not inside
        elif not inside:
            bare.append(char)
    if inside or skip:
        raise PolicyError(f"AppArmorProfile.rules: a quote or escape is open in {text!r}")
    return "".join(bare)


def checked_rule(rule: Any, field: str = "extra_rules") -> Line:
    """A rule in the language itself; one line that can't end the profile.

    Raises: PolicyError.
    """
    if not isinstance(rule, str) or CONTROL.search(rule.replace("\t", " ")):
        raise PolicyError(f"AppArmorProfile.{field} are lines of text, not {rule!r}")
    text = rule.strip()
    bare = outside_quotes(text)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            raise PolicyError(f"AppArmorProfile.{field}: unbalanced braces in {rule!r}")
    if depth or bare.count("[") != bare.count("]"):
        raise PolicyError(f"AppArmorProfile.{field}: unbalanced braces in {rule!r}")
    if not bare.endswith(",") or "#" in bare or re.match(r"include\b|abi\b|profile\b", bare):
        raise PolicyError(
            f"AppArmorProfile.{field}: each is one rule that ends in ',', without comment or "
            f"include: {rule!r}"
        )
    return Line(text, field)


def own_rules(name: str) -> list[Line]:
    """Programs of one profile may talk to each other, and be ended from outside."""
    return [
        Line("signal (receive) peer=unconfined,", "name"),
        Line(f'signal (send, receive) peer="{name}",', "name"),
        Line(f'ptrace (trace, read, tracedby, readby) peer="{name}",', "name"),
    ]


def render(name: str, rules: Iterable[Line], complain: bool = False) -> tuple[str, tuple[str, ...]]:
    """(the text of a profile, the field behind each of its lines)."""
    flags = "attach_disconnected, mediate_deleted" + (", complain" if complain else "")
    lines = [
        Line(HEADER, "name"),
        Line(f'profile "{plain_name(name)}" flags=({flags}) {{', "name"),
        *(Line(f"  {line.text}", line.field) for line in (*rules, *own_rules(name))),
        Line("}", "name"),
    ]
    return "".join(f"{line.text}\n" for line in lines), tuple(line.field for line in lines)
