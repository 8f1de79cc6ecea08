# SPDX-License-Identifier: Apache-2.0
"""`Namespace` and `Identity` into clone flags, id maps, setns and names."""

from __future__ import annotations

from isolate.abi.flags import CLONE_NEWTIME, NAMESPACES, namespace_names
from isolate.abi.ops import OpCode, OpFlag, Phase
from isolate.errors import HostLacks, PolicyConflict
from isolate.host.facts import Host
from isolate.plan.lower.draft import Draft
from isolate.plan.model import Op
from isolate.policy.chroot import Chroot
from isolate.policy.identity import Identity
from isolate.policy.namespace import IdMap, Namespace
from isolate.policy.network import Network

__all__ = ["lower", "user_hint"]

SECCOMP_HINT = (
    "start the container with --security-opt seccomp=unconfined, or with a profile that lets "
    "clone, unshare, setns, mount and their kin through"
)
# The user namespace first: it gives the right to join the others, where it owns them; the mount
# namespace last: it changes what paths mean.
JOIN_ORDER = ("user", "cgroup", "ipc", "uts", "net", "pid", "time", "mount")
NEEDS = {
    "time": ("unshare",),
    "mount": ("mount", "umount2", "open_tree", "mount_setattr"),
}
MAY_REFUSE = "it is tried; the seccomp filter around this process may refuse it"
REFUSED = "a seccomp filter around this process refuses it"
IDS_HINT = (
    "give the container CAP_SETUID, CAP_SETGID and 65536 ids (podman: --userns=auto:size=65536), "
    "and for write= CAP_SYS_ADMIN in the initial user namespace"
)
Lines = tuple[tuple[int, int | None, int], ...]


def lines(maps: tuple[IdMap, ...]) -> Lines:
    """Plain tuples, for the step."""
    return tuple((each.inside, each.outside, each.count) for each in maps)


def ids_why(draft: Draft) -> str:
    """Why a box of root can't have ids of its own here; empty if it can."""
    host = draft.host
    if host.ids_why:
        return host.ids_why
    root = draft.policy.get(Chroot)
    writes = [each.source for each in draft.policy.mounts if each.kind == "bind" and each.writable]
    if root is not None:
        writes += [*root.write, *([root.path] if root.writable else [])]
    if writes and not (host.sys_admin and host.idmap):
        return f"{writes[0]} can't be shown to them as theirs: that needs an idmapped mount"
    return ""


def own_ids(draft: Draft) -> bool:
    """Whether the box gets host ids that nobody else has. Raises: HostLacks."""
    if draft.host.euid != 0:
        return False
    why = ids_why(draft)
    if why:
        draft.lacks("ids", why, IDS_HINT)
    else:
        draft.promise("ids", "host ids of its own")
    return not why


def default_maps(draft: Draft, identity: Identity | None) -> tuple[Lines, Lines]:
    """Root gets ids that nobody else has; others map the one id that they are."""
    host = draft.host
    if own_ids(draft):
        draft.reserved_ids = True
        if identity is None:
            return ((0, None, 1),), ((0, None, 1),)
        return (
            ((0, None, 1), (identity.uid, None, 1)),
            ((0, None, 1), (identity.gid, None, 1)),
        )
    uid = identity.uid if identity else host.euid
    gid = identity.gid if identity else host.egid
    return ((uid, host.euid, 1),), ((gid, host.egid, 1),)


def lower_user(namespace: Namespace, draft: Draft) -> None:
    """The user namespace's maps, and init's own ids in it."""
    host = draft.host
    identity = draft.policy.get(Identity)
    if not draft.new("user"):
        if identity and host.euid == 0:
            draft.lacks("ids", "without a user namespace programs are this root", IDS_HINT)
        return
    if namespace.uid_map or namespace.gid_map:
        uids, gids = lines(namespace.uid_map), lines(namespace.gid_map)
        if not uids or not gids:
            theirs = default_maps(draft, identity)
            draft.reserved_ids = False
            uids, gids = uids or theirs[0], gids or theirs[1]
    else:
        uids, gids = default_maps(draft, identity)
    if any(outside is None for _, outside, _ in (*uids, *gids)):
        draft.reserved_ids = True
        count = sum(count for _, outside, count in uids if outside is None)
        draft.step(
            "reserve_ids", f"reserve {count} host ids", namespace, max(count, 2), *host.id_range
        )
    alone = host.euid != 0 or bool(host.ids_why)
    draft.step("id_map", "write uid_map and gid_map", namespace, uids, gids, alone)
    if alone:
        return
    draft.op(OpCode.SETGROUPS, Phase.IDS, "drop supplementary groups", namespace, b"")
    init_ids(namespace, draft, uids[0][0], gids[0][0])


def wanted(namespace: Namespace, draft: Draft) -> tuple[str, ...]:
    """The kinds to be new: what is asked for, and what a root, mounts and links need.

    Otherwise they would be made in the machine's own. Raises: PolicyConflict: mounts in a
    namespace that is joined would be others' mounts.
    """
    policy, joined = draft.policy, {kind for kind, _ in namespace.joins}
    kinds = set(namespace.kinds)
    if policy.get(Chroot) is not None or policy.mounts:
        kinds.add("mount")
        if "mount" in joined:
            raise PolicyConflict("a Chroot or Mount can't go with a mount namespace that is joined")
    links = policy.get(Network)
    if links is not None and links.kind != "host" and "net" not in joined:
        kinds.add("net")
    return tuple(kind for kind in NAMESPACES if kind in kinds)


