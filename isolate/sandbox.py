# SPDX-License-Identifier: Apache-2.0
"""`Sandbox`, the safe composition; `Box`, a live one; and the verbs for what is collected."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any

from attrs import field, frozen

from isolate import blocks
from isolate.calling import Caller
from isolate.completed import Completed
from isolate.composition import accounted, compose
from isolate.errors import PolicyError
from isolate.host.needed import needed_files
from isolate.machine import this_host
from isolate.observing import Observed
from isolate.plan.compile import apparmor_lines, compile_box, compile_plan
from isolate.plan.explain import explain
from isolate.policy import ambient
from isolate.policy.allow import Allow, HostNetwork
from isolate.policy.base import Primitive
from isolate.policy.cgroup import CgroupLimit
from isolate.policy.chroot import Chroot
from isolate.policy.command import CLEAN_ENV, Command
from isolate.policy.network import Network
from isolate.policy.policy import Policy
from isolate.popen import Place, Popen
from isolate.profiles import THREAD_VARIABLES
from isolate.questions import explain_access
from isolate.running import RunOptions, run_in
from isolate.supervise import apparmor
from isolate.supervise.interrupts import held_back, let_in, whole
from isolate.supervise.joining import FILE_NAMES
from isolate.supervise.launch import Session
from isolate.supervise.timeline import timeline_interval
from isolate.supervise.timing import Timing
from isolate.supervise.violations import Violation

__all__ = ["Box", "Sandbox", "call", "run"]


@frozen(init=False)
class Sandbox:
    """A frozen recipe: every namespace but time, a minimal view of this machine, no capabilities,
    no_new_privs, a seccomp filter, Landlock, a clean environment, loopback only, an id that no
    other box has, 256 processes.

    Args:
        *primitives: narrow the default.
        mem, swap, cpu, cpus, io, pids: ceilings of the whole box.
        timeout, cpu_time, output, files_size: limits of one run; seconds and bytes.
        root, read, write, tmp, files, env, cwd, hostname, uid, gid, caps, network, rlimits.
        seccomp: a `SeccompFilter` beside the default one; False for none needs its token.
        landlock: a `Landlock` beside the view's; False for none needs its token.
        apparmor: an `AppArmorProfile`, or the name of a loaded one.
        user, mount, pid, net, ipc, uts, cgroup, time: True isolates; False needs its token.
        account: count memory, processor time, processes and I/O also where they have no ceiling;
            a live `Box` always does.
        timeline: the default of `run` and `popen`, see `Completed`.
        weaken: names of guarantees that this machine may not be able to hold.
        allow: tokens of `isolate.allow`.

    Raises: PolicyError, PolicyConflict.
    """

    policy: Policy = field()
    variables: tuple[tuple[Any, Any], ...] = field()
    cwd: str | None = field()
    timeline: float | bool | None = field()

    def __init__(
        self,
        *primitives: Any,
        weaken: Iterable[str] = (),
        allow: Iterable[Allow] = (),
        timeline: Any = None,
        **short: Any,
    ) -> None:
        tokens = (allow,) if isinstance(allow, Allow) else tuple(allow)
        for token in tokens:
            if not isinstance(token, Allow):
                raise PolicyError(f"allow takes tokens of isolate.allow, not {token!r}")
        weak = frozenset((weaken,) if isinstance(weaken, str) else weaken)
        policy = compose(primitives, short, weak, tokens)
        shared = (network := policy.get(Network)) is not None and network.kind == "host"
        if shared and not any(isinstance(token, HostNetwork) for token in tokens):
            raise PolicyError("Network.host() needs allow=[allow.HostNetwork()]")
        env = {**CLEAN_ENV, **threads(policy), **(short.get("env") or {})}
        cwd = short.get("cwd") or ("/tmp" if policy.get(Chroot) is not None else None)
        self.__attrs_init__(policy, tuple(env.items()), cwd, timeline_interval(timeline))

    @property
    def env(self) -> dict[Any, Any]:
        """The environment of its programs; a copy."""
        return dict(self.variables)

    @property
    def in_force(self) -> Policy:
        """The policy, narrowed by the primitives whose blocks we are in (law 3)."""
        policy = self.policy
        for item in ambient.collected():
            policy = policy | item if isinstance(item, Primitive) else policy
        return policy

    @whole
    def run(self, argv: Any, **options: Any) -> Completed:
        """Run a program in a fresh box, like `subprocess.run`; the box ends with it."""
        wanted = RunOptions.of({"timeline": self.timeline, **options})
        Command(argv)  # mistakes are told before anything starts
        host, policy = this_host(), self.counted(wanted.timeline)
        session = Session(compile_box(policy, host)).start()
        try:
            return run_in(session, policy, host, argv, wanted, self.env, self.cwd, last=True)
        finally:
            session.close()

    @whole
    def popen(self, argv: Any, **options: Any) -> Popen:
        """Start a program in a fresh box that ends with it, like `subprocess.Popen`."""
        options = {"timeline": self.timeline, **options}
        place = partial(self.place, options["timeline"])
        return Popen(argv, place=place, **options)

    @whole
    def place(self, timeline: Any = None) -> Place:
        """A fresh box for one program."""
        host, policy = this_host(), self.counted(timeline)
        session = Session(compile_box(policy, host)).start()
        return Place(session, policy, host, self.env, self.cwd, last=True)

    def counted(self, timeline: Any) -> Policy:
        """The policy; where a timeline is wanted, with what it shows."""
        policy = self.in_force
        return policy if timeline_interval(timeline) is None else accounted(policy)

    def call(self, fn: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
        """Call a function in a fresh box: its value, or what it raises."""
        with self as box:
            return box.call(fn, *args, **kw)

    def explain(self, argv: Any = ("true",), path: str | None = None) -> Any:
        """What a start would do on this machine, as a table; nothing is started.

        With a path it is `explain_access`: `box.explain("write", "/etc/passwd")`.
        """
        if path is not None:
            return self.explain_access(argv, path)
        return explain(compile_plan(self.in_force, Command(argv), this_host()))

    def explain_access(self, operation: str, path: str) -> Any:
        """Which layers let a program "read", "write", "execute" or "create" a path, and why."""
        return self.in_force.explain(operation, path)

    @whole
    def open(self) -> Box:
        """A live box; close it."""
        return Box(self)

    def __enter__(self) -> Box:
        box: Box | None = None
        try:
            with held_back():
                box = Box(self)
                blocks.entered(self, box, sys._getframe(1))
                ambient.push(box)
            return box
        except BaseException:  # a signal that was held back, say: the block doesn't begin
            if box is not None:
                self.leave(box)
            raise

    @whole
    def leave(self, box: Box) -> None:
        """End the block of a box."""
        blocks.forget(box)
        ambient.forget(box)
        box.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave(blocks.of(self, sys._getframe(1)))


def threads(policy: Policy) -> dict[str, str]:
    """As many threads in numeric libraries as there are processors' worth of time."""
    limit = policy.get(CgroupLimit)
    if limit is None or limit.cpu is None:
        return {}
    return dict.fromkeys(THREAD_VARIABLES, str(max(1, round(limit.cpu))))


