# SPDX-License-Identifier: Apache-2.0
"""`Popen`: a `subprocess.Popen` whose program runs in a box."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from attrs import Factory, define

from isolate.completed import return_code
from isolate.errors import PolicyError
from isolate.host.facts import Host
from isolate.plan.compile import compile_program
from isolate.policy import ambient
from isolate.policy.command import CLEAN_ENV, Command, checked_pty
from isolate.policy.policy import Policy
from isolate.running import caller_fd, checked_streams, limits_with, refuse
from isolate.supervise.interrupts import whole
from isolate.supervise.launch import Session
from isolate.supervise.meter import Meter, baseline
from isolate.supervise.outcome import Outcome, judge
from isolate.supervise.process import pid_of
from isolate.supervise.pump import Pump, Sink
from isolate.supervise.setup import parent_step, watching
from isolate.supervise.threads import start_thread
from isolate.supervise.timeline import Sample, timeline_interval
from isolate.supervise.timing import Timing
from isolate.supervise.usage import Usage
from isolate.supervise.violations import Violation
from isolate.terminal import Terminal, no_other_streams, received, terminal_socket

__all__ = ["Place", "Popen"]

DELIVERY_SECONDS = 2.0
@define
class Place:
    """Where a program starts: a session that is up, and whether the box ends with the program."""

    session: Session
    policy: Policy
    host: Host
    env: Mapping[str, str] | None
    cwd: str | None
    last: bool
    programs: list[tuple[Supervision, threading.Thread]] = Factory(list)

    def join(self) -> None:
        """After the session's end: what the programs wrote is delivered, or its reader is stuck."""
        for supervision, thread in self.programs:
            thread.join(DELIVERY_SECONDS)
            supervision.abandoned.set()
            thread.join()


@define
class Supervision:
    """The thread's half of a Popen; it must not keep the Popen itself alive."""

    place: Place
    pump: Pump
    ours: ExitStack
    meter: Meter
    outcome: Outcome | None = None
    usage: Usage | None = None
    status: int = 0
    error: BaseException | None = None
    ended: threading.Event = Factory(threading.Event)
    abandoned: threading.Event = Factory(threading.Event)

    def run(self) -> None:
        """Until the program has ended and what it wrote is delivered."""
        try:
            self.pump.obey(self.pump.process.log)
            self.watch()
        except BaseException as error:  # told to whoever waits; a thread has nobody else to tell
            self.error = error
            self.place.session.kill()
        finally:
            self.ended.set()
            try:
                self.pump.drain(self.abandoned.is_set)
            finally:
                self.ours.close()

    def watch(self) -> None:
        """The end, the account, the outcome; a one-shot box is closed before anyone is told."""
        session, pump = self.place.session, self.pump
        end = self.meter.run()
        if self.place.last:
            session.close()
        self.status = end.status
        self.outcome = judge(self.meter.seen(end), pump.limits)
        self.usage = self.meter.usage(end)
        ours = [sink for sink in pump.sinks if sink.counted or sink.pass_to >= 0]
        if not any(sink.limit == 0 for sink in ours):
            pump.drain(self.abandoned.is_set)


