# SPDX-License-Identifier: Apache-2.0
"""Policies as files: TOML or JSON, versioned; all mistakes of a file are told together.

A document has `version = 1`, `weaken`, and one table a primitive, named like its module
(`[namespace]`, `[rlimit]`, …), mounts as an array of tables. Keys are the fields' names; sizes and
durations may be text ("64M", "500ms").
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import NOTHING, fields

from isolate.errors import PolicyError
from isolate.policy.apparmor import AppArmorProfile
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.cgroup import CgroupLimit, HugetlbLimit, IoLimit
from isolate.policy.chroot import Chroot
from isolate.policy.deadline import Deadline
from isolate.policy.identity import Identity
from isolate.policy.landlock import Landlock
from isolate.policy.mount import Mount
from isolate.policy.namespace import IdMap, Namespace
from isolate.policy.network import Network
from isolate.policy.policy import Policy
from isolate.policy.rlimit import INFINITY, Rlimit
from isolate.policy.rules import Action, Compare, Condition, Errno, Layer, Rule
from isolate.policy.seccomp import SeccompFilter, silence

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["VERSION", "dumps", "from_dict", "load", "loads", "to_dict"]

VERSION = 1
MAX_SIZE = 1 << 20
TABLES: dict[str, type[Any]] = {
    "namespace": Namespace,
    "chroot": Chroot,
    "mount": Mount,
    "cgroup": CgroupLimit,
    "capabilities": CapabilitySet,
    "rlimit": Rlimit,
    "network": Network,
    "identity": Identity,
    "deadline": Deadline,
    "seccomp": SeccompFilter,
    "landlock": Landlock,
    "apparmor": AppArmorProfile,
}
NAMES = {kind: name for name, kind in TABLES.items()}
NESTED: dict[str, type[Any]] = {
    "namespace.uid_map": IdMap,
    "namespace.gid_map": IdMap,
    "chroot.mounts": Mount,
    "cgroup.io": IoLimit,
    "cgroup.hugetlb": HugetlbLimit,
    "seccomp.layers": Layer,
    "seccomp.layers.rules": Rule,
    "seccomp.layers.rules.conditions": Condition,
}
ABSENT: dict[type[Any], tuple[str, ...]] = {  # None
    Chroot: ("path",),
    AppArmorProfile: ("name",),
    IdMap: ("outside",),
}
ACTION = re.compile(r"errno\((\w+)\)")
BIG = 1 << 63  # what a TOML integer can't hold


class Mistakes(list[str]):
    """What is wrong so far, each with its key."""

    def add(self, where: str, error: object) -> None:
        """One more."""
        self.append(f"{where}: {error}")


# -- values into documents


def plain(value: Any) -> Any:
    """One field's value as what TOML and JSON both have."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Compare):
        return value.value
    if isinstance(value, Action):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, frozenset):
            return sorted(value)
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return table(value) if hasattr(value, "__attrs_attrs__") else value
    if value == INFINITY:
        return "infinity"
    return hex(value) if value >= BIG else value


def table(item: Any) -> dict[str, Any]:
    """An attrs value as a table: what differs from the default, and what has none."""
    if isinstance(item, Layer) and SeccompFilter((item,)) == SeccompFilter.default():
        return {"name": "default"}
    found = {}
    for each in fields(type(item)):
        value = getattr(item, each.name)
        if value is not None and (value != each.default or isinstance(item, CapabilitySet)):
            found[each.name] = plain(value)
    return found


def to_dict(policy: Policy) -> dict[str, Any]:
    """A document. Raises: PolicyError for a primitive that has no form in a file."""
    document: dict[str, Any] = {"version": VERSION}
    if policy.weaken:
        document["weaken"] = sorted(policy.weaken)
    for item in policy.primitives:
        name = NAMES.get(type(item))
        if name is None:
            raise PolicyError(f"a {type(item).__name__} can't be written to a file")
        if isinstance(item, SeccompFilter) and item.handlers:
            raise PolicyError("a handler is a function: it can't be written to a file")
        if isinstance(item, Mount):
            document.setdefault(name, []).append(table(item))
        else:
            document[name] = table(item)
    return document


