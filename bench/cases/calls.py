# SPDX-License-Identifier: Apache-2.0
"""Calls of a Python function, in a live box and one-shot; against fork, pools, and bwrap."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from bench.harness import Bench, Budget, Contender, each
from bench.peers import bwrap
from bench.tiny import double
from bench.ways import sandbox

__all__ = ["run"]


def fork_and_pipe() -> None:
    """A fork of this interpreter that sends one answer back: the floor of a fresh process."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_fd, b"42")
        os._exit(0)
    os.close(write_fd)
    answer = os.read(read_fd, 16)
    os.close(read_fd)
    os.waitpid(pid, 0)
    if answer != b"42":
        raise RuntimeError("the fork did not answer")


def python_in(argv: list[str]) -> None:
    """A fresh interpreter that prints the answer."""
    done = subprocess.run(argv, capture_output=True, check=True)
    if done.stdout.strip() != b"42":
        raise RuntimeError(f"{argv[0]}: {done}")


def others(bench: Bench) -> list[Contender]:
    """What people use instead."""
    # fork: what a pool has by default here; its workers have the caller's memory and rights
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    bench.stack.callback(pool.shutdown)
    plain = [sys.executable, "-I", "-c", "print(21 * 2)"]
    found = [
        Contender("fork + pipe", each(fork_and_pipe), "no isolation, the caller's memory"),
        Contender(
            "ProcessPoolExecutor, warm",
            each(lambda: pool.submit(double, 21).result()),
            "no isolation, one process for all calls",
        ),
        Contender("python -I -c", each(lambda: python_in(plain)), "no isolation", share=0.3),
    ]
    if shutil.which("bwrap"):
        peer = bwrap(bench)

        def boxed() -> None:
            if peer.run(sys.executable, "-I", "-c", "print(21 * 2)").strip() != "42":
                raise RuntimeError("bwrap: no answer")

        found.append(Contender("bwrap python -I -c", each(boxed), share=0.3))
    return found


def run(bench: Bench) -> None:
    """Warm calls first."""
    box = bench.stack.enter_context(sandbox())
    if box.call(double, 21) != 42:
        raise RuntimeError("the call gave something else")
    rows = others(bench)
    names = [row.name for row in rows]
    budgets = [
        Budget("call, live box", "fork + pipe", 2.5, "warm executor call, fresh process"),
        Budget("call, live box", "ProcessPoolExecutor, warm", None),
    ]
    if "bwrap python -I -c" in names:
        row = "warm executor call against bwrap running python"
        budgets.append(Budget("bwrap python -I -c", "call, live box", 15, row, least=True))
    bench.compare(
        "a function of next to nothing",
        [
            Contender("call, live box", each(lambda: box.call(double, 21)), "a fresh process"),
            Contender("call, one-shot", each(lambda: sandbox().call(double, 21)), share=0.3),
            *rows,
        ],
        budgets,
        remarks=["the executor and its reused worker come with a later issue"],
    )
