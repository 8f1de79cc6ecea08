# SPDX-License-Identifier: Apache-2.0
"""`isolate run`: one program in a fresh box."""

from __future__ import annotations

import json
from typing import Any

import click

from isolate.cli.options import PROGRAM, sandbox_of, sandbox_options
from isolate.cli.plotting import plotter
from isolate.cli.relay import relayed
from isolate.cli.result import exit_status, result_dict
from isolate.completed import Completed
from isolate.supervise.outcome import Exited

__all__ = ["run"]

CAPTURED = "64M"  # with --json the output is in our memory
EPILOG = """
The exit status is the program's own; 128+N if signal N ended it; 124 if its --timeout passed;
127 if it wasn't found, 126 if it can't be executed, 125 if isolate itself failed (a policy that
can't be, a machine that can't hold it). Everything that isn't Exited(0) is named on stderr.
"""


@click.command(context_settings={"allow_interspersed_args": False}, epilog=EPILOG)
@sandbox_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, output included.")
@click.option("--plot", metavar="FILE", help="Draw memory and processor time: .svg or .png.")
@click.option("--timeline", metavar="TIME", help="Time between two samples; 50ms by default.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing about how it ended.")
@click.pass_context
@PROGRAM
def run(context: click.Context, /, program: tuple[str, ...], **options: Any) -> None:
    """Run PROGRAM in a sandbox that ends with it."""
    sandbox = sandbox_of(with_bounds(options))
    draw = plotter(options["plot"]) if options["plot"] else None
    timeline = options["timeline"] or (draw is not None or None)
    with relayed() as stdin:
        done = sandbox.run(
            list(program), stdin=stdin, timeline=timeline, capture_output=options["as_json"]
        )
    if draw is not None:
        draw(" ".join(program), done.timeline)
    tell(done, options["as_json"], options["quiet"])
    context.exit(exit_status(done.outcome, done.returncode))


def with_bounds(options: dict[str, Any]) -> dict[str, Any]:
    """What is captured is bounded."""
    if options["as_json"] and options["output"] is None:
        return {**options, "output": CAPTURED}
    return options


def tell(done: Completed, as_json: bool, quiet: bool) -> None:
    """The result as JSON on stdout; the outcome by name on stderr."""
    if as_json:
        click.echo(json.dumps(result_dict(done)))
    if not quiet and done.outcome != Exited(0):
        click.echo(f"isolate: {done.outcome}", err=True)
