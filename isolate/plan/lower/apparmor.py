# SPDX-License-Identifier: Apache-2.0
"""`AppArmorProfile` into a step that loads and an op that enters it; a policy's own rules."""

from __future__ import annotations

from isolate.abi.ops import OpCode, Phase
from isolate.host.facts import Host
from isolate.plan.lower.draft import Draft, encoded
from isolate.plan.view import Grants, grants_of, view_of
from isolate.policy.apparmor import AppArmorProfile
from isolate.policy.apparmor_text import Line, file_rule, network_rules
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.fields import inside
from isolate.policy.identity import Identity
from isolate.policy.namespace import Namespace
from isolate.policy.network import Network
from isolate.policy.policy import Policy

__all__ = ["PLACEHOLDER", "lines_of", "lower", "lower_box", "lower_first", "stacks"]

HINT = "boot with apparmor=1 security=apparmor"
# A temporary profile's name in a plan, which is made once for many boxes; `supervise` puts in the
# box's own. No profile can have it: "/" is no character of a generated name.
PLACEHOLDER = "isolate/temporary"


def taken_back(paths: tuple[str, ...], granted: tuple[str, ...]) -> tuple[str, ...]:
    """The paths on which a deny rule takes nothing that a place below them grants."""
    return tuple(p for p in paths if not any(inside(each, p) for each in granted))


def file_lines(grants: Grants) -> list[Line]:
    """The view's mounts as rules. A deny wins over every allow, so it can't have one below it."""
    write = tuple(place.path for place in grants.write)
    execute = tuple(place.path for place in grants.execute)
    lines = [file_rule(path, "r", "mounts") for path in grants.read]
    lines += [file_rule(path, "rmix", "mounts") for path in execute]
    lines += [file_rule(path, "wlk", "mounts") for path in write]
    for path in taken_back(grants.unwritable, write):
        lines.append(file_rule(path, "wl", "mounts", deny=True))
    for path in taken_back(grants.unstartable, execute):
        lines.append(file_rule(path, "mx", "mounts", deny=True))
    return lines


def families(policy: Policy) -> tuple[str, ...]:
    """The socket families that a policy leaves useful."""
    network, spaces = policy.get(Network), policy.get(Namespace)
    if network is None or (network.kind == "host" and spaces is None):
        return ("all",)
    if network.kind == "none":
        return ("unix",)
    return ("unix", "inet", "inet6", "netlink")


def lines_of(policy: Policy, draft: Draft) -> list[Line]:
    """What the whole policy allows, from the same ops that make its mounts."""
    view = view_of((*draft.template, *draft.ops), draft.steps)
    lines = file_lines(grants_of(view)) if view.places else [Line("file,", "mounts")]
    lines += network_rules(families(policy))
    caps = policy.get(CapabilitySet)
    if caps is None:
        lines += [Line("capability,", "capabilities")]
    else:
        names = sorted(name[4:].lower() for name in caps.bounding)
        lines += [Line(f"capability {name},", "capabilities") for name in names]
    if caps is None or "CAP_SYS_ADMIN" in caps.bounding:
        lines += [Line(f"{verb},", "mounts") for verb in ("mount", "umount", "pivot_root")]
    return lines


def stacks(wanted: AppArmorProfile, host: Host, no_new_privs: bool) -> bool:
    """Whether to stack: a confined caller may not change under no_new_privs, but may add."""
    if wanted.stack is not None:
        return wanted.stack
    return no_new_privs and not host.apparmor_label.startswith("unconfined")


def usable(wanted: AppArmorProfile, draft: Draft) -> bool:
    """Whether this host has AppArmor. Raises: HostLacks, unless that is weakened."""
    if not draft.host.apparmor:
        return True
    draft.lacks("apparmor", draft.host.apparmor, HINT)
    return False


def has_proc(policy: Policy, draft: Draft) -> bool:
    """Whether a program finds /proc when it writes to its attr/apparmor/exec."""
    view = view_of((*draft.template, *draft.ops), draft.steps)
    shown = view.mount_of("/proc/thread-self")
    return not view.places or (shown is not None and shown.kind in ("proc", "bind"))


def lower_box(wanted: AppArmorProfile, draft: Draft) -> None:
    """The parent loads it, or looks whether it is there. Raises: HostLacks."""
    if not usable(wanted, draft):
        return
    if not has_proc(draft.policy, draft):
        draft.lacks("apparmor", "the box has no /proc to enter a profile by", "add Mount.proc()")
        return
    name = wanted.name or "a temporary one"
    weak = "apparmor" in draft.policy.weaken
    draft.step("apparmor", f"see to the AppArmor profile {name}", wanted, wanted, weak)
    draft.promise("apparmor", f"{wanted.name or 'a profile of the box alone'} ({wanted.mode})")


def in_force(draft: Draft) -> bool:
    """Whether the parent's step is in the draft."""
    return any(step.kind == "apparmor" for step in draft.steps)


def is_stacked(wanted: AppArmorProfile, draft: Draft) -> bool:
    """Whether this policy's programs, and with them its first process, stack."""
    identity = draft.policy.get(Identity)
    return stacks(wanted, draft.host, bool(identity and identity.no_new_privs))


def lower_first(wanted: AppArmorProfile, draft: Draft) -> None:
    """The last op of a set-up: the box's first process goes into the profile (docs/adr/0018).

    Without a pid namespace the first process is isolate-init, which has to stay outside.
    """
    if not in_force(draft) or not draft.new("pid"):
        return
    name = wanted.name or PLACEHOLDER
    stack = is_stacked(wanted, draft)
    verb = "stack" if stack else "changeprofile"
    seen = None if stack else encoded(f"{name} ({wanted.mode})")
    draft.op(
        OpCode.STEWARD, Phase.ROOT, f"put the first process into the AppArmor profile {name}",
        wanted, encoded(f"{verb} {name}"), seen,
    )  # fmt: skip


def lower(wanted: AppArmorProfile, draft: Draft) -> None:
    """The op of each program, before no_new_privs and Landlock; the box's step is in the draft."""
    if not in_force(draft):
        return
    verb, name = "stack" if is_stacked(wanted, draft) else "exec", wanted.name or PLACEHOLDER
    draft.op(
        OpCode.APPARMOR, Phase.LSM, f"enter the AppArmor profile {name} at exec", wanted,
        encoded(f"{verb} {name}"), encoded(f"{name} ({wanted.mode})"),
    )  # fmt: skip
