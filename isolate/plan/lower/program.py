# SPDX-License-Identifier: Apache-2.0
"""What each program's own process does before its exec: cgroup, descriptors, limits, privileges."""

from __future__ import annotations

from isolate.abi.ops import OpCode, Phase
from isolate.plan.lower import apparmor, capabilities, cgroup, landlock, rlimit, seccomp
from isolate.plan.lower.draft import Draft, encoded
from isolate.plan.model import Op, Vector
from isolate.policy.apparmor import AppArmorProfile
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.chroot import Chroot
from isolate.policy.command import Command
from isolate.policy.identity import Identity
from isolate.policy.landlock import Landlock
from isolate.policy.namespace import Namespace
from isolate.policy.seccomp import SeccompFilter

__all__ = ["lower"]

DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"


def lower_fds(command: Command, draft: Draft) -> None:
    """A session and descriptors of its own; all else is closed at exec."""
    draft.op(OpCode.SETSID, Phase.SESSION, "start a session", "launch")
    draft.op(OpCode.CLOSE_FROM, Phase.FD, "close descriptors from 3 up", "launch", nums=(3,))
    places = [("stdin", 0), ("stdout", 1), ("stderr", 2)]
    places += [(f"fd:{number}", number) for number in command.fds]
    for name, number in places:
        draft.op(
            OpCode.DUP2, Phase.FD, f"put {name} at descriptor {number}", "launch",
            slots=(name,), nums=(number,),
        )  # fmt: skip


def lower_limits(command: Command, draft: Draft) -> None:
    """rlimits, umask, directory."""
    rlimit.lower(draft)
    identity = draft.policy.get(Identity)
    if identity:
        draft.op(OpCode.UMASK, Phase.LIMIT, "set umask", identity, nums=(identity.umask,))
    cwd = command.cwd or ("/" if draft.policy.get(Chroot) else None)
    if cwd:
        draft.op(OpCode.CHDIR, Phase.CREDENTIALS, f"chdir {cwd}", "launch", encoded(cwd))


def lower_ids(draft: Draft, keeps: bool) -> None:
    """From init's ids to the program's, where they differ."""
    identity = draft.policy.get(Identity)
    if identity is None or not draft.reserved_ids:
        return
    if not draft.joins_user():  # where it may be denied; done before
        draft.op(OpCode.SETGROUPS, Phase.CREDENTIALS, "drop groups", identity, b"")
    draft.op(
        OpCode.SETRESGID, Phase.CREDENTIALS, f"set gid {identity.gid}", identity,
        nums=(identity.gid,),
    )  # fmt: skip
    draft.op(
        OpCode.SETRESUID, Phase.CREDENTIALS, f"set uid {identity.uid}", identity,
        nums=(identity.uid, int(keeps)),
    )  # fmt: skip


def lower_credentials(draft: Draft) -> None:
    """Bounding set first, ids, then the sets: each needs what the next one takes."""
    caps = draft.policy.get(CapabilitySet)
    if caps is not None:
        capabilities.lower_bounding(caps, draft)
    lower_ids(draft, bool(caps and caps.permitted))
    if caps is not None:
        capabilities.lower_sets(caps, draft)


def lower_exec(draft: Draft) -> None:
    """The report that set-up is done, and what is in force from here on."""
    profile = draft.policy.get(AppArmorProfile)
    if profile is not None:
        apparmor.lower(profile, draft)
    identity = draft.policy.get(Identity)
    if identity and identity.no_new_privs:
        draft.op(OpCode.NO_NEW_PRIVS, Phase.LSM, "set no_new_privs", identity)
    access = draft.policy.get(Landlock)
    if access is not None:
        landlock.lower(access, draft, bool(identity and identity.no_new_privs))
    draft.op(OpCode.READY, Phase.EXEC, "report ready", "launch", slots=("record",))
    wanted = draft.policy.get(SeccompFilter)
    if wanted:
        seccomp.lower(wanted, draft, bool(identity and identity.no_new_privs))


def exec_op(command: Command) -> Op:
    """The exec, by execvp's rules inside the box; the one op that differs from run to run."""
    program = command.argv[0]
    path = program if b"/" in program else None
    candidates = None
    if path is None:
        search = dict(command.env).get(b"PATH", DEFAULT_PATH)
        candidates = Vector(tuple((d or b".") + b"/" + program for d in search.split(b":")))
    env = Vector(tuple(name + b"=" + value for name, value in command.env))
    return Op(
        code=OpCode.EXEC,
        phase=Phase.EXEC,
        about=f"exec {program.decode('utf-8', 'replace')}",
        strs=(path, Vector(command.argv), env, candidates),
    )


def lower(command: Command, draft: Draft) -> None:
    """All ops of one program but the exec, in phase order."""
    cgroup.lower_program(draft)
    lower_fds(command, draft)
    lower_limits(command, draft)
    lower_credentials(draft)
    lower_exec(draft)
    namespace = draft.policy.get(Namespace)
    if namespace is None and draft.policy.get(Identity):
        draft.promise("no_new_privs", "prctl")