class Popen(subprocess.Popen[Any]):
    """Start a program in a box and go on, like `subprocess.Popen`.

    A stream that is not a pipe of its own reaches the caller's through one: the program never
    holds a descriptor of the caller's, but for `stdin=` and `pass_fds=` that name one.

    Args:
        args: a list of strings; no shell.
        bufsize, stdin, stdout, stderr, cwd, env, text, universal_newlines, encoding, errors,
            pipesize, pass_fds: as there. stdin=None is /dev/null.
        timeout: seconds; then the program and all that descends from it is killed, and `outcome`
            is `TimedOut`. `kill()` ends the program alone, as there.
        pty: True, or (rows, columns): a terminal of the box's own is the program's 0, 1 and 2, and
            its controlling one. `pty` is our end of it, a file of bytes; `resize` changes its size.
        timeline: True, or seconds between samples, see `Completed`.
        place: where; by default what `with` has collected, else a fresh `Sandbox()`.

    Attributes:
        outcome, usage: None until it has ended.
        timing: seconds of set-up by phase, a mapping by name.
        timeline: the samples so far, oldest first.
        pid: as the caller sees it; -1 if it had ended already.

    Raises: PolicyError, HostLacks, LaunchError.
    """

    supervision: Supervision | None = None
    pty: Terminal | None = None
    thread: threading.Thread | None = None

    @whole
    def __init__(
        self,
        args: Any,
        bufsize: int = -1,
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        pass_fds: Any = (),
        timeout: float | str | None = None,
        timeline: Any = None,
        pty: Any = None,
        place: Callable[[], Place] | None = None,
        **options: Any,
    ) -> None:
        refuse(options)
        self.find_place = place or ambient.verb("place")
        self.timeout = timeout
        self.interval = timeline_interval(timeline)
        self.size = checked_pty(pty)
        if self.size is not None:
            no_other_streams(stdin, stdout, stderr, options)
        checked_streams(stdin, stdout, stderr, *pass_fds)
        stdin = subprocess.DEVNULL if stdin is None else stdin
        super().__init__(
            args, bufsize, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, **options
        )

    def _execute_child(self, *given: Any) -> None:
        """The seam of `subprocess`: the same arguments in Python 3.10 to 3.13."""
        argv, _, _, _, pass_fds, cwd, env = given[:7]
        pipes = given[10:16]
        try:
            self.start(argv, pass_fds, cwd, env, pipes)
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def start(self, argv: Any, pass_fds: Any, cwd: Any, env: Any, pipes: tuple[int, ...]) -> None:
        """Start the program, and the thread that watches it."""
        Command(argv)  # mistakes are told before anything starts
        place = self.find_place()
        try:
            self.supervision = self.spawned(place, argv, pass_fds, cwd, env, pipes)
            with watching("watch the program"):
                self.pid = pid_of(self.supervision.pump.process.pidfd)
                self.thread = start_thread("isolate-popen", self.supervision.run)
        except BaseException:
            self.give_up(place)
            raise
        self._child_created = True
        place.programs[:] = [each for each in place.programs if each[1].is_alive()]
        place.programs.append((self.supervision, self.thread))

    def give_up(self, place: Place) -> None:
        """Nobody will watch it: it ends, with all that it has started."""
        if self.pty is not None:
            self.pty.close()
        if self.supervision is not None:
            place.session.kill_tree(self.supervision.pump.process, wait=True)
            self.supervision.ours.close()
        if place.last:
            place.session.close()

    def spawned(
        self, place: Place, argv: Any, pass_fds: Any, cwd: Any, env: Any, pipes: tuple[int, ...]
    ) -> Supervision:
        """The program, with its streams."""
        limits = limits_with(place.session.plan.limits, self.timeout)
        fds = tuple(int(fd) for fd in pass_fds)
        env = place.env if env is None else env
        if self.size is not None:
            env = {"TERM": "xterm", **(CLEAN_ENV if env is None else env)}
        command = Command(argv, env, cwd or place.cwd, fds, self.size)
        ops = compile_program(place.policy, command, place.host)
        with ExitStack() as undo:
            sinks: list[Sink] = []
            names = {f"fd:{fd}": fd for fd in fds}
            names["stdin"] = pipes[0]
            with ExitStack() as theirs:
                with parent_step("open the program's streams"):
                    ours = terminal_socket(names, limits, theirs) if self.size is not None else None
                for name, at in (("stdout", 2), ("stderr", 4)) if ours is None else ():
                    read_fd, write_fd = pipes[at : at + 2]
                    if name == "stderr" and write_fd == pipes[3] and write_fd >= 0:
                        names[name] = names["stdout"]
                    elif read_fd >= 0 and limits.output is None:
                        names[name] = write_fd
                    else:
                        with parent_step("open the program's streams"):
                            sink, names[name] = passed_on(name, read_fd, write_fd, undo, theirs)
                        sinks.append(sink)
                before = baseline(place.session)
                process = place.session.spawn(ops, names, place.last, limits.wall)
                undo.callback(process.close)
                try:
                    self.pty = None if ours is None else received(ours)
                except BaseException:
                    place.session.kill_tree(process, wait=True)
                    raise
            kill = partial(place.session.kill_tree, process)
            pump = Pump(process, limits, kill, place.session.counters, sinks)
            meter = Meter(place.session, pump, before, self.interval)
            return Supervision(place, pump, undo.pop_all(), meter)

    def _internal_poll(self, _deadstate: Any = None, **_: Any) -> int | None:
        if self.returncode is None and self.supervision and self.supervision.ended.is_set():
            self.settle(self.supervision)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        assert self.supervision is not None
        if self.returncode is None:
            if not self.supervision.ended.wait(timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.settle(self.supervision)
        return self.returncode

    def settle(self, supervision: Supervision) -> None:
        """Take over what the thread found. Raises: what stopped it."""
        if supervision.outcome is None:
            self.returncode = -9
            if supervision.error is not None:
                raise supervision.error
        else:
            self.returncode = return_code(supervision.outcome, supervision.status)

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        self.poll()
        return self.supervision.outcome if self.supervision else None

    @property
    def usage(self) -> Usage | None:
        """What it used; None while it runs."""
        self.poll()
        return self.supervision.usage if self.supervision else None

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Its refused system calls so far."""
        return self.supervision.pump.process.violations if self.supervision else ()

    @property
    def timeline(self) -> tuple[Sample, ...]:
        """Memory and processor time so far, if asked for."""
        return self.supervision.meter.samples if self.supervision else ()

    @property
    def timing(self) -> Timing:
        """Seconds of set-up by phase: the box's, and this program's start."""
        assert self.supervision is not None
        place, pump = self.supervision.place, self.supervision.pump
        return place.session.timing.of_program(pump.process.stamps)

    @property
    def pidfd(self) -> int:
        """A pidfd of the program, open until it has ended."""
        assert self.supervision is not None
        return self.supervision.pump.process.pidfd

    def send_signal(self, sig: int) -> None:
        """By pidfd; nothing happens if it has ended."""
        if self.poll() is None and self.supervision:
            try:
                self.supervision.pump.process.send_signal(sig)
            except PermissionError:
                if sig != signal.SIGKILL:
                    raise
                self.supervision.pump.kill()  # an AppArmor profile takes no signal from us (ADR 18)

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size; the program is told by SIGWINCH. Raises: PolicyError."""
        if self.pty is None:
            raise PolicyError("resize is for a program that was started with pty=")
        self.pty.resize(rows, columns)

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None and issubclass(error[0], KeyboardInterrupt):
            self.kill()  # who typed it meant this one, too; it is in a session of its own
        if self.pty is not None:
            self.pty.close()  # a hang-up, as when a terminal's window is closed
        super().__exit__(*error)
        if self.supervision is not None and self.thread is not None:
            self.supervision.abandoned.set()
            self.thread.join()

    def __del__(self, *_: Any, **__: Any) -> None:
        # subprocess keeps such a one alive to reap it later; here a thread does that.
        if self.supervision is not None and not self.supervision.ended.is_set():
            told = f"a program in a box is still running: {self.args!r:.200}"
            warnings.warn(told, ResourceWarning, source=self, stacklevel=2)
        if self.supervision is not None and self.supervision.place.last:
            names = [name for name in ("stdout", "stderr", "stdin") if held(vars(self), name)]
            if names:  # `for line in popen(...).stdout`: the box ends when that goes, too
                stream = getattr(self, names[0])
                weakref.finalize(stream, abandon, self.supervision).atexit = False
            else:
                abandon(self.supervision)


def holders(attributes: dict[str, Any], name: str) -> int:
    """How many hold an attribute's value, and this look at it."""
    return sys.getrefcount(attributes[name])


NOBODY = holders({"stream": object()}, "stream")


def held(attributes: dict[str, Any], name: str) -> bool:
    """Whether somebody else has a stream of ours, and may still read it."""
    return attributes.get(name) is not None and holders(attributes, name) > NOBODY


def abandon(supervision: Supervision) -> None:
    """Nobody can read or ask any more: the box ends."""
    supervision.abandoned.set()
    if not supervision.ended.is_set():
        supervision.place.session.kill()


def passed_on(
    name: str, read_fd: int, write_fd: int, ours: ExitStack, theirs: ExitStack
) -> tuple[Sink, int]:
    """A pipe of the box's own, and where it leads: the caller's stream, or the pipe of a PIPE
    whose bytes have to be counted; that one may be left full when the program has ended."""
    target = write_fd if write_fd >= 0 else caller_fd(name)
    copy = os.dup(target) if target >= 0 else -1  # no stream of ours: then it goes nowhere
    if copy >= 0:
        ours.callback(os.close, copy)
    box_read, box_write = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, box_read)
    theirs.callback(os.close, box_write)
    sink = Sink(box_read, keep=False, pass_to=copy, limit=0 if read_fd >= 0 else None)
    return sink, box_write
