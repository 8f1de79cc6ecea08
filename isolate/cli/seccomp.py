# SPDX-License-Identifier: Apache-2.0
"""`isolate seccomp`: what a filter does with a call, and the filter itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import click

from isolate.errors import IsolateError, PolicyError
from isolate.policy.policy import Policy
from isolate.policy.seccomp import SeccompFilter

__all__ = ["seccomp"]

PROFILE = click.option(
    "--profile", metavar="FILE", help='Docker\'s or OCI\'s JSON, "docker" or "default" (ours).'
)
ARCH = click.option("--arch", metavar="NAME", help="x86_64, aarch64, …; this machine's by default.")


@click.group()
def seccomp() -> None:
    """Look into filters of system calls."""


def filter_of(profile: str | None) -> SeccompFilter:
    """By name, or from a file. Raises: PolicyError, OSError."""
    if profile in (None, "default"):
        return SeccompFilter.default()
    if profile == "docker":
        return SeccompFilter.docker()
    return SeccompFilter.load(str(profile))


def number(text: str) -> int:
    """An argument of a call, 0x… too; negative ones as the kernel sees them. Raises."""
    try:
        return int(text, 0) & 0xFFFFFFFFFFFFFFFF
    except ValueError as error:
        raise PolicyError(f"an argument of a system call is a number, not {text!r}") from error


@seccomp.command(context_settings={"ignore_unknown_options": True})
@PROFILE
@ARCH
@click.argument("syscall")
@click.argument("args", nargs=-1)
def evaluate(profile: str | None, arch: str | None, syscall: str, args: tuple[str, ...]) -> None:
    """What the filter does with SYSCALL and its arguments, and which rule decides."""
    verdict = filter_of(profile).evaluate(syscall, *map(number, args), arch=arch)
    by = f"a rule for {verdict.rule.syscall}" if verdict.rule else "no rule: the default"
    click.echo(f"{verdict.action}  ({by}, in {verdict.layer or 'the filter'})")


@seccomp.command()
@PROFILE
@ARCH
def disassemble(profile: str | None, arch: str | None) -> None:
    """The filter's program, one instruction a line."""
    method: Any = getattr(filter_of(profile), "disassemble", None)
    if method is None:
        raise IsolateError("this version of isolate has no disassembler")
    click.echo(method(arch), nl=False)


@seccomp.command(context_settings={"ignore_unknown_options": True})
@click.option("--runs", type=click.IntRange(1, 100), default=3, help="How often it is run.")
@click.option("--output", type=click.Path(dir_okay=False, writable=True), help="A policy file.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def learn(runs: int, output: str | None, program: tuple[str, ...]) -> None:
    """Run PROGRAM in boxes, and write a policy that allows the system calls that it made."""
    found = SeccompFilter.learn(list(program), runs=runs, stdout=subprocess.DEVNULL)
    text = Policy(found).dumps()
    if output is None:
        click.echo(text, nl=False)
    else:
        Path(output).write_text(text, encoding="utf-8")
