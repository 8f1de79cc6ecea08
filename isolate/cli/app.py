# SPDX-License-Identifier: Apache-2.0
"""The group of commands; every error of the library is one message and one exit status."""

from __future__ import annotations

import click

from isolate.cli.explaining import doctor, explain
from isolate.cli.listing import ps, stats
from isolate.cli.result import FAILED, failure_status
from isolate.cli.running import run
from isolate.cli.seccomp import seccomp
from isolate.errors import IsolateError

__all__ = ["app", "start"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="isolate-linux", message="%(version)s")
def app() -> None:
    """Run untrusted programs in Linux sandboxes, and look at those that run."""


for command in (run, stats, ps, explain, doctor, seccomp):
    app.add_command(command)


def start(args: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    try:
        code = app.main(args, prog_name="isolate", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return 130  # as a shell has it for SIGINT
    except (IsolateError, OSError) as error:
        click.echo(f"isolate: {type(error).__name__}: {error}", err=True)
        return failure_status(error) if isinstance(error, IsolateError) else FAILED
