# SPDX-License-Identifier: Apache-2.0
"""The box's file system as its own ops make it: which mount holds a path, and how. Pure.

Landlock's rules, AppArmor's and `explain("write", path)` are all told from this, so that they can't
say anything else than the mounts do.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from attrs import evolve, frozen

from isolate.abi.flags import MOUNT_ATTR_NOEXEC, MOUNT_ATTR_RDONLY
from isolate.abi.ops import OpCode, OpFlag
from isolate.plan.model import Op, Step
from isolate.policy.fields import inside

__all__ = ["Grants", "Place", "View", "grants_of", "view_of"]


HOPS = 40  # as the kernel's MAXSYMLINKS


@frozen(kw_only=True)
class Place:
    """One mount of the box, or one thing that is made in a mount.

    Attributes:
        path: where, inside.
        kind: "tmpfs", "bind", "proc", "devpts", …; "mask"; or "file", "dir", "link" of the mount.
        source: the host path of a bind, a link's text.
        attr: MOUNT_ATTR_* of a mount.
        mode: permission bits of what is made.
        owned: the caller's files there are the program's.
        optional: whether it may be absent.
    """

    path: str
    kind: str
    source: str = ""
    attr: int = 0
    mode: int = 0o755
    owned: bool = False
    optional: bool = False

    @property
    def is_mount(self) -> bool:
        """Whether it is a mount."""
        return self.kind not in ("file", "dir", "link")

    @property
    def writable(self) -> bool:
        """Whether the mount may be written at all."""
        return self.is_mount and self.kind != "mask" and not self.attr & MOUNT_ATTR_RDONLY

    @property
    def executable(self) -> bool:
        """Whether the mount lets programs be started."""
        return self.is_mount and self.kind != "mask" and not self.attr & MOUNT_ATTR_NOEXEC


@frozen
class View:
    """All places, in the order in which they were made."""

    places: tuple[Place, ...]

    @property
    def mounts(self) -> tuple[Place, ...]:
        """The mounts alone."""
        return tuple(place for place in self.places if place.is_mount)

    def mount_of(self, path: str) -> Place | None:
        """The mount that shows at a path: the last that holds it, since it hides the others."""
        return next((each for each in reversed(self.mounts) if inside(path, each.path)), None)

    def made_at(self, path: str) -> Place | None:
        """What set-up made at a path, if its mount still shows there."""
        found: Place | None = None
        for place in self.places:
            if not place.is_mount and place.path == path:
                found = place
            elif place.is_mount and inside(path, place.path):
                found = None
        return found


def text(item: object) -> str:
    """A path among an op's strings."""
    return item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else ""


def bind(op: Op, steps: dict[str, Step]) -> Place:
    """A bind's place: its attributes are the parent's step's, or its own."""
    optional = bool(op.flags & OpFlag.OPTIONAL)
    root = op.code is OpCode.ROOT_BIND
    path = "/" if root else text(op.strs[1])
    slot = op.slots[0] if op.slots else None
    if slot is not None:
        source, _, attr, _, _, owned = steps[slot].args
        return Place(
            path=path, kind="bind", source=source, attr=attr, owned=owned, optional=optional
        )
    source = text(op.strs[0])
    return Place(
        path=path,
        kind="proc" if op.flags & OpFlag.FROM_ROOT and source.startswith("/proc") else "bind",
        source=source,
        attr=op.nums[0] if op.nums else 0,
        optional=optional,
    )


def place(op: Op, steps: dict[str, Step]) -> Place | None:
    """What one op makes, None if nothing."""
    code = op.code
    attr = op.nums[0] if op.nums else 0
    if code is OpCode.ROOT_TMPFS:
        return Place(path="/", kind="tmpfs", attr=attr)
    if code in (OpCode.ROOT_BIND, OpCode.BIND):
        return bind(op, steps)
    if code is OpCode.MOUNT_NEW:
        return Place(path=text(op.strs[2]), kind=text(op.strs[0]), attr=attr, mode=mode_of(op))
    if code is OpCode.OVERLAY:
        return Place(path=text(op.strs[1]), kind="overlay", attr=attr)
    if code is OpCode.ROOT_OVERLAY:
        return Place(path="/", kind="overlay", attr=attr)
    if code is OpCode.MASK:
        return Place(path=text(op.strs[0]), kind="mask", optional=True)
    if code is OpCode.MKDIR:
        return Place(path=text(op.strs[0]), kind="dir", mode=attr)
    if code is OpCode.FILE:
        return Place(path=text(op.strs[0]), kind="file", mode=attr)
    if code is OpCode.SYMLINK:
        return Place(path=text(op.strs[1]), kind="link", source=text(op.strs[0]))
    return None


