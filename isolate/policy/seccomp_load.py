# SPDX-License-Identifier: Apache-2.0
"""Docker's and OCI's JSON profiles, old and new form, as a `Layer`. No network, no host facts."""

from __future__ import annotations

import errno as errno_names
import json
import re
import reprlib
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from isolate.abi.caps import CAPABILITIES
from isolate.errors import PolicyError
from isolate.policy.rules import WORD, Action, Compare, Condition, Layer, Rule

__all__ = ["Loaded", "load", "parse"]

MAX_BYTES = 1 << 20
MAX_ENTRIES = 20_000  # names and arguments together; Docker's default has about 450
MAX_PROBLEMS = 50
MAX_ERRNO = 4095  # the kernel caps SECCOMP_RET_ERRNO there
ACTIONS = {
    "SCMP_ACT_KILL": "kill_thread",
    "SCMP_ACT_KILL_THREAD": "kill_thread",
    "SCMP_ACT_KILL_PROCESS": "kill_process",
    "SCMP_ACT_TRAP": "trap",
    "SCMP_ACT_ERRNO": "errno",
    "SCMP_ACT_LOG": "log",
    "SCMP_ACT_ALLOW": "allow",
}
REFUSED_ACTIONS = {
    "SCMP_ACT_NOTIFY": "a file can't say who answers; use a handler of SeccompFilter",
    "SCMP_ACT_TRACE": "a sandbox has no tracer; use SCMP_ACT_ERRNO",
}
OPS = {f"SCMP_CMP_{op.name}": op for op in Compare}
FLAGS = {
    f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
}
# This library's name of an ABI: as the profiles' filters (GOARCH) and as libseccomp spell it.
GOARCH = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "i386": "386"}
SCMP = {"x86_64": "X86_64", "aarch64": "AARCH64", "riscv64": "RISCV64", "i386": "X86"}
FURTHER = {("x86_64", "SCMP_ARCH_X86"): "i386"}
DOCUMENT = frozenset(
    "defaultAction defaultErrnoRet defaultErrno architectures archMap syscalls flags "
    "listenerPath listenerMetadata".split()
)
ENTRY = frozenset("name names action errnoRet errno args includes excludes comment".split())
CLAUSE = frozenset("caps arches minKernel".split())
ARGUMENT = frozenset("index value valueTwo op".split())
NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")
ARCH_NAME = re.compile(r"SCMP_ARCH_[A-Z0-9_]{1,32}")
VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


@frozen
class Loaded:
    """A profile resolved for one machine.

    Attributes:
        layer: the rules.
        skipped: system calls that `known` lacks and architectures that are never let in.
        flags: the SECCOMP_FILTER_FLAG_ names that the document asks for; a layer has none.
    """

    layer: Layer
    skipped: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@frozen
class Target:
    """What a document is resolved for."""

    arch: str
    caps: frozenset[str]
    kernel: tuple[int, int]
    known: Container[str] | None


@frozen
class Reader:
    """Typed access to untrusted values; mistakes are collected with their key paths."""

    problems: list[str] = field(factory=list)
    skipped: dict[str, None] = field(factory=dict)
    count: list[int] = field(factory=lambda: [0])

    def wrong(self, at: str, why: str) -> None:
        """Note a mistake."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{at}: {why}")

    def table(self, value: Any, at: str, keys: frozenset[str]) -> Mapping[str, Any]:
        """A mapping without unknown keys; null counts as empty."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.wrong(at, f"must be an object, not {show(value)}")
            return {}
        for key in value:
            if not isinstance(key, str) or key not in keys:
                self.wrong(at, f"unknown key {show(key)}; there are: {', '.join(sorted(keys))}")
        return value

    def items(self, value: Any, at: str) -> Iterator[tuple[str, Any]]:
        """The elements of a list with their paths; null counts as empty."""
        if value is not None and not isinstance(value, (list, tuple)):
            self.wrong(at, f"must be a list, not {show(value)}")
            return
        for index, item in enumerate(value or ()):
            self.count[0] += 1
            if self.count[0] > MAX_ENTRIES:
                raise PolicyError(*self.problems, f"{at}: more than {MAX_ENTRIES} entries in all")
            yield f"{at}[{index}]", item

    def texts(self, value: Any, at: str, valid: Callable[[str], object], what: str) -> list[str]:
        """A list of strings that pass `valid`."""
        found = []
        for path, item in self.items(value, at):
            if isinstance(item, str) and valid(item):
                found.append(item)
            else:
                self.wrong(path, f"{show(item)} is no {what}")
        return found

    def whole(self, value: Any, at: str, most: int) -> int | None:
        """An int from 0 to `most`, or None after noting the mistake."""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
        self.wrong(at, f"must be a whole number from 0 to {most}, not {show(value)}")
        return None