def created(namespace: Namespace, draft: Draft) -> None:
    """The clone flags of what can be new here; the rest is refused or weakened, kind by kind."""
    host, kinds = draft.host, wanted(namespace, draft)
    if "user" in kinds and host.user_namespaces:
        draft.clone_flags |= NAMESPACES["user"]
    elif "user" in kinds:
        names = "" if host.sys_admin else f" (all of {', '.join(kinds)} need it)"
        draft.lacks("user", host.user_why + names, user_hint(host))
    has_right = host.sys_admin or draft.new("user") or draft.joins_user()
    able = has_right and "clone" not in host.refused
    for kind in kinds[1:] if "user" in kinds else kinds:
        if "clone" in host.refused or set(NEEDS.get(kind, ())) & set(host.refused):
            draft.lacks(kind, REFUSED, SECCOMP_HINT)
        elif not able and "user" in kinds:
            draft.lacks(kind, f"it needs a user namespace: {host.user_why}", user_hint(host))
        else:  # not able: the kernel's own answer names the step
            draft.clone_flags |= NAMESPACES[kind]


def user_hint(host: Host) -> str:
    """What to do about missing user namespaces."""
    if "clone" in host.refused:
        return SECCOMP_HINT
    cures = {
        "sysctl": "set that sysctl",
        "CAP_SETFCAP": "start the container with --cap-add SETFCAP",
        "/proc": "mount a /proc",
    }
    cure = next((what for word, what in cures.items() if word in host.user_why), None)
    found = cure or "use a kernel with CONFIG_USER_NS"
    return found if host.euid == 0 else f"{found}, or run as root"


def lower_joins(namespace: Namespace, draft: Draft) -> None:
    """setns in a first init, and its clone with the flags of the box. Raises: HostLacks."""
    if "setns" in draft.host.refused:
        raise HostLacks("join", "a seccomp filter around this process refuses setns", SECCOMP_HINT)
    as_root = draft.host.euid == 0 and draft.joins_user()
    first: list[tuple[str, OpCode, tuple[bytes, ...]]] = [
        # Before others there can see it.
        ("make init not dumpable", OpCode.DUMPABLE, ())
    ]
    if as_root:  # before it may be denied there
        first.append(("drop supplementary groups", OpCode.SETGROUPS, (b"",)))
    draft.joining += [
        Op(code=code, phase=Phase.NAMESPACE, about=about, origin=namespace, strs=strs, nums=(0,))
        for about, code, strs in first
    ]
    for kind in JOIN_ORDER:
        for target in (where for each, where in namespace.joins if each == kind):
            about, slot = f"join the {kind} namespace of {target}", f"ns:{kind}"
            draft.step("open_ns", about, namespace, target, kind, slot=slot)
            draft.joining.append(
                Op(
                    code=OpCode.SETNS, phase=Phase.NAMESPACE, about=about, origin=namespace,
                    nums=(NAMESPACES[kind],), slots=(slot,),
                )
            )  # fmt: skip
            draft.promise(f"joined {kind}", target)
    flags = draft.clone_flags
    draft.joining.append(
        Op(
            code=OpCode.REBORN, phase=Phase.NAMESPACE, origin=namespace,
            about=f"clone the box's init with {namespace_names(flags)}",
            nums=(flags,), slots=("reborn",),
        )
    )  # fmt: skip
    if as_root:
        draft.reserved_ids = True  # its ids are not those that init comes with
        init_ids(namespace, draft, 0, 0)


def init_ids(namespace: Namespace, draft: Draft, uid: int, gid: int) -> None:
    """Init's own ids in its user namespace."""
    draft.op(OpCode.SETRESGID, Phase.IDS, f"init: set gid {gid}", namespace, nums=(gid,))
    draft.op(OpCode.SETRESUID, Phase.IDS, f"init: set uid {uid}", namespace, nums=(uid, 1))


def lower_time(namespace: Namespace, draft: Draft) -> None:
    """A time namespace holds for children: unshared by init, with offsets before the first.

    Before init takes its ids: a process that isn't dumpable may not write its own offsets.
    """
    draft.op(OpCode.UNSHARE, Phase.IDS, "unshare time", namespace, nums=(CLONE_NEWTIME,))
    offsets = (("monotonic", namespace.monotonic_offset), ("boottime", namespace.boottime_offset))
    text = "".join(
        f"{clock} {int(value // 1)} {int(value % 1 * 1e9)}\n" for clock, value in offsets if value
    )
    if text:
        draft.op(OpCode.TIMENS, Phase.IDS, "set clock offsets", namespace, text.encode())


def lower_names(namespace: Namespace, draft: Draft) -> None:
    """Host and domain name."""
    weak = draft.host.filtered and "hostname" in draft.policy.weaken
    if namespace.hostname:
        if weak:  # no harmless call tells whether the filter refuses it
            draft.lacks("hostname", MAY_REFUSE, SECCOMP_HINT)
        draft.op(
            OpCode.SETHOSTNAME, Phase.NAMESPACE, f"set hostname {namespace.hostname}", namespace,
            namespace.hostname.encode(), flags=OpFlag.OPTIONAL if weak else OpFlag(0),
        )  # fmt: skip
    if namespace.domainname:
        draft.op(
            OpCode.SETDOMAINNAME,
            Phase.NAMESPACE,
            f"set domainname {namespace.domainname}",
            namespace,
            namespace.domainname.encode(),
        )


def lower(namespace: Namespace, draft: Draft) -> None:
    """New namespaces by the clone of init; joined ones before it, user first."""
    created(namespace, draft)
    if draft.new("time"):
        lower_time(namespace, draft)
        draft.clone_flags &= ~CLONE_NEWTIME
    if namespace.user:
        lower_user(namespace, draft)
    if namespace.joins:
        lower_joins(namespace, draft)
    if draft.new("uts"):
        lower_names(namespace, draft)
    for kind in wanted(namespace, draft):
        if not any(each.name == kind for each in draft.guarantees):
            draft.promise(kind, f"a new {kind} namespace")
