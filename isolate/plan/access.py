# SPDX-License-Identifier: Apache-2.0
"""What a program of a fresh box may do with a path, layer by layer, told without running anything.

Pure: what lies on the host is asked of a `Look` that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from isolate.plan.view import HOPS, Place, View
from isolate.policy.fields import inside

__all__ = [
    "DIRECTORY",
    "FILE",
    "LINK",
    "OPERATIONS",
    "Answer",
    "Found",
    "Look",
    "Node",
    "Said",
    "Who",
    "answer",
    "find",
]

OPERATIONS = ("read", "write", "execute", "create")
DIRECTORY, FILE, LINK = "directory", "file", "link"


@frozen(kw_only=True)
class Node:
    """One thing of a file system.

    Attributes:
        kind: DIRECTORY, FILE (of any sort) or LINK.
        mode: permission bits.
        uid, gid: the owner, as the host sees it.
        text: of a link.
        known: False where only a running box could tell, in /proc say.
    """

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    text: str = ""
    known: bool = True


Look = Callable[[str], "Node | None"]


@frozen(kw_only=True)
class Who:
    """Whose rights a program has over files.

    Attributes:
        uid: the host's uid whose files are the program's own; None for none's.
        gids: host groups that it is in.
        owned_uid, owned_gid: the same, on mounts that give the caller's files to the program.
        everything: it overrides permission bits: root outside of a user namespace.
        is_init: it has the id of isolate-init, the only one that an ordinary user can map.
    """

    uid: int | None = None
    gids: frozenset[int] = frozenset()
    owned_uid: int | None = None
    owned_gid: int | None = None
    everything: bool = False
    is_init: bool = False

    def bits(self, node: Node, place: Place) -> int:
        """The three permission bits that count for it."""
        if self.everything:
            any_x = bool(node.mode & 0o111) or node.kind == DIRECTORY
            return 6 | int(any_x)
        uid = self.owned_uid if place.owned else self.uid
        gids = {self.owned_gid} if place.owned else self.gids
        if place.kind != "bind":  # init made it
            return node.mode >> (6 if self.is_init else 0) & 7
        if uid is not None and node.uid == uid:
            return node.mode >> 6 & 7
        return node.mode >> 3 & 7 if node.gid in gids else node.mode & 7


@frozen
class Found:
    """Where a path leads in the view.

    Attributes:
        path: without links; the last name may be absent.
        place: the mount that holds it.
        node: what is there, None if nothing.
        passed: directories on the way, each with its mount.
        why: what stopped the walk before its end; empty if nothing did.
    """

    path: str
    place: Place
    node: Node | None
    passed: tuple[tuple[str, Node, Place], ...] = ()
    why: str = ""


def node_at(path: str, view: View, look: Look) -> tuple[Node | None, Place]:
    """What is at a path without links before its last name, and the mount that holds it."""
    place = view.mount_of(path) or view.places[0]
    made = view.made_at(path)
    if made is not None:
        kind = {"dir": DIRECTORY, "link": LINK}.get(made.kind, FILE)
        return Node(kind=kind, mode=made.mode & 0o777, text=made.source), place
    if place.kind == "bind":
        rest = path[len(place.path.rstrip("/")) :]
        return look(place.source.rstrip("/") + rest or "/"), place
    if place.kind != "tmpfs":  # made by the kernel, or of several parts: only a run could tell
        return Node(kind=FILE if place.kind == "mask" else DIRECTORY, known=False), place
    if path == place.path:
        return Node(kind=DIRECTORY, mode=place.mode & 0o777), place
    if any(inside(each.path, path) for each in view.places):
        return Node(kind=DIRECTORY), place  # made on the way to a mount below it
    return None, place


def steps_of(path: str) -> list[str]:
    """Its names."""
    return [name for name in path.split("/") if name not in ("", ".")]


def find(path: str, view: View, look: Look, follow: bool = True) -> Found:
    """Walk a path as the kernel would inside the box, links and all."""
    todo, here, hops = steps_of(path), "/", 0
    passed: list[tuple[str, Node, Place]] = []
    root, place = node_at("/", view, look)
    node = root
    while todo:
        if node is None or node.kind != DIRECTORY:
            return Found(here, place, None, tuple(passed), f"{here} is no directory")
        passed.append((here, node, place))
        if not node.known:
            unknown = Node(kind=FILE, known=False)
            return Found("/".join([here, *todo]), place, unknown, tuple(passed))
        name = todo.pop(0)
        if name == "..":
            here = here.rpartition("/")[0] or "/"
            node, place = node_at(here, view, look)
            continue
        below = f"{here.rstrip('/')}/{name}"
        node, place = node_at(below, view, look)
        if node is None:
            why = f"{below} is not there" if todo else ""
            return Found(below, place, None, tuple(passed), why)
        if node.kind == LINK and (todo or follow):
            hops += 1
            if hops > HOPS:
                return Found(below, place, None, tuple(passed), f"{path} goes round in links")
            todo = [*steps_of(node.text), *todo]
            here = "/" if node.text.startswith("/") else here
            node, place = node_at(here, view, look)
            continue
        here = below
    return Found(here, place, node, tuple(passed))


@frozen
class Said:
    """One layer's answer: allowed is None where it can't be known without a run."""

    layer: str
    allowed: bool | None
    why: str


@frozen
class Answer:
    """All layers' answers to one question.

    Attributes:
        operation, path: the question.
        layers: in the order in which they would be asked.
    """

    operation: str
    path: str
    layers: tuple[Said, ...]

    @property
    def allowed(self) -> bool | None:
        """Refused if one refuses; None if it hangs on one that can't be known."""
        told = [said.allowed for said in self.layers]
        return False if False in told else None if None in told else True

    def __bool__(self) -> bool:
        return self.allowed is True

    def __str__(self) -> str:
        words = {True: "allowed", False: "refused", None: "not known"}
        lines = [f"{self.operation} {self.path}: {words[self.allowed]}"]
        lines += [f"  {each.layer:<9} {words[each.allowed]:<9} {each.why}" for each in self.layers]
        return "\n".join(lines) + "\n"


