# SPDX-License-Identifier: Apache-2.0
"""A finished run as an exit status, as a line, and as plain data. Pure."""

from __future__ import annotations

from typing import Any

from attrs import asdict, has

from isolate.completed import Completed
from isolate.errors import IsolateError, LaunchError
from isolate.supervise.outcome import Outcome, TimedOut

__all__ = ["exit_status", "failure_status", "plain", "result_dict"]

TIMED_OUT = 124
FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
ENOENT, EACCES, ENOEXEC = 2, 13, 8


def exit_status(outcome: Outcome, returncode: int) -> int:
    """The program's own, 128 and the signal that ended it, or 124 for the wall clock."""
    if isinstance(outcome, TimedOut):
        return TIMED_OUT
    return returncode if returncode >= 0 else 128 - returncode


def failure_status(error: IsolateError) -> int:
    """127 and 126 for a program that isn't there or can't be executed; 125 for all else."""
    if isinstance(error, LaunchError) and getattr(error.op, "code", None) is not None:
        if error.op.code.name != "EXEC":
            return FAILED
        if error.errno == ENOENT:
            return NOT_FOUND
        if error.errno in (EACCES, ENOEXEC):
            return NOT_EXECUTABLE
    return FAILED


def plain(value: Any) -> Any:
    """As JSON takes it: values of ours by their fields, what is unknown by its text."""
    if has(type(value)):
        return {key: plain(each) for key, each in asdict(value, recurse=False).items()}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is None or isinstance(value, (bool, float, str)):
        return value
    return int(value) if isinstance(value, int) else str(value)


def result_dict(done: Completed) -> dict[str, Any]:
    """Everything that is known of a run. Text from inside is text: it is quoted by JSON."""
    return {
        "args": plain(done.args),
        "outcome": {"name": type(done.outcome).__name__, **plain(done.outcome)},
        "returncode": done.returncode,
        "exit_status": exit_status(done.outcome, done.returncode),
        "usage": plain(done.usage),
        "timing": plain(dict(done.timing)),
        "guarantees": plain(done.guarantees),
        "violations": plain(done.violations),
        "timeline": [[sample.at, sample.memory, sample.cpu] for sample in done.timeline],
        "stdout": plain(done.stdout),
        "stderr": plain(done.stderr),
    }