class Box(Observed):
    """A live sandbox: one set of namespaces, one budget, one /tmp; all ends with `close`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.host = this_host()
        self.policy = accounted(sandbox.in_force)
        self.session = Session(compile_box(self.policy, self.host)).start().settle()
        self.lock = threading.Lock()
        self.caller: Caller | None = None
        weakref.finalize(self, self.session.close).atexit = False  # that has an end of its own
        self.place = Place(
            self.session, self.policy, self.host, sandbox.env, sandbox.cwd, last=False
        )

    @whole
    def run(self, argv: Any, **options: Any) -> Completed:
        """Run a program in this box, like `subprocess.run`."""
        return run_in(
            self.session,
            self.policy,
            self.host,
            argv,
            RunOptions.of({"timeline": self.sandbox.timeline, **options}),
            self.sandbox.env,
            self.sandbox.cwd,
            last=False,
        )

    @whole
    def popen(self, argv: Any, **options: Any) -> Popen:
        """Start a program in this box and go on, like `subprocess.Popen`."""
        options = {"timeline": self.sandbox.timeline, **options}
        return Popen(argv, place=lambda: self.place, **options)

    def call(self, fn: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
        """Call a function in this box, in a fresh process: its value, or what it raises."""
        with self.lock:
            if self.caller is None:
                self.caller = Caller(
                    self.session,
                    self.policy,
                    self.host,
                    self.sandbox.env,
                    self.sandbox.cwd,
                )
        return self.caller.call(fn, args, kw)

    @property
    def pid(self) -> int:
        """The pid of the box's init, as the caller sees it."""
        return self.session.alive.pid

    @property
    def timing(self) -> Timing:
        """Seconds of the box's set-up by phase."""
        return self.session.timing

    @property
    def pidfd(self) -> int:
        """A pidfd of the box's init."""
        return self.session.alive.pidfd

    @property
    def namespaces(self) -> dict[str, str]:
        """Path by kind of what this box is in, while it lives; for `Namespace.of`."""
        return {kind: f"/proc/{self.pid}/ns/{name}" for kind, name in FILE_NAMES.items()}

    @property
    def guarantees(self) -> tuple[Any, ...]:
        """Every promise, and what holds it on this machine."""
        return self.session.plan.guarantees

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Refused system calls of everything in the box, so far."""
        return self.session.violations

    def explain(self) -> str:
        """What was done, as a table."""
        return explain(self.session.plan)

    @whole
    def close(self) -> None:
        """End everything in the box; safe to call twice."""
        try:
            if self.caller is not None:
                self.caller.close()
        finally:
            self.session.close()
            self.place.join()

    def __repr__(self) -> str:
        state = "ended" if self.session.closed else f"pid {self.session.init and self.pid}"
        return f"<{type(self).__name__}: {state}>"

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def innermost() -> tuple[Any, Policy]:
    """(the live box that we are in or None, the bare primitives collected inside of it)."""
    items = ambient.collected()
    box: Any = None
    bare: list[Any] = []
    for item in items:
        if isinstance(item, Box):
            box, bare = item, []
        else:
            bare.append(item)
    if box is not None and bare:
        raise PolicyError("primitives inside a live box: give them to Sandbox(...) instead")
    return box, Policy(*bare)


@whole
def collected_place() -> Place:
    """Where a program starts by what `with` has collected; a fresh `Sandbox()` if nothing."""
    box, policy = innermost()
    if box is not None:
        found: Place = box.place
        return found
    if not policy.primitives:
        return Sandbox().place()
    host = this_host()
    session = Session(compile_box(policy, host)).start()
    return Place(session, policy, host, None, None, last=True)


@whole
def run(argv: Any, **options: Any) -> Completed:
    """Run a program under what `with` has collected; under `Sandbox()` where that is nothing."""
    box, policy = innermost()
    if box is not None:
        result: Completed = box.run(argv, **options)
        return result
    if not policy.primitives:
        return Sandbox().run(argv, **options)
    host, wanted = this_host(), RunOptions.of(options)
    Command(argv)
    session = Session(compile_box(policy, host)).start()
    try:
        return run_in(session, policy, host, argv, wanted, None, None, last=True)
    finally:
        session.close()


def call(fn: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
    """Call a function under what `with` has collected; under `Sandbox()` where that is nothing."""
    box, policy = innermost()
    if box is not None:
        return box.call(fn, *args, **kw)
    if not policy.primitives:
        return Sandbox().call(fn, *args, **kw)
    host = this_host()
    with held_back():
        session = Session(compile_box(policy, host)).start()
        caller = Caller(session, policy, host, None, None)
        try:
            with let_in():
                return caller.call(fn, args, kw)
        finally:
            caller.close()
            session.close()


ambient.bind_verbs(
    run=run,
    popen=Popen,
    call=call,
    place=collected_place,
    needed_files=needed_files,
    apparmor=apparmor.verb,
    explain_access=lambda policy, operation, path: explain_access(
        policy, this_host(), operation, path
    ),
    apparmor_lines=lambda policy: apparmor_lines(policy, this_host()),
)