def mount_says(operation: str, found: Found) -> Said:
    """The mount's flags."""
    place = found.place
    about = f"{place.path} is a {place.kind} mount"
    if operation in ("write", "create") and not place.writable:
        return Said("mounts", False, f"{about}, read-only")
    if operation == "execute" and not place.executable:
        return Said("mounts", False, f"{about}, without programs (noexec)")
    return Said("mounts", True, about)


def presence_says(operation: str, found: Found) -> Said:
    """Whether there is something there, of a kind that the operation is for."""
    node = found.node
    if found.why:
        return Said("view", False, found.why)
    if node is not None and not node.known:
        return Said("view", None, f"{found.path} is made by the kernel; ask a running box")
    if operation == "create":
        there = node is not None
        return Said("view", not there, f"{found.path} is {'there already' if there else 'free'}")
    if node is None:
        return Said("view", False, f"{found.path} is not in the box's view")
    if node.kind == DIRECTORY and operation != "read":
        return Said("view", False, f"{found.path} is a directory")
    return Said("view", True, f"{found.path} is a {node.kind}")


def bits_say(operation: str, found: Found, who: Who) -> Said:
    """Permission bits, of the thing and of every directory on the way."""
    for path, node, place in found.passed:
        if node.known and not who.bits(node, place) & 1:
            return Said("files", False, f"{path} may not be passed: mode {node.mode:o}")
    if operation == "create":
        path, node, place = found.passed[-1]
        ok = who.bits(node, place) & 3 == 3
        return Said("files", ok, f"mode {node.mode:o} of {path}")
    if found.node is None:
        return Said("files", False, "nothing is there")
    need = {"read": 4, "write": 2, "execute": 1}[operation]
    bits = who.bits(found.node, found.place)
    return Said("files", bool(bits & need), f"mode {found.node.mode:o} of {found.path}")


def answer(
    operation: str,
    path: str,
    view: View,
    look: Look,
    who: Who,
    later: Callable[[str, Found], Iterator[Said]],
) -> Answer:
    """The view's, the mounts' and the files' answers, then those of `later` layers."""
    found = find(path, view, look)
    first = presence_says(operation, found)
    said: list[Said] = [first]
    if first.allowed is not False:
        said.append(mount_says(operation, found))
        if first.allowed:
            said.append(bits_say(operation, found, who))
        said += later(operation, found)
    return Answer(operation, path, tuple(said))
