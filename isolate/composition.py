# SPDX-License-Identifier: Apache-2.0
"""`Sandbox`'s short names into primitives: the safe default, and what may widen it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from isolate import profiles
from isolate.errors import PolicyError
from isolate.policy import allow as tokens
from isolate.policy.apparmor import AppArmorProfile
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.cgroup import CgroupLimit
from isolate.policy.chroot import Chroot
from isolate.policy.deadline import Deadline
from isolate.policy.fields import absolute, text
from isolate.policy.identity import Identity
from isolate.policy.landlock import Landlock
from isolate.policy.mount import Mount
from isolate.policy.namespace import Namespace
from isolate.policy.network import Network
from isolate.policy.policy import Policy
from isolate.policy.rlimit import Rlimit
from isolate.policy.seccomp import SeccompFilter

__all__ = ["NAMES", "accounted", "compose"]

SHARED = {
    "user": tokens.HostUser,
    "mount": tokens.HostMount,
    "pid": tokens.HostPid,
    "net": tokens.HostNetwork,
    "ipc": tokens.HostIpc,
    "uts": tokens.HostUts,
    "cgroup": tokens.HostCgroup,
}
DEADLINE = {
    "timeout": "wall",
    "cpu_time": "cpu_time",
    "output": "output",
    "files_size": "files_size",
}
CGROUP = {"mem": "memory", "swap": "swap", "cpu": "cpu", "cpus": "cpuset", "io": "io"}
CGROUP["account"] = "account"
NAMES = frozenset(
    (
        *SHARED,
        *DEADLINE,
        *CGROUP,
        *"""
            time pids root read write tmp files env cwd hostname uid gid caps
            network rlimits seccomp landlock apparmor
        """.split(),
    )
)


def given(short: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """The short names of a table that were given, by their long ones."""
    return {long: short[name] for name, long in table.items() if short.get(name) is not None}


def either(short: Mapping[str, Any], name: str, default: Any) -> Any:
    """What was given, also where that is 0 or "", which the field then judges; else the default."""
    found = short.get(name)
    return default if found is None else found


def need(allow: tuple[Any, ...], token: type, why: str) -> None:
    """Raises: PolicyError, if the token was not given."""
    if not any(isinstance(each, token) for each in allow):
        raise PolicyError(f"{why} widens the sandbox; say so with allow=[allow.{token.__name__}()]")


def joined(given_ones: list[Any], allow: tuple[Any, ...]) -> frozenset[str]:
    """The kinds that are somebody else's. Raises: PolicyError without the token."""
    spaces = [each for each in Policy(*given_ones).primitives if isinstance(each, Namespace)]
    kinds = frozenset(kind for each in spaces for kind, _ in each.joins)
    if kinds:
        need(allow, tokens.OtherNamespaces, f"joining {', '.join(sorted(kinds))}")
    return kinds


def namespaces(
    short: Mapping[str, Any], allow: tuple[Any, ...], others: frozenset[str] = frozenset()
) -> Namespace:
    """All but time, less what a token lets be shared, and what is joined."""
    kinds: dict[str, Any] = {"time": bool(short.get("time", False))}
    for kind, token in SHARED.items():
        if kind in others and kind not in short:
            kinds[kind] = False
            continue
        kinds[kind] = short.get(kind, True)
        if kinds[kind] is not True and kinds[kind] is not False:
            raise PolicyError(
                f"{kind} must be True (isolate) or False (share), not {kinds[kind]!r}"
            )
        if not kinds[kind]:
            need(allow, token, f"{kind}=False")
    network = short.get("network")
    if network is not None and network.kind == "host":
        need(allow, tokens.HostNetwork, "Network.host()")
        kinds["net"] = False
    hostname = either(short, "hostname", "sandbox" if kinds["uts"] else None)
    return Namespace(**kinds, hostname=hostname)


def file_mounts(files: Mapping[str, bytes | str] | None) -> list[Mount]:
    """files={"in.txt": b"…"}: relative names are in /tmp, where programs start."""
    found = []
    for name, data in (files or {}).items():
        where = text(name, "files")
        target = absolute(where if where.startswith("/") else f"/tmp/{where}", "files")
        content = data.encode() if isinstance(data, str) else data
        if not isinstance(content, bytes):
            raise PolicyError(f"files[{name!r}] must be bytes or str, not {type(data).__name__}")
        mode = 0o755 if content[:2] == b"#!" or content[:4] == b"\x7fELF" else 0o644
        found.append(Mount.file(target, content, mode))
    return found


def root_of(short: Mapping[str, Any]) -> Chroot:
    """A view of the host, or the directory that `root` names."""
    root = short.get("root")
    if isinstance(root, Chroot):
        if short.get("read") or short.get("write"):
            raise PolicyError("read= and write= belong to Chroot.host_view(); give them there")
        return root
    if root is not None:
        basics = (Mount.proc(), Mount.dev(), Mount.tmpfs("/tmp", either(short, "tmp", "64M")))
        return Chroot(root, mounts=basics)
    return Chroot.host_view(
        read=short.get("read") or (),
        write=short.get("write") or (),
        tmp=either(short, "tmp", "64M"),
    )