def show(value: Any) -> str:
    """A short repr."""
    try:
        return reprlib.repr(value)
    except Exception as error:  # a foreign __repr__, or an int of too many digits
        return f"<{type(value).__name__}: {type(error).__name__}>"


def errno_of(reader: Reader, table: Mapping[str, Any], at: str, key: str) -> int | None:
    """`errnoRet` and Podman's `errno` (a name), which must agree; None: neither is given."""
    number = table.get(f"{key}Ret")
    name = table.get(key)
    value = None if number is None else reader.whole(number, f"{at}{key}Ret", 0xFFFF)
    if name in (None, ""):
        return value
    named = getattr(errno_names, name, None) if isinstance(name, str) else None
    if not isinstance(named, int):
        reader.wrong(f"{at}{key}", f"{show(name)} is no errno")
    elif value not in (None, named):
        reader.wrong(f"{at}{key}", f"{name} is {named}, but {key}Ret says {value}")
    return named if isinstance(named, int) else value


def action_of(reader: Reader, name: Any, at: str, code: int | None) -> Action | None:
    """An action; None after noting a mistake. ERRNO without a number is EPERM, as in runc."""
    if not isinstance(name, str) or name not in ACTIONS:
        why = REFUSED_ACTIONS.get(name) if isinstance(name, str) else None
        fault = f"is refused: {why}" if why else f"is no action; there are: {', '.join(ACTIONS)}"
        reader.wrong(at, f"{show(name)} {fault}")
        return None
    if ACTIONS[name] == "errno":
        return Action("errno", errno_names.EPERM if code is None else min(code, MAX_ERRNO))
    if code:
        reader.wrong(at, f"{name} can't carry an errno")
    return Action(ACTIONS[name])


def condition(reader: Reader, raw: Any, at: str) -> Condition | None:
    """One of `args`; in MASKED_EQ, `value` is the mask and `valueTwo` the datum."""
    table = reader.table(raw, at, ARGUMENT)
    index = reader.whole(table.get("index"), f"{at}.index", 5)
    value = reader.whole(table.get("value"), f"{at}.value", WORD)
    second = table.get("valueTwo")
    two = 0 if second is None else reader.whole(second, f"{at}.valueTwo", WORD)
    op = table.get("op")
    compare = OPS.get(op) if isinstance(op, str) else None
    if compare is None:
        reader.wrong(f"{at}.op", f"{show(op)} is no comparison; there are: {', '.join(OPS)}")
    if index is None or value is None or two is None or compare is None:
        return None
    if compare is Compare.MASKED_EQ:
        return Condition(index, compare, two, value)
    return Condition(index, compare, value)


def version(reader: Reader, value: Any, at: str) -> tuple[int, int] | None:
    """"4.8" as (4, 8); None if not given."""
    if value is None:
        return None
    match = VERSION.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[0] == "0.0":
        reader.wrong(at, f"{show(value)} is no kernel version such as '4.8'")
        return None
    return int(match[1]), int(match[2])


def applies(reader: Reader, entry: Mapping[str, Any], at: str, target: Target) -> bool:
    """Whether `includes` and `excludes` leave an entry in; both are checked in any case."""
    keep = True
    for key in ("includes", "excludes"):
        path = f"{at}.{key}"
        table = reader.table(entry.get(key), path, CLAUSE)
        known = CAPABILITIES.__contains__
        caps = reader.texts(table.get("caps"), f"{path}.caps", known, "capability (CAP_…)")
        arches = reader.texts(table.get("arches"), f"{path}.arches", len, "architecture")
        least = version(reader, table.get("minKernel"), f"{path}.minKernel")
        here = GOARCH[target.arch] in arches
        if key == "includes":
            keep &= set(caps) <= target.caps and (here or not arches)
            keep &= least is None or target.kernel >= least
        else:
            keep &= not (set(caps) & target.caps or here)
            keep &= least is None or target.kernel < least
    return bool(keep)


def names_of(reader: Reader, entry: Mapping[str, Any], at: str) -> list[str]:
    """The system calls of an entry, from `name` or `names`."""
    if entry.get("name") and entry.get("names"):
        reader.wrong(at, "has both name and names; use one")
    single = [entry["name"]] if entry.get("name") else None
    many = entry.get("names") if single is None else single
    found = reader.texts(many, f"{at}.names", NAME.fullmatch, "system call's name")
    if not many:
        reader.wrong(at, "names no system call: name or names is missing or empty")
    return found


