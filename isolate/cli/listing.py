# SPDX-License-Identifier: Apache-2.0
"""`isolate stats` and `isolate ps`: the boxes of this machine, whoever opened them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import click
from rich.console import Console
from rich.live import Live

from isolate.cli.table import as_dict, ps_table, stats_table
from isolate.errors import IsolateError, PolicyError
from isolate.policy.fields import parse_seconds
from isolate.supervise.boxes import BoxFacts, find_boxes
from isolate.supervise.proctree import command_line, printable
from isolate.supervise.stats import Stats

__all__ = ["ps", "stats"]

Seen = list[tuple[BoxFacts, Stats]]
LEAST_SECONDS = 0.1
ONCE_SECONDS = 0.25  # between the two looks that a processor share needs
PIPED_WIDTH = 200


def look() -> Seen:
    """Every box with what it uses; one that ended meanwhile is left out."""
    found = []
    for box in find_boxes():
        try:
            found.append((box, box.stats()))
        except (IsolateError, OSError):
            continue  # its leaf was removed between the list and the look
    return found


def by_name(seen: Seen) -> dict[str, Stats]:
    """The statistics of one look."""
    return {box.name: stats for box, stats in seen}


def looks(seconds: float, once: bool) -> Iterator[tuple[Seen, dict[str, Stats]]]:
    """(now, what was before), over and over, or once."""
    before = by_name(look())
    while True:
        time.sleep(ONCE_SECONDS if once else seconds)
        seen = look()
        yield seen, before
        if once:
            return
        before = by_name(seen)


def interval_of(text: str) -> float:
    """Seconds. Raises: PolicyError."""
    seconds = parse_seconds(float(text) if text.replace(".", "", 1).isdigit() else text)
    if seconds < LEAST_SECONDS:
        raise PolicyError(f"--interval must be at least {LEAST_SECONDS} s, not {text}")
    return seconds


def console() -> Console:
    """Our stdout; wide where it is no terminal, since nobody can make the pipe wider."""
    found = Console(highlight=False, emoji=False, markup=False)
    return found if found.is_terminal else Console(
        highlight=False, emoji=False, markup=False, width=PIPED_WIDTH
    )  # fmt: skip


@click.command()
@click.option("--no-stream", is_flag=True, help="One look, then end.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, one line a look.")
@click.option("--interval", default="1", metavar="TIME", help="Between two looks; 1 s by default.")
def stats(no_stream: bool, as_json: bool, interval: str) -> None:
    """What every box of this machine uses, as a live table.

    CPU% is of one processor: 150 is one and a half. A box without a cgroup is summed over its
    processes. "-" is not counted, or no ceiling.
    """
    every = looks(interval_of(interval), no_stream)
    out = console()
    if as_json:
        for seen, before in every:
            found = [as_dict(box, now, before.get(box.name)) for box, now in seen]
            click.echo(json.dumps(found))
    elif no_stream or not out.is_terminal:
        for seen, before in every:
            out.print(stats_table(seen, before))
    else:
        with Live(stats_table(look()), console=out, auto_refresh=False, screen=True) as live:
            for seen, before in every:
                live.update(stats_table(seen, before), refresh=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON array of boxes.")
def ps(as_json: bool) -> None:
    """The processes of every box of this machine."""
    boxes = [
        (box, {each.pid: command_line(each.pid) for each in box.processes}) for box in find_boxes()
    ]
    if not as_json:
        console().print(ps_table(boxes))
        return
    found = []
    for box, commands in boxes:
        processes = [
            {
                "pid": each.pid,
                "parent": each.parent,
                "state": each.state,
                "threads": each.threads,
                "cpu": each.cpu,
                "resident": each.resident,
                "command": commands[each.pid] or f"[{printable(each.name)}]",
            }
            for each in box.processes
        ]
        found.append(
            {"name": box.name, "owner": box.owner, "init": box.init, "processes": processes}
        )
    click.echo(json.dumps(found))