def toml_value(value: Any) -> str:
    """One value, in a line; a list of tables has a line for each."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {toml_value(each)}" for key, each in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, list):
        parts = list(map(toml_value, value))
        if len(parts) > 1 and isinstance(value[0], Mapping):  # rules: one a line
            return "[\n" + "".join(f"    {each},\n" for each in parts) + "]"
        return "[" + ", ".join(parts) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def toml(document: Mapping[str, Any]) -> str:
    """The shapes that `to_dict` makes, as TOML; `tomllib` only reads."""
    lines = []
    for key, value in document.items():
        if not isinstance(value, (Mapping, list)) or key == "weaken":
            lines.append(f"{key} = {toml_value(value)}")
    for key, value in document.items():
        tables = value if isinstance(value, list) and key != "weaken" else [value]
        for each in tables:
            if isinstance(each, Mapping):
                lines += ["", f"[[{key}]]" if isinstance(value, list) else f"[{key}]"]
                lines += [f"{name} = {toml_value(inner)}" for name, inner in each.items()]
    return "\n".join(lines) + "\n"


def dumps(policy: Policy, format: str = "toml") -> str:
    """A policy as text. Raises: PolicyError."""
    document = to_dict(policy)
    text = toml(document) if known(format) == "toml" else json.dumps(document, indent=1) + "\n"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PolicyError(f"a name that is no UTF-8 can't be written to a file: {error}") from None
    return text


# -- documents into values


def known(format: str) -> str:
    """"toml" or "json". Raises: PolicyError."""
    if format not in ("toml", "json"):
        raise PolicyError(f"a policy file is toml or json, not {format!r}")
    return format


def action(value: Any) -> Action:
    """ "allow", "errno(EPERM)", …"""
    if not isinstance(value, str):
        raise PolicyError(f"an action is text, not {value!r}")
    if match := ACTION.fullmatch(value):
        return Errno(int(match[1]) if match[1].isdigit() else match[1])
    return Action(value)


def number(value: Any) -> Any:
    """ "infinity" and "0x…" as ints; the rest as it is, for the field's own check."""
    if value == "infinity":
        return INFINITY
    if isinstance(value, str) and value.startswith("0x"):
        return int(value, 16)
    return [number(each) for each in value] if isinstance(value, list) else value


def content(value: Any) -> bytes:
    """{base64 = "…"}, or text."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Mapping) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise PolicyError(f"is no base64: {error}") from None
    raise PolicyError(f'is text, or {{base64 = "..."}}, not {value!r}')


def pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """[[kind, target], …]"""
    found = tuple(tuple(each) for each in value)
    if any(len(each) != 2 or not all(isinstance(text, str) for text in each) for each in found):
        raise PolicyError("is a list of [kind, target]")
    return found


def refused(why: str) -> Any:
    """Raises: PolicyError."""
    raise PolicyError(why)


SPECIAL: dict[tuple[type[Any], str], Callable[[Any], Any]] = {
    (Mount, "data"): content,
    (Mount, "lower"): tuple,
    (Chroot, "lower"): tuple,
    (Namespace, "joins"): pairs,
    (Rule, "action"): action,
    (Layer, "default"): action,
    (Layer, "unknown"): action,
    (Layer, "arches"): tuple,
    (SeccompFilter, "skipped"): tuple,
    (SeccompFilter, "handlers"): lambda value: refused("a handler is a function, not text"),
    (SeccompFilter, "silent"): silence,
    (Condition, "compare"): Compare,
    (Condition, "value"): number,
    (Condition, "mask"): number,
}


def field_value(kind: type[Any], each: Any, value: Any) -> Any:
    """One field, converted and checked as its class would, but by itself."""
    if (kind, each.name) in SPECIAL:
        value = SPECIAL[kind, each.name](value)
    elif kind is Rlimit:
        value = number(value)
        value = tuple(value) if isinstance(value, list) else value
    elif each.type in ("bool", bool) and not isinstance(value, bool):
        raise PolicyError(f"is true or false, not {value!r}")
    elif each.type in ("int", int) and (isinstance(value, bool) or not isinstance(value, int)):
        raise PolicyError(f"is a whole number, not {value!r}")
    elif each.type in ("str", str) and not isinstance(value, str):
        raise PolicyError(f"is text, not {value!r}")
    if kind is CapabilitySet:
        CapabilitySet(permitted=value, effective=(), ambient=())
        return value
    checked = each.converter(value) if each.converter else value
    if each.validator:
        each.validator(object.__new__(kind), each, checked)
    return value


def told(error: Exception) -> str:
    """Its text; the keys name the place already."""
    return "; ".join(map(str, error.args)) or type(error).__name__


def made(kind: type[Any], data: Any, where: str, path: str, wrong: Mistakes) -> Any:
    """One value from its table; None, and what is wrong, if it can't be."""
    if not isinstance(data, Mapping):
        wrong.add(where, f"is a table, not {data!r}")
        return None
    if kind is Layer and dict(data) == {"name": "default"}:
        return SeccompFilter.default().layers[0]
    attributes = {each.name: each for each in fields(kind)}
    values: dict[str, Any] = dict.fromkeys(ABSENT.get(kind, ()))
    before = len(wrong)
    for name, each in attributes.items():
        if each.default is NOTHING and name not in {**data, **values} and kind is not CapabilitySet:
            wrong.add(f"{where}.{name}", "is missing")
    for key, value in data.items():
        place = f"{where}.{key}"
        if key not in attributes:
            near = difflib.get_close_matches(str(key), attributes, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(attributes)}"
            wrong.add(place, f"no such field{hint}")
        elif inner := NESTED.get(f"{path}.{key}"):
            values[key] = many(inner, value, place, f"{path}.{key}", wrong)
        else:
            try:
                values[key] = field_value(kind, attributes[key], value)
            except (PolicyError, TypeError, ValueError, AttributeError) as error:
                wrong.add(place, told(error))
    if len(wrong) > before:
        return None
    try:
        return kind(**values)
    except (PolicyError, TypeError) as error:
        wrong.add(where, told(error))
        return None


