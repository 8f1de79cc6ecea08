# SPDX-License-Identifier: Apache-2.0
"""This machine, as the front end knows it: looked at once, and the interpreter again and again."""

from __future__ import annotations

import os
import sys
import time
from functools import lru_cache
from typing import Any

from attrs import evolve

from isolate.host.facts import Host
from isolate.host.probe import probe, probe_python
from isolate.policy import ambient

__all__ = ["machine", "this_host"]


@lru_cache(maxsize=4)
def machine(euid: int) -> Host:
    """Facts that don't change while we run."""
    with ambient.outside():  # under a filter it asks in a copy of this process
        return probe()


HOST_SECONDS = 1.0  # a link of the interpreter's that is changed shows after that long at most
LOOKED: dict[tuple[Any, ...], tuple[float, Host]] = {}


def this_host() -> Host:
    """The machine, with the interpreter and sys.path as they are now.

    Looked at anew when sys.path or HOME changes, and once a second: a look costs half a launch.
    The same facts are the same object, by which plans are cached.
    """
    key = (os.geteuid(), sys.executable, sys.prefix, os.environ.get("HOME"), *sys.path)
    now = time.monotonic()
    found = LOOKED.get(key)
    if found is not None and now - found[0] < HOST_SECONDS:
        return found[1]
    python = probe_python()
    host = found[1] if found is not None else machine(os.geteuid())
    if host.python != python:
        host = evolve(host, python=python)
    if len(LOOKED) >= 16:
        LOOKED.clear()
    LOOKED[key] = (now, host)
    return host
