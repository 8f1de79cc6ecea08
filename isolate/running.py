# SPDX-License-Identifier: Apache-2.0
"""One program in a session, like `subprocess.run`: streams, input, limits, result."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from attrs import define, evolve, field, fields, frozen

from isolate.completed import Completed, return_code
from isolate.errors import PolicyError
from isolate.host.facts import Host
from isolate.plan.compile import compile_program
from isolate.plan.model import Limits
from isolate.policy.command import Command
from isolate.policy.fields import parse_seconds, tighter
from isolate.policy.policy import Policy
from isolate.supervise.launch import Session
from isolate.supervise.meter import Meter, baseline
from isolate.supervise.outcome import Seen, judge
from isolate.supervise.pump import Pump, Sink
from isolate.supervise.setup import parent_step
from isolate.supervise.timeline import timeline_interval
from isolate.supervise.usage import Usage

__all__ = ["RunOptions", "caller_fd", "fd_of", "limits_with", "refuse", "run_in"]


REFUSED = {
    "preexec_fn": "nothing of the caller runs inside",
    "shell": 'give ["/bin/sh", "-c", script]',
    "executable": "argv[0] names the program",
    "startupinfo": "it is of Windows",
    "creationflags": "it is of Windows",
    "user": "give uid= to Sandbox",
    "group": "give gid= to Sandbox",
    "extra_groups": "a box has none",
    "process_group": "each program has a session of its own",
    "start_new_session": "each program has a session of its own",
    "umask": "give Identity(umask=...) to Sandbox",
    "close_fds": "all descriptors but pass_fds are closed, always",
    "restore_signals": "all handlers are reset, always",
}
# Values that ask for what is done anyway, as callers of subprocess write them out.
AS_ALWAYS = {
    **dict.fromkeys(("close_fds", "restore_signals"), (True,)),
    **dict.fromkeys(("shell", "creationflags"), (False,)),
    **dict.fromkeys(("start_new_session",), (True, False)),
    "umask": (-1,),
    "process_group": (None, -1),
}


def refuse(options: dict[str, Any]) -> None:
    """Take out what asks for nothing; Raises: PolicyError for the rest that a box has not."""
    for name in REFUSED.keys() & options.keys():
        if options[name] not in AS_ALWAYS.get(name, (None,)):
            raise PolicyError(f"a box takes no {name}: {REFUSED[name]}")
        del options[name]


def timeline_checked(owner: object, attribute: object, value: Any) -> None:
    """Mistakes are told before anything starts. Raises: PolicyError."""
    timeline_interval(value)


SPECIAL = (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL)


@frozen(kw_only=True)
class RunOptions:
    """The arguments of `run`, as `subprocess.run` has them; and `timeline`, see `Completed`."""

    input: Any = None
    stdin: Any = None
    capture_output: bool = False
    stdout: Any = None
    stderr: Any = None
    timeout: float | str | None = None
    check: bool = False
    text: bool | None = None
    universal_newlines: bool | None = None
    encoding: str | None = None
    errors: str | None = None
    cwd: Any = None
    env: Mapping[str, str] | None = None
    timeline: Any = field(default=None, validator=timeline_checked)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RunOptions:
        """From keywords. Raises: PolicyError for one that `run` has not, with what to do."""
        given = dict(options)
        refuse(given)
        names = [each.name for each in fields(cls)]
        for name in given.keys() - set(names):
            raise PolicyError(f"run has no {name}=; it has {', '.join(names)}")
        checked_streams(given.get("stdin"), given.get("stdout"), given.get("stderr"))
        return cls(**given)

    @property
    def is_text(self) -> bool:
        """Whether streams are str."""
        return bool(self.text or self.universal_newlines or self.encoding or self.errors)

    def decode(self, data: bytes) -> Any:
        """Bytes, or text with newlines as Python has them."""
        if not self.is_text:
            return data
        raw = io.BytesIO(data)
        return io.TextIOWrapper(raw, encoding=self.encoding, errors=self.errors).read()

    def outputs(self) -> tuple[Any, Any]:
        """Where stdout and stderr go. Raises: PolicyError."""
        if not self.capture_output:
            return self.stdout, self.stderr
        if self.stdout is not None or self.stderr is not None:
            raise PolicyError("stdout and stderr may not be given with capture_output")
        return subprocess.PIPE, subprocess.PIPE

    def encode(self) -> bytes:
        """The input as bytes. Raises: PolicyError."""
        if self.input is None:
            return b""
        if isinstance(self.input, str):
            if not self.is_text:
                raise PolicyError("input is str; say text=True, or give bytes")
            return self.input.encode(self.encoding or "utf-8", self.errors or "strict")
        try:
            return bytes(memoryview(self.input))
        except TypeError as error:
            kind = type(self.input).__name__
            raise PolicyError(f"input must be bytes, or str with text=True, not {kind}") from error


def fd_of(target: Any, default: Any) -> int:
    """The descriptor of a file, a number, or the caller's own stream.

    Raises: PolicyError for a closed one.
    """
    if target is None:
        target = default
    try:
        fd = target if isinstance(target, int) else target.fileno()
        os.fstat(fd)
    except (OSError, ValueError, AttributeError) as error:
        raise PolicyError(f"{target!r} is not an open file or descriptor: {error}") from error
    return int(fd)


def checked_streams(*targets: Any) -> None:
    """Before anything of ours is opened: a closed descriptor's number would be given to that, and
    the program would get it.

    Raises: PolicyError for a target that is not open.
    """
    for target in targets:
        if target is not None and not (isinstance(target, int) and target in SPECIAL):
            fd_of(target, None)


def caller_fd(name: str) -> int:
    """The caller's sys.stdout or sys.stderr, flushed; one that is no file stands for 1 or 2.

    -1 where Python was started without: then that number is some other file's of ours.
    """
    stream = getattr(sys, name)
    try:
        stream.flush()
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        number = 1 if name == "stdout" else 2
        return -1 if getattr(sys, f"__{name}__") is None else number


@define
class Streams:
    """Our ends and the program's ends of 0, 1 and 2."""

    given: dict[str, int]
    sinks: list[Sink]
    stdin_fd: int = -1