def many(kind: type[Any], data: Any, where: str, path: str, wrong: Mistakes) -> tuple[Any, ...]:
    """An array of tables."""
    if not isinstance(data, list):
        wrong.add(where, f"is a list of tables, not {data!r}")
        return ()
    return tuple(made(kind, each, f"{where}[{i}]", path, wrong) for i, each in enumerate(data))


def from_dict(document: Any) -> Policy:
    """The policy of a document.

    Raises: PolicyError with every mistake, each with its key.
    """
    wrong = Mistakes()
    if not isinstance(document, Mapping):
        raise PolicyError(f"a policy is a table, not {document!r}")
    if document.get("version") != VERSION or isinstance(document.get("version"), bool):
        wrong.add("version", f"must be {VERSION}, not {document.get('version')!r}")
    weaken = document.get("weaken", [])
    if not isinstance(weaken, list) or not all(isinstance(each, str) for each in weaken):
        wrong.add("weaken", f"is a list of names, not {weaken!r}")
    items: list[Any] = []
    for key, data in document.items():
        if key in ("version", "weaken"):
            continue
        if key not in TABLES:
            near = difflib.get_close_matches(str(key), TABLES, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(TABLES)}"
            wrong.add(str(key), f"no such primitive{hint}")
        elif key == "mount":
            items += many(Mount, data, key, key, wrong)
        else:
            items.append(made(TABLES[key], data, key, key, wrong))
    if wrong:
        raise PolicyError(*wrong)
    return Policy(*items, weaken=weaken)


def distinct(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that is there twice says two things. Raises: PolicyError."""
    found = dict(items)
    if len(found) < len(items):
        keys = [key for key, _ in items]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise PolicyError(f"a key is there twice: {', '.join(twice)}")
    return found


def from_json(text: str) -> Any:
    """JSON without double keys."""
    return json.loads(text, object_pairs_hook=distinct)


def loads(text: str, format: str = "toml") -> Policy:
    """A policy from text. Raises: PolicyError."""
    parse: Callable[[str], Any] = tomllib.loads if known(format) == "toml" else from_json
    try:
        document = parse(text)
    except PolicyError:
        raise
    except (ValueError, RecursionError) as error:  # both decoders' errors are ValueErrors
        raise PolicyError(f"the policy is no {format.upper()}: {error}") from None
    return from_dict(document)


def load(path: str | os.PathLike[str]) -> Policy:
    """A policy from a file, by its ending: .toml or .json.

    Raises: PolicyError; OSError if it can't be read.
    """
    file = Path(path)
    with file.open("rb") as stream:
        data = stream.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise PolicyError(f"{file}: more than {MAX_SIZE} bytes are no policy")
    try:
        return loads(data.decode("utf-8"), file.suffix.lstrip("."))
    except UnicodeDecodeError as error:
        raise PolicyError(f"{file}: no UTF-8: {error}") from None
    except PolicyError as error:
        raise PolicyError(*(f"{file}: {each}" for each in error.args)) from None