def links(short: Mapping[str, Any], spaces: Namespace) -> list[Network]:
    """What was asked for; else a loopback of its own, or the network that is shared or joined."""
    if short.get("network") is not None:
        return [short["network"]]
    if short.get("net", True) is not True:
        return [Network.host()]
    return [Network.loopback()] if spaces.net else []


def capabilities(short: Mapping[str, Any], allow: tuple[Any, ...]) -> CapabilitySet:
    """None, unless a token lets some be kept."""
    caps = short.get("caps")
    if caps is None:
        return CapabilitySet.none()
    if not isinstance(caps, CapabilitySet):
        caps = CapabilitySet(*caps)
    if caps != CapabilitySet.none():
        need(allow, tokens.Capabilities, "caps=")
    return caps


def limits(short: Mapping[str, Any]) -> list[Any]:
    """Ceilings of the whole, and of each process."""
    cgroup = CgroupLimit(**given(short, CGROUP), pids=either(short, "pids", profiles.SANDBOX_PIDS))
    found: list[Any] = [cgroup, profiles.SANDBOX_RLIMITS, Deadline(**given(short, DEADLINE))]
    own = short.get("rlimits")
    if own is not None:
        found.append(own if isinstance(own, Rlimit) else Rlimit(**own))
    return found


def filters(short: Mapping[str, Any], allow: tuple[Any, ...]) -> list[SeccompFilter]:
    """The default filter and the one that was given, unless a token takes the default away."""
    wanted = short.get("seccomp")
    alone = any(isinstance(each, tokens.SystemCalls) for each in allow)
    if wanted is False:
        need(allow, tokens.SystemCalls, "seccomp=False")
        return []
    if wanted is not None and not isinstance(wanted, SeccompFilter):
        raise PolicyError(f"seccomp= takes a SeccompFilter, or False, not {wanted!r}")
    if any(isinstance(each, tokens.NewPrivileges) for each in allow):
        raise PolicyError(
            "a filter needs no_new_privs, which allow.NewPrivileges() takes away: give "
            "seccomp=False and allow.SystemCalls() too"
        )
    default = [] if alone and wanted is not None else [SeccompFilter.default()]
    return default + ([] if wanted is None else [wanted])


@lru_cache(maxsize=256)
def accounted(policy: Policy) -> Policy:
    """The same, with everything counted that this machine can count."""
    return policy | CgroupLimit(account=True)


def access(short: Mapping[str, Any], allow: tuple[Any, ...]) -> list[Landlock]:
    """The view held a second time, and what was given; False needs its token."""
    wanted = short.get("landlock")
    if wanted is False:
        need(allow, tokens.Unlocked, "landlock=False")
        return []
    if wanted is not None and not isinstance(wanted, Landlock):
        raise PolicyError(f"landlock= takes a Landlock, or False, not {wanted!r}")
    if wanted is not None and any(isinstance(each, tokens.NewPrivileges) for each in allow):
        raise PolicyError("landlock= needs no_new_privs, which allow.NewPrivileges() takes away")
    view = [Landlock.of_view()] if short.get("mount", True) else []
    return view + ([] if wanted is None else [wanted])


def profile(short: Mapping[str, Any]) -> list[AppArmorProfile]:
    """A profile, or the name of one that is loaded; none unless given."""
    wanted = short.get("apparmor")
    if isinstance(wanted, str):
        return [AppArmorProfile(wanted)]
    if wanted is not None and not isinstance(wanted, AppArmorProfile):
        raise PolicyError(f"apparmor= takes an AppArmorProfile or a name, not {wanted!r}")
    return [] if wanted is None else [wanted]


def compose(
    primitives: Iterable[Any],
    short: Mapping[str, Any],
    weaken: frozenset[str],
    allow: tuple[Any, ...],
) -> Policy:
    """The policy of a Sandbox. What is given in two ways is narrowed.

    Raises: PolicyError, PolicyConflict.
    """
    unknown = sorted(set(short) - NAMES)
    if unknown:
        known = ", ".join(sorted(NAMES))
        raise PolicyError(f"Sandbox has no field {', '.join(unknown)}; it has {known}")
    given_ones = list(primitives)
    roots = [each for each in given_ones if isinstance(each, Chroot)]
    if roots and short.get("root") is not None:
        raise PolicyError("two roots: root= and a Chroot")
    spaces = namespaces(short, allow, joined(given_ones, allow))
    identity = Identity(
        uid=either(short, "uid", 1000),
        gid=either(short, "gid", 1000),
        no_new_privs=not any(isinstance(each, tokens.NewPrivileges) for each in allow),
    )
    items: list[Any] = [spaces, identity, *limits(short), capabilities(short, allow)]
    items += [*links(short, spaces), *filters(short, allow)]
    items += [*access(short, allow), *profile(short)]
    if spaces.mount:
        items += [] if roots else [root_of(short)]
        items += file_mounts(short.get("files"))
    elif short.get("read") or short.get("write") or short.get("files") or roots:
        raise PolicyError("read=, write=, files= and a root need a mount namespace: mount=True")
    for each in given_ones:
        if isinstance(each, CapabilitySet) and each != CapabilitySet.none():
            need(allow, tokens.Capabilities, "a CapabilitySet")
            items = [item for item in items if not isinstance(item, CapabilitySet)]
    return Policy(*items, *given_ones, weaken=weaken)
