# SPDX-License-Identifier: Apache-2.0
"""The options that make a `Sandbox`, for every command that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from isolate.errors import PolicyError
from isolate.policy import allow
from isolate.policy.network import Network
from isolate.policy.policy import Policy
from isolate.sandbox import Sandbox

__all__ = ["PROGRAM", "sandbox_of", "sandbox_options"]

SIMPLE = (
    ("--mem", "-m", "SIZE", "Memory of all processes together: 64M."),
    ("--swap", None, "SIZE", "Swap besides memory; none by default, if --mem is given."),
    ("--cpu", "-c", "NUMBER", "Processors' worth of time: 0.5 is half of one."),
    ("--cpus", None, "LIST", "Which processors: 0-3,5."),
    ("--pids", "-p", "NUMBER", "Processes and threads; 256 by default."),
    ("--timeout", "-t", "TIME", "Wall clock: 5, 500ms, 2m."),
    ("--cpu-time", None, "TIME", "Processor time of all processes together."),
    ("--output", "-o", "SIZE", "Bytes of stdout and stderr together."),
    ("--files-size", None, "SIZE", "Bytes of any one file that it writes."),
    ("--tmp", None, "SIZE", "Size of its /tmp; 64M by default."),
    ("--root", None, "PATH", "Another root directory than the view of this machine."),
    ("--cwd", None, "PATH", "Where it starts; /tmp by default."),
    ("--hostname", None, "NAME", "What it takes the machine's name for."),
)
SEVERAL = (
    ("--read", "-r", "PATH", "Show it inside, read-only."),
    ("--write", "-w", "PATH", "Show it inside, writable."),
    ("--env", "-e", "NAME=VALUE", "Add to its empty environment."),
    ("--weaken", None, "GUARANTEE", "Go on where this machine can't hold it."),
)
NETWORK = "What of a network it has; a loopback of its own by default."
PROGRAM = click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)


def sandbox_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A click decorator: all options of `sandbox_of`."""
    added = [
        click.option(*filter(None, (long, short)), metavar=metavar, help=text, multiple=many)
        for table, many in ((SIMPLE, False), (SEVERAL, True))
        for long, short, metavar, text in table
    ]
    kinds = click.Choice(["none", "loopback", "host"])
    host = "Permit --network host, which widens the box."
    policy = "A policy file (TOML, JSON); options narrow it."
    added += [
        click.option("--network", type=kinds, help=NETWORK),
        click.option("--allow-host-network", is_flag=True, help=host),
        click.option("--policy", metavar="FILE", help=policy),
    ]
    for option in reversed(added):
        command = option(command)
    return command


def environment(pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE, over and over. Raises: PolicyError."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise PolicyError(*(f"--env takes NAME=VALUE, not {pair!r}" for pair in wrong))
    return dict(pair.split("=", 1) for pair in pairs)


def numbers(given: dict[str, Any]) -> None:
    """cpu and pids as numbers. Raises: PolicyError."""
    for name, kind in (("cpu", float), ("pids", int)):
        if name in given:
            try:
                given[name] = kind(given[name])
            except ValueError as error:
                raise PolicyError(f"--{name} takes a number, not {given[name]!r}") from error


def sandbox_of(options: dict[str, Any]) -> Sandbox:
    """The sandbox that these options ask for; everything is counted. Raises: PolicyError."""
    names = [long.lstrip("-").replace("-", "_") for long, *_ in SIMPLE]
    given = {name: options[name] for name in names if options.get(name) is not None}
    numbers(given)
    for name in ("read", "write"):
        if options.get(name):
            given[name] = list(options[name])
    if options.get("env"):
        given["env"] = environment(options["env"])
    tokens = []
    if options.get("allow_host_network"):
        tokens.append(allow.HostNetwork())
    if options.get("network"):
        if options["network"] == "host" and not tokens:
            raise PolicyError("--network host widens the box: say so with --allow-host-network")
        given["network"] = Network(options["network"])
    primitives = [Policy.load(options["policy"])] if options.get("policy") else []
    weaken = tuple(options.get("weaken") or ())
    return Sandbox(*primitives, weaken=weaken, allow=tokens, account=True, **given)
