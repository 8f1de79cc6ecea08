# SPDX-License-Identifier: Apache-2.0
"""`Namespace` and `Identity` into clone flags, id maps, setns and names."""

from __future__ import annotations

from isolate.abi.flags import CLONE_NEWTIME, NAMESPACES
from isolate.abi.ops import OpCode, Phase
from isolate.plan.lower.draft import Draft
from isolate.policy.identity import Identity
from isolate.policy.namespace import IdMap, Namespace

__all__ = ["lower"]

Lines = tuple[tuple[int, int | None, int], ...]


def lines(maps: tuple[IdMap, ...]) -> Lines:
    """Plain tuples, for the step."""
    return tuple((each.inside, each.outside, each.count) for each in maps)


def default_maps(draft: Draft, identity: Identity | None) -> tuple[Lines, Lines]:
    """Root gets ids that nobody else has; others map the one id that they are."""
    host = draft.host
    if host.euid == 0:
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
    if not host.user_namespaces:
        draft.lacks("user", host.user_why, "set that sysctl, or run as root")
        draft.clone_flags &= ~NAMESPACES["user"]
        return
    identity = draft.policy.get(Identity)
    uids, gids = default_maps(draft, identity)
    if namespace.uid_map or namespace.gid_map:
        draft.reserved_ids = False
        uids = lines(namespace.uid_map) or uids
        gids = lines(namespace.gid_map) or gids
    if any(outside is None for _, outside, _ in (*uids, *gids)):
        draft.reserved_ids = True
        count = sum(count for _, outside, count in uids if outside is None)
        draft.step("reserve_ids", f"reserve {count} host ids", namespace, max(count, 2))
    draft.step("id_map", "write uid_map and gid_map", namespace, uids, gids, host.euid != 0)
    if host.euid != 0:
        return
    first_uid, first_gid = uids[0][0], gids[0][0]
    draft.op(OpCode.SETGROUPS, Phase.IDS, "drop supplementary groups", namespace, b"")
    draft.op(
        OpCode.SETRESGID, Phase.IDS, f"init: set gid {first_gid}", namespace, nums=(first_gid,)
    )
    draft.op(
        OpCode.SETRESUID, Phase.IDS, f"init: set uid {first_uid}", namespace, nums=(first_uid, 1)
    )


def lower_time(namespace: Namespace, draft: Draft) -> None:
    """A time namespace holds for children: unshared by init, with offsets before the first."""
    draft.op(
        OpCode.UNSHARE, Phase.NAMESPACE, "unshare time", namespace, nums=(CLONE_NEWTIME,)
    )
    offsets = (("monotonic", namespace.monotonic_offset), ("boottime", namespace.boottime_offset))
    text = "".join(
        f"{clock} {int(value // 1)} {int(value % 1 * 1e9)}\n" for clock, value in offsets if value
    )
    if text:
        draft.op(OpCode.TIMENS, Phase.NAMESPACE, "set clock offsets", namespace, text.encode())


def lower_names(namespace: Namespace, draft: Draft) -> None:
    """Host and domain name."""
    if namespace.hostname:
        name = namespace.hostname.encode()
        draft.op(
            OpCode.SETHOSTNAME,
            Phase.NAMESPACE,
            f"set hostname {namespace.hostname}",
            namespace,
            name,
        )
    if namespace.domainname:
        draft.op(
            OpCode.SETDOMAINNAME,
            Phase.NAMESPACE,
            f"set domainname {namespace.domainname}",
            namespace,
            namespace.domainname.encode(),
        )


def lower(namespace: Namespace, draft: Draft) -> None:
    """New namespaces by the clone of init; joined ones by setns, user first."""
    for kind in namespace.kinds:
        if kind != "time":
            draft.clone_flags |= NAMESPACES[kind]
    if namespace.user:
        lower_user(namespace, draft)
    for number, (kind, target) in enumerate(namespace.joins):
        slot = f"ns:{number}"
        about = f"join the {kind} namespace of {target}"
        draft.step("open_ns", about, namespace, target, kind, slot=slot)
        draft.op(
            OpCode.SETNS, Phase.NAMESPACE, about, namespace,
            nums=(NAMESPACES[kind],), slots=(slot,),
        )  # fmt: skip
    if namespace.time:
        lower_time(namespace, draft)
    lower_names(namespace, draft)
    for kind in namespace.kinds:
        draft.promise(kind, f"a new {kind} namespace")
