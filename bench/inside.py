# SPDX-License-Identifier: Apache-2.0
"""What `look` has seen inside a box, and what a box lacks against ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from attrs import Factory, define

__all__ = ["View", "lacks", "parse"]

REFUSED = {-1, -13, -38}  # EPERM, EACCES, ENOSYS
OWN_TYPES = {"tmpfs", "proc", "devpts", "mqueue", "sysfs", "cgroup2", "cgroup"}
KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


@define
class View:
    """One report, by kind of line."""

    namespaces: dict[str, str] = Factory(dict)
    status: dict[str, str] = Factory(dict)
    maps: list[tuple[int, int, int]] = Factory(list)
    mounts: list[list[str]] = Factory(list)
    links: list[str] = Factory(list)
    numbers: dict[str, dict[str, int]] = Factory(dict)


def parse(text: str) -> View:
    """A view of what `look` printed. Raises: ValueError, if it ended early."""
    view = View()
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "ns":
            name, _, value = rest.partition(" ")
            view.namespaces[name] = value
        elif kind == "status":
            name, _, value = rest.partition(":")
            view.status[name] = value.strip()
        elif kind == "uid_map":
            view.maps.append(tuple(map(int, rest.split())))  # type: ignore[arg-type]
        elif kind == "mount":
            view.mounts.append(rest.split(" "))
        elif kind == "link":
            name, colon, _ = rest.partition(":")
            if colon and "|" not in name:
                view.links.append(name.strip())
        elif kind in ("own", "open", "read", "call"):
            name, _, value = rest.rpartition(" ")
            view.numbers.setdefault(kind, {})[name] = int(value)
    if "TIOCSTI" not in view.numbers.get("call", {}):
        raise ValueError("the report from inside is not whole")
    return view


def identity(view: View, host: View) -> Iterable[str]:
    """Namespaces, ids, privileges."""
    shared = [kind for kind in KINDS if view.namespaces.get(kind) == host.namespaces.get(kind)]
    if shared:
        yield f"shares {' '.join(shared)}"
    held = [n for n in ("Eff", "Prm", "Inh", "Bnd", "Amb") if int(view.status[f"Cap{n}"], 16)]
    if held:
        yield f"capabilities ({' '.join(held)})"
    if view.status.get("NoNewPrivs") != "1":
        yield "no no_new_privs"
    uid = int(view.status["Uid"].split()[0])
    outer = [out + uid - first for first, out, n in view.maps if first <= uid < first + n]
    if "user" in shared and uid == 0 or any(each == 0 for each in outer):
        yield "is host uid 0"


def refusals(view: View, ours: View) -> Iterable[str]:
    """The filter, by what it refuses."""
    if view.status.get("Seccomp") != "2":
        yield "no filter"
        return
    weak = [
        name
        for name, value in ours.numbers["call"].items()
        if value in REFUSED and view.numbers["call"][name] not in REFUSED
    ]
    if weak:
        yield f"filter lets pass {' '.join(weak)}"


def files(view: View, ours: View) -> Iterable[str]:
    """What can be opened and read, and how it is mounted."""
    theirs = view.numbers["open"]
    for name, value in ours.numbers["open"].items():
        if value < 0 <= theirs[name]:
            yield f"opens {name}"
        elif theirs[name] < 0 <= value and name != "/root":
            yield f"has no {name.removesuffix('/isolate-look')}"
    shown = [name for name, n in view.numbers["read"].items() if n > 0]
    if shown:
        yield f"shows {' '.join(shown)}"
    loose, writable = 0, 0
    for words in view.mounts:
        options, kind = words[5].split(","), words[words.index("-") + 1]
        loose += "nosuid" not in options
        device = kind == "devtmpfs" and words[3] != "/"  # one of /dev, wherever it lies
        writable += "rw" in options and kind not in OWN_TYPES and not device
    if loose:
        yield f"{loose} mounts without nosuid"
    if writable:
        yield f"{writable} mounts of the host writable"


def rest(view: View, caller_sid: int) -> Iterable[str]:
    """Limits, session, network, descriptors."""
    own = view.numbers["own"]
    if own["core"]:
        yield "core dumps"
    if own["sid"] in (0, caller_sid):
        yield "no session of its own"
    if view.links != ["lo"]:
        yield f"sees {' '.join(view.links) or 'no link'}"
    elif own["lo"] != 1:
        yield "lo is down"
    if "fd" in own:
        yield "descriptors of the caller"


def lacks(view: View, ours: View, host: View) -> list[str]:
    """What this box does less than ours, each in a few words; empty if nothing."""
    sid = host.numbers["own"]["sid"]  # the caller's: `look_here` starts no session
    return [*identity(view, host), *refusals(view, ours), *files(view, ours), *rest(view, sid)]


def look_here(look: str) -> View:
    """The machine itself, without a box."""
    done = subprocess.run([look], capture_output=True, text=True, check=True)
    return parse(done.stdout)
