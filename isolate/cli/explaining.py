# SPDX-License-Identifier: Apache-2.0
"""`isolate explain` and `isolate doctor`: what a start would do, and what this machine can hold."""

from __future__ import annotations

import json
from typing import Any

import click
from attrs import asdict

from isolate.checkup import Finding
from isolate.checkup import doctor as look
from isolate.cli.options import PROGRAM, sandbox_of, sandbox_options

__all__ = ["doctor", "explain"]


@click.command(context_settings={"allow_interspersed_args": False})
@sandbox_options
@PROGRAM
def explain(program: tuple[str, ...], **options: Any) -> None:
    """What `isolate run` would do with PROGRAM on this machine; nothing is started."""
    click.echo(sandbox_of(options).explain(list(program)), nl=False)


def lines(finding: Finding) -> list[str]:
    """One finding for a person."""
    mark = "ok     " if finding.ok else "MISSING" if finding.required else "absent "
    found = [f"{mark}  {finding.name:<26} {finding.found}"]
    if finding.why:
        found.append(f"{'':9}why:  {finding.why}")
    if finding.cure:
        found.append(f"{'':9}cure: {finding.cure}")
    return found


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """What this machine can hold; for what it can't: why, and what to do.

    The exit status is 1 if something is missing without which no box can be made.
    """
    found = look()
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
    else:
        for each in found:
            click.echo("\n".join(lines(each)))
    context.exit(int(any(each.required and not each.ok for each in found)))