def mode_of(op: Op) -> int:
    """The mode= of a new file system's root."""
    for option in (op.strs[1] or b"").split(b"\0") if isinstance(op.strs[1], bytes) else ():
        if option.startswith(b"mode="):
            return int(option[5:], 8)
    return 0o755


def changed(places: list[Place], op: Op) -> None:
    """MOUNT_ATTR: of the mount at that path, and of those below if it is recursive."""
    path = text(op.strs[0])
    added, cleared = (*op.nums, 0)[:2]
    last = max(i for i, each in enumerate(places) if each.is_mount and each.path == path)
    for i, each in enumerate(places):
        below = op.flags & OpFlag.RECURSIVE and each.is_mount and inside(each.path, path)
        if i == last or below:
            places[i] = evolve(each, attr=each.attr & ~cleared | added)


def led(path: str, links: dict[str, str], whole: bool) -> str:
    """Where a path leads through the links that set-up has made, /var/tmp say.

    Args:
        whole: whether its last name is followed as well, as a mount's target is.
    """
    for _ in range(HOPS):
        ends = [i for i, char in enumerate(path) if char == "/" and i] + [len(path)] * whole
        link = next((path[:end] for end in ends if path[:end] in links), None)
        if link is None:
            return path
        target = posixpath.join(posixpath.dirname(link), links[link])
        path = posixpath.normpath(target + path[len(link) :])
    return path


def view_of(ops: Iterable[Op], steps: Iterable[Step]) -> View:
    """The view that these ops make; empty where no root is made."""
    named = {step.slot: step for step in steps if step.slot}
    places: list[Place] = []
    links: dict[str, str] = {}
    for op in ops:
        if op.code is OpCode.MOUNT_ATTR:
            changed(places, op)
            continue
        made = place(op, named)
        if made is not None:
            made = evolve(made, path=led(made.path, links, made.is_mount))
            places.append(made)
            if made.kind == "link":
                links[made.path] = made.source
    return View(tuple(places))


@frozen(kw_only=True)
class Grants:
    """The view as lists of what is granted below a path: what Landlock and AppArmor can say.

    Attributes:
        read: paths with all below.
        write, execute: the places of mounts that allow it, and programs that set-up makes.
        unwritable, unstartable: mounts that refuse it though one above them grants it.
    """

    read: tuple[str, ...] = ()
    write: tuple[Place, ...] = ()
    execute: tuple[Place, ...] = ()
    unwritable: tuple[str, ...] = ()
    unstartable: tuple[str, ...] = ()


def starts_programs(place: Place, view: View) -> bool:
    """Whether programs are meant to be started there: not in a root of our own, nor in its /etc."""
    if not place.is_mount:
        made_here = view.mount_of(place.path)
        own = place.kind == "file" and place.mode & 0o111
        return bool(own and made_here and made_here.executable and view.made_at(place.path))
    if place.path == "/" and place.kind == "tmpfs":
        return False
    return place.executable and not inside(place.path, "/etc")


def below(places: Iterable[Place], others: Iterable[Place]) -> tuple[str, ...]:
    """Paths of those places that lie below one of the others."""
    above = [each.path for each in others]
    return tuple(p.path for p in places if any(inside(p.path, path) for path in above))


def grants_of(view: View) -> Grants:
    """What a view grants, mount by mount; what another mount hides is left out."""
    shown = [each for each in view.mounts if view.mount_of(each.path) is each]
    write = [each for each in shown if each.writable]
    made = [each for each in view.places if not each.is_mount]
    execute = [each for each in (*shown, *made) if starts_programs(each, view)]
    return Grants(
        read=("/",) if view.places else (),
        write=tuple(write),
        execute=tuple(execute),
        unwritable=below([each for each in shown if not each.writable], write),
        unstartable=below([each for each in shown if not each.executable], execute),
    )