def open_stdin(options: RunOptions, stack: ExitStack, streams: Streams) -> None:
    """/dev/null, a pipe for the input, or what was asked for by name."""
    if options.input is not None:
        if options.stdin is not None:
            raise PolicyError("stdin and input may not both be given")
        theirs, streams.stdin_fd = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, theirs)
    elif options.stdin is None or options.stdin == subprocess.DEVNULL:
        theirs = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, theirs)
    else:
        theirs = fd_of(options.stdin, None)
    streams.given["stdin"] = theirs


def open_output(
    name: str, target: Any, ours: ExitStack, theirs: ExitStack, streams: Streams
) -> None:
    """A pipe of the box's own in every case: nothing of 0, 1, 2 is the caller's (HARDENING 3)."""
    if target == subprocess.STDOUT and name == "stderr":
        streams.given[name] = streams.given["stdout"]
        return
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read_fd)
    theirs.callback(os.close, write_fd)
    streams.given[name] = write_fd
    if target == subprocess.PIPE:
        streams.sinks.append(Sink(read_fd, keep=True))
    elif target == subprocess.DEVNULL:
        streams.sinks.append(Sink(read_fd, keep=False))
    else:
        pass_to = caller_fd(name) if target is None else fd_of(target, None)
        streams.sinks.append(Sink(read_fd, keep=False, pass_to=pass_to))


def open_streams(
    options: RunOptions, ours: ExitStack, theirs: ExitStack, streams: Streams
) -> None:
    """0, 1 and 2. Raises: LaunchError, PolicyError."""
    out, err = options.outputs()
    with parent_step("open the program's streams"):
        open_stdin(options, theirs, streams)
        if streams.stdin_fd >= 0:
            ours.callback(close_if_open, streams)
        open_output("stdout", out, ours, theirs, streams)
        open_output("stderr", err, ours, theirs, streams)


def limits_with(limits: Limits, timeout: float | str | None) -> Limits:
    """The policy's, and the timeout of this run."""
    wall = None if timeout is None else parse_seconds(timeout)
    return evolve(limits, wall=tighter(limits.wall, wall))


def kept(streams: Streams, target: Any, index: int, options: RunOptions) -> Any:
    """A captured stream's content, None if it was not captured."""
    if target != subprocess.PIPE or index >= len(streams.sinks):
        return None
    return options.decode(streams.sinks[index].data)


def finish(meter: Meter, last: bool) -> tuple[Seen, Usage]:
    """Wait for the end; what the kernel counted while it ran."""
    end = meter.run()
    meter.pump.drain()
    if last:
        meter.session.close()
    return meter.seen(end), meter.usage(end)


def run_in(
    session: Session,
    policy: Policy,
    host: Host,
    argv: Any,
    options: RunOptions,
    env: Mapping[str, str] | None,
    cwd: str | None,
    last: bool,
) -> Completed:
    """Run one program in a session that is up; `last` ends the box with it.

    Raises: LaunchError, PolicyError; with check=True RunFailed and RunTimedOut.
    """
    out, err = options.outputs()
    command = Command(argv, options.env if options.env is not None else env, options.cwd or cwd)
    limits = limits_with(session.plan.limits, options.timeout)
    data = options.encode()
    streams = Streams({}, [])
    with ExitStack() as ours:
        with ExitStack() as theirs:
            open_streams(options, ours, theirs, streams)
            ops = compile_program(policy, command, host)
            before = baseline(session)
            process = session.spawn(ops, streams.given, last, limits.wall)
        ours.callback(process.close)
        kill = partial(session.kill_tree, process)
        pump = Pump(process, limits, kill, session.counters, streams.sinks)
        pump.stdin_fd, pump.stdin = streams.stdin_fd, memoryview(data)
        streams.stdin_fd = -1
        ours.callback(pump.close)
        pump.obey(process.log)
        sinks = list(streams.sinks)
        meter = Meter(session, pump, before, timeline_interval(options.timeline))
        seen, usage = finish(meter, last)
        streams.sinks = sinks
    outcome = judge(seen, limits)
    err_index = 1 if len(sinks) > 1 else 0
    completed = Completed(
        argv,
        return_code(outcome, seen.status),
        kept(streams, out, 0, options),
        kept(streams, err, err_index, options),
        outcome=outcome,
        usage=usage,
        guarantees=session.plan.guarantees,
        timing=session.timing.of_program(process.stamps),
        timeline=meter.samples,
    )
    completed.violations = process.violations
    if options.check:
        completed.check_returncode()
    return completed


def close_if_open(streams: Streams) -> None:
    """Our end of stdin, if no pump has taken it over."""
    if streams.stdin_fd >= 0:
        os.close(streams.stdin_fd)
