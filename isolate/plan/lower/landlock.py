# SPDX-License-Identifier: Apache-2.0
"""`Landlock` into rulesets: the view's in isolate-init, once a box; its own in each program."""

from __future__ import annotations

from attrs import frozen

from isolate.abi import landlock as abi
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.host.facts import Host
from isolate.plan.lower.draft import Draft, encoded
from isolate.plan.view import Grants, grants_of, view_of
from isolate.policy.fields import inside
from isolate.policy.landlock import Landlock
from isolate.policy.namespace import Namespace
from isolate.policy.network import Network

__all__ = ["PathRule", "Ruleset", "lower", "lower_box", "missing", "ruleset", "view_ruleset"]

HINT = "use a kernel with Landlock at that level, or say Landlock(level=N) for less"
VIEW_LEVEL = 2  # level 1 would refuse every rename between directories


@frozen
class PathRule:
    """Names of rights below one path."""

    path: str
    rights: tuple[str, ...]
    optional: bool = False


@frozen(kw_only=True)
class Ruleset:
    """One layer.

    Attributes:
        fs, net, scope, log: names of what it rules; what no rule grants is refused.
        paths, ports: the rules.
    """

    fs: tuple[str, ...] = ()
    net: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    paths: tuple[PathRule, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()

    def allows(self, right: str, path: str) -> bool:
        """Whether a right on a path passes this layer; a model of the kernel's walk upwards."""
        if right not in self.fs:
            return True
        return any(right in rule.rights and inside(path, rule.path) for rule in self.paths)


def ruled(wanted: Landlock) -> dict[str, tuple[str, ...]]:
    """The rights that each field of paths rules, at the policy's own level."""
    fields = {"read": abi.READ, "write": abi.WRITE, "execute": abi.EXECUTE}
    known = abi.names_at(abi.FS, wanted.needs)
    return {
        field: tuple(name for name in names if name in known)
        for field, names in fields.items()
        if getattr(wanted, field) is not None
    }


def wanted_names(wanted: Landlock) -> list[tuple[str, int]]:
    """Everything that it wants enforced, with the level that each needs."""
    found = [(name, abi.FS[name][1]) for names in ruled(wanted).values() for name in names]
    found += [("bind_tcp", 4)] if wanted.tcp_bind is not None else []
    found += [("connect_tcp", 4)] if wanted.tcp_connect is not None else []
    found += [(name, abi.SCOPE[name][1]) for name in wanted.scope]
    return found + [(f"log {name}", abi.LOG[name][1]) for name in wanted.log]


def missing(wanted: Landlock, level: int) -> tuple[str, ...]:
    """The exact rights that a kernel of that level can't enforce."""
    return tuple(name for name, since in wanted_names(wanted) if since > level)


def ruleset(wanted: Landlock, level: int) -> Ruleset:
    """Its own layer, as far as that level goes."""
    rights: dict[str, list[str]] = {}
    fs: list[str] = []
    for field, names in ruled(wanted).items():
        usable = [name for name in names if abi.FS[name][1] <= level]
        fs += usable
        for path in getattr(wanted, field):
            rights.setdefault(path, []).extend(usable)
    if fs and wanted.write is None and min(level, abi.MAX_LEVEL) >= 2:
        # A layer that rules files refuses moves between directories unless it grants them.
        fs.append("refer")
        rights.setdefault("/", []).append("refer")
    ports = [] if wanted.tcp_bind is None else [("bind_tcp", port) for port in wanted.tcp_bind]
    if wanted.tcp_connect is not None:
        ports += [("connect_tcp", port) for port in wanted.tcp_connect]
    net = (("tcp_bind", "bind_tcp"), ("tcp_connect", "connect_tcp"))
    return Ruleset(
        fs=tuple(fs),
        net=tuple(n for f, n in net if getattr(wanted, f) is not None and level >= 4),
        scope=tuple(name for name in wanted.scope if level >= 6),
        log=tuple(name for name in wanted.log if level >= 7),
        paths=tuple(PathRule(path, tuple(names)) for path, names in sorted(rights.items())),
        ports=tuple(ports) if level >= 4 else (),
    )


def view_ruleset(grants: Grants, level: int, scope: tuple[str, ...], tcp: bool) -> Ruleset:
    """The mounts again: all may be read, and each mount started from and written as it is."""
    known = abi.names_at(abi.FS, level)
    rights: dict[str, tuple[str, ...]] = dict.fromkeys(grants.read, abi.READ)
    optional: dict[str, bool] = dict.fromkeys(rights, False)
    proc = {each.path for each in grants.write if each.kind == "proc"}
    for places, names in ((grants.execute, abi.EXECUTE), (grants.write, abi.WRITE)):
        for place in places:
            given = ("write_file",) if place.path in proc and names is abi.WRITE else names
            rights[place.path] = rights.get(place.path, ()) + given
            optional[place.path] = optional.get(place.path, True) and place.optional
    return Ruleset(
        fs=known,
        net=abi.names_at(abi.NET, level) if tcp else (),
        scope=tuple(name for name in scope if abi.SCOPE[name][1] <= level),
        paths=tuple(
            PathRule(path, tuple(n for n in names if n in known), optional[path])
            for path, names in rights.items()
        ),
    )


def said(rights: tuple[str, ...]) -> str:
    """Rights in few words."""
    groups = {"read": abi.READ, "write": abi.WRITE, "execute": abi.EXECUTE}
    whole = [word for word, names in groups.items() if set(names) <= set(rights)]
    rest = [name for name in rights if not any(name in groups[word] for word in whole)]
    return ", ".join((*whole, *rest))


def emit(rules: Ruleset, draft: Draft, origin: Landlock, phase: Phase, name: str) -> None:
    """Create, fill, restrict."""
    slot = f"temp:{name}"
    handled = (
        abi.bits(abi.FS, rules.fs),
        abi.bits(abi.NET, rules.net),
        abi.bits(abi.SCOPE, rules.scope),
    )
    if not any(handled):
        return
    draft.op(
        OpCode.LANDLOCK_CREATE, phase, f"make the Landlock ruleset of the {name}", origin,
        slots=(None, slot), nums=handled,
    )  # fmt: skip
    for rule in rules.paths if rules.fs else ():
        draft.op(
            OpCode.LANDLOCK_PATH, phase, f"allow {said(rule.rights)} below {rule.path}", origin,
            encoded(rule.path), nums=(abi.bits(abi.FS, rule.rights),), slots=(slot,),
            flags=OpFlag.OPTIONAL if rule.optional else None,
        )  # fmt: skip
    for right, port in rules.ports:
        draft.op(
            OpCode.LANDLOCK_PORT, phase, f"allow {right} of port {port}", origin,
            nums=(abi.bits(abi.NET, (right,)), port), slots=(slot,),
        )  # fmt: skip
    draft.op(
        OpCode.LANDLOCK_RESTRICT, phase, f"enforce the Landlock ruleset of the {name}", origin,
        nums=(abi.bits(abi.LOG, rules.log),), slots=(slot,),
    )  # fmt: skip


def view_scope(draft: Draft) -> tuple[str, ...]:
    """Signals and abstract sockets stay in the box, unless it shares what they go through."""
    spaces = draft.policy.get(Namespace) or Namespace()
    scope = ("signal",) if spaces.pid else ()
    return scope + (("abstract_unix_socket",) if spaces.net else ())


def layer_of_view(draft: Draft) -> Ruleset | None:
    """The view's layer on this host, None where there is none."""
    level = min(draft.host.landlock, abi.MAX_LEVEL)
    grants = grants_of(view_of((*draft.template, *draft.ops), draft.steps))
    if level < VIEW_LEVEL or not grants.read:
        return None
    network = draft.policy.get(Network)
    no_net = network is not None and network.kind == "none"
    return view_ruleset(grants, level, view_scope(draft), no_net)


def lower_view(wanted: Landlock, draft: Draft) -> None:
    """After pivot_root, in init: every program is born in it, at no cost of its own."""
    rules = layer_of_view(draft)
    if rules is None:
        why = draft.host.landlock_why or f"the kernel's Landlock has level {draft.host.landlock}"
        draft.weaker("landlock", f"{why}: mounts alone hold the view")
        return
    emit(rules, draft, wanted, Phase.ROOT, "view")
    grants = grants_of(view_of((*draft.template, *draft.ops), draft.steps))
    unknown = [n for table in (abi.FS, abi.NET, abi.SCOPE) for n in unknown_to(table, draft.host)]
    tail = f"; unknown to it: {', '.join(unknown)}" if unknown else ""
    for doing, paths in (("starting", grants.unstartable), ("writing", grants.unwritable)):
        # Landlock can't take back below a path what it grants above.
        alone = [path for path in paths if not inside(path, "/proc")]
        tail += f"; mounts alone keep from {doing}: {', '.join(alone)}" if alone else ""
    level = min(draft.host.landlock, abi.MAX_LEVEL)
    draft.promise("landlock", f"the view's mounts again, level {level}{tail}")


def unknown_to(table: dict[str, tuple[int, int]], host: Host) -> list[str]:
    """What of a table is newer than the host."""
    return [name for name, (_, since) in table.items() if since > host.landlock]


def lower_box(wanted: Landlock, draft: Draft) -> None:
    """The view's layer, and the promise of its own. Raises: HostLacks naming the exact rights."""
    if wanted.view:
        lower_view(wanted, draft)
    if wanted.is_empty:
        return
    lacking = missing(wanted, draft.host.landlock)
    if lacking:
        why = draft.host.landlock_why or f"the kernel's Landlock has level {draft.host.landlock}"
        draft.lacks("landlock", f"{why}; not enforced: {', '.join(lacking)}", HINT)
        return
    names = ", ".join(name for name, _ in wanted_names(wanted))
    draft.promise("landlock", f"level {wanted.needs}: {names}")


def lower(wanted: Landlock, draft: Draft, has_no_new_privs: bool) -> None:
    """Its own layer, of each program: as written, as far as the host goes."""
    if wanted.is_empty or not draft.host.landlock:
        return
    if not has_no_new_privs:
        draft.op(OpCode.NO_NEW_PRIVS, Phase.LSM, "set no_new_privs", wanted)
    emit(ruleset(wanted, draft.host.landlock), draft, wanted, Phase.LSM, "policy")