def entry_rules(
    reader: Reader, raw: Any, at: str, target: Target, default: Action | None
) -> Iterator[Rule]:
    """The rules of one element of `syscalls`.

    An entry that does what the default does adds nothing, and conditions of which two test the
    same argument are alternatives: both as runc has it, since libseccomp refuses such rules.
    """
    entry = reader.table(raw, at, ENTRY)
    names = names_of(reader, entry, at)
    code = errno_of(reader, entry, f"{at}.", "errno")
    action = action_of(reader, entry.get("action"), f"{at}.action", code)
    comment = entry.get("comment")
    if comment is not None and not isinstance(comment, str):
        reader.wrong(f"{at}.comment", f"must be text, not {show(comment)}")
        comment = None
    args = reader.items(entry.get("args"), f"{at}.args")
    given = [condition(reader, arg, path) for path, arg in args]
    conditions = tuple(test for test in given if test is not None)
    wanted = applies(reader, entry, at, target)
    if action is None or not wanted or action == default or len(conditions) < len(given):
        return
    repeated = len({test.index for test in conditions}) < len(conditions)
    cases = [(test,) for test in conditions] if repeated else [conditions]
    for name in names:
        if target.known is not None and name not in target.known:
            reader.skipped[name] = None
            continue
        for case in cases:
            yield Rule(name, action, case, comment or "")


def arches_of(reader: Reader, document: Mapping[str, Any], arch: str) -> tuple[str, ...]:
    """The further ABIs that are let in; x32 and those without a table are reported, not let in."""
    valid, what = ARCH_NAME.fullmatch, "architecture (SCMP_ARCH_…)"
    if document.get("architectures") and document.get("archMap"):
        reader.wrong("architectures", "given together with archMap; use one")
    native = f"SCMP_ARCH_{SCMP[arch]}"
    wanted = reader.texts(document.get("architectures"), "architectures", valid, what)
    for at, raw in reader.items(document.get("archMap"), "archMap"):
        table = reader.table(raw, at, frozenset({"architecture", "subArchitectures"}))
        main = reader.texts([table.get("architecture")], f"{at}.architecture", valid, what)
        subs = reader.texts(table.get("subArchitectures"), f"{at}.subArchitectures", valid, what)
        wanted += subs if main == [native] else []
    found: dict[str, None] = {}
    for name in wanted:
        if (arch, name) in FURTHER:
            found[FURTHER[arch, name]] = None
        elif name != native:
            reader.skipped[name] = None
    return tuple(found)


def parse(
    document: Mapping[str, Any],
    *,
    arch: str,
    caps: frozenset[str],
    kernel: tuple[int, int],
    name: str = "",
    known: Container[str] | None = None,
) -> Loaded:
    """Resolve a profile for an architecture, the box's capabilities and a kernel.

    Args:
        known: the system calls that this machine's tables name; others are skipped and reported.
            None keeps every well-formed name, for the compiler to judge.

    An errno above 4095 becomes 4095, as the kernel has it. Raises: PolicyError, with every
    mistake and its key path. Source: OCI runtime-spec, config-linux, "Seccomp"; moby/profiles.
    """
    if arch not in GOARCH:
        raise PolicyError(f"{show(arch)} is no architecture; there are: {', '.join(GOARCH)}")
    if not isinstance(document, Mapping):
        raise PolicyError(f"a seccomp profile is an object, not {show(document)}")
    reader, target = Reader(), Target(arch, frozenset(caps), kernel, known)
    table = reader.table(document, "profile", DOCUMENT)
    for key in ("listenerPath", "listenerMetadata"):
        if table.get(key):
            reader.wrong(key, "is refused: notifications go to this library's own supervisor")
    code = errno_of(reader, table, "", "defaultErrno")
    default = action_of(reader, table.get("defaultAction"), "defaultAction", code)
    arches = arches_of(reader, table, arch)
    flags = reader.texts(table.get("flags"), "flags", FLAGS.__contains__, "filter flag")
    rules = [
        rule
        for at, raw in reader.items(table.get("syscalls"), "syscalls")
        for rule in entry_rules(reader, raw, at, target, default)
    ]
    if reader.problems or default is None:
        raise PolicyError(*reader.problems)
    layer = Layer(tuple(dict.fromkeys(rules)), default, arches=arches, name=name)
    return Loaded(layer, tuple(reader.skipped), tuple(flags))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ; a second one would silently replace the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice in one object")
    return found


def load(
    source: str | Path | Mapping[str, Any],
    *,
    arch: str,
    caps: frozenset[str],
    kernel: tuple[int, int],
    known: Container[str] | None = None,
) -> Loaded:
    """Read a profile from a file (at most 1 MiB) or a mapping; see `parse`.

    Raises: PolicyError for what the file says; OSError, if it can't be read.
    """
    if isinstance(source, Mapping):
        return parse(source, arch=arch, caps=caps, kernel=kernel, known=known)
    with open(source, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{source}: a seccomp profile has at most {MAX_BYTES} bytes")
    try:
        document = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{source}: no JSON profile: {error}") from None
    name = Path(source).name
    return parse(document, arch=arch, caps=caps, kernel=kernel, name=name, known=known)
