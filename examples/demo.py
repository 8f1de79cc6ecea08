# SPDX-License-Identifier: Apache-2.0
"""A hostile plugin and a hostile program, each attack really tried, each outcome by name.

Exit status: 0 if all were contained.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
import tempfile
from pathlib import Path

import isolate
from isolate import Sandbox

CANARY = "canary-7c1f"


class Attack:
    """The plugin: what somebody else's code might do when it is called."""

    @staticmethod
    def read(path: str) -> str:
        with open(path) as file:
            return file.read()

    @staticmethod
    def environment() -> dict[str, str]:
        return dict(os.environ)

    @staticmethod
    def heap(pid: int) -> bytes:
        with open(f"/proc/{pid}/mem", "rb") as file:
            return file.read(1)

    @staticmethod
    def write(path: str) -> None:
        with open(path, "w") as file:
            file.write("owned")

    @staticmethod
    def connect(port: int) -> str:
        socket.create_connection(("127.0.0.1", port), timeout=2)
        return "connected"

    @staticmethod
    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    @staticmethod
    def fork(count: int) -> int:
        for _ in range(count):
            if os.fork() == 0:
                signal.pause()
        return count

    @staticmethod
    def eat(size: int) -> int:
        return len(b"x" * size)

    @staticmethod
    def spin() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass

    @staticmethod
    def daemon() -> int:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.pause()
        return pid

    @staticmethod
    def flood() -> None:
        while True:
            print("x" * 10_000)

    @staticmethod
    def evil_reply() -> None:
        class Evil:
            def __reduce__(self):
                return os.system, ("touch /tmp/demo-owned",)

        for fd in range(3, 64):
            try:
                os.write(fd, pickle.dumps(Evil()))
            except OSError:
                continue
        os._exit(0)


FAILED = []


def show(what: str, held: bool, outcome: object) -> None:
    """One line."""
    text = f"{type(outcome).__name__}: {outcome}" if isinstance(outcome, Exception) else outcome
    print(f"  {'contained' if held else 'NOT CONTAINED':<14} {what:<38} {str(text)[:90]}")
    if not held:
        FAILED.append(what)


def attempt(fn, *args, **limits) -> object:
    """The value of a call, or its exception."""
    try:
        return Sandbox(timeout=20, **limits).call(fn, *args)
    except Exception as error:
        return error


def refused(what: str, fn, *args, **limits) -> None:
    """A call that must fail."""
    outcome = attempt(fn, *args, **limits)
    show(what, isinstance(outcome, Exception), outcome)


def plugin(home: Path, memory: dict) -> None:
    """The hostile plugin."""
    secret = home / ".ssh" / "id_ed25519"
    refused("read /etc/shadow", Attack.read, "/etc/shadow")
    refused("read ~/.ssh/id_ed25519", Attack.read, str(secret))
    names = Sandbox().call(Attack.environment)
    show("read the caller's environment", CANARY not in str(names), sorted(names))
    refused("read the caller's heap", Attack.heap, os.getpid())
    refused("write to a file of the caller", Attack.write, str(home / "file"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        refused("connect to a server on loopback", Attack.connect, server.getsockname()[1])
    refused("signal the caller", Attack.kill, os.getpid())
    refused("fork 500 times", Attack.fork, 500, pids=50)
    if memory:
        refused("take 512 MiB of 64 MiB", Attack.eat, 512 << 20, **memory)
    try:
        Sandbox(timeout=1).call(Attack.spin)
    except isolate.TimeLimitExceeded as error:
        show("run for ever, ignoring SIGTERM", True, error)
    with Sandbox() as box:
        init = box.pid
        box.call(Attack.daemon)
    show("leave a daemon", not os.path.exists(f"/proc/{init}"), "the box is gone, and it with it")
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        flooded = attempt(Attack.flood, output="64K")
    show("flood stdout", isinstance(flooded, isolate.OutputLimitExceeded), flooded)
    refused("answer with a pickle", Attack.evil_reply)
    show("... and have it run here", not os.path.exists("/tmp/demo-owned"), "it was not loaded")


PROGRAM = r"""#!/bin/sh
cat /etc/shadow 2>/dev/null && echo GOT shadow
env | grep -q canary && echo GOT environment
echo owned > "$1/file" 2>/dev/null && echo GOT write
ls "$1" >/dev/null 2>&1 && echo GOT home
kill -9 "$2" 2>/dev/null && echo GOT signal
echo 1 > /proc/sys/kernel/core_pattern 2>/dev/null && echo GOT core_pattern
mount -t tmpfs none /tmp 2>/dev/null && echo GOT mount
unshare -r true 2>/dev/null && echo NOTE nested user namespace
exit 0
"""


def program(home: Path, memory: dict) -> None:
    """The hostile program."""
    sandbox = Sandbox(files={"hostile": PROGRAM}, timeout=20)
    done = sandbox.run(["./hostile", str(home), str(os.getpid())], capture_output=True, text=True)
    show("shell script: seven attempts", "GOT" not in done.stdout, done.outcome)
    loop = ["sh", "-c", "trap '' TERM; while :; do :; done"]
    done = Sandbox(timeout=1).run(loop)
    show("run for ever, ignoring SIGTERM", "TimedOut" in str(done.outcome), done.outcome)
    done = Sandbox(output="64K", timeout=20).run(["yes"], capture_output=True)
    show("flood stdout", "output" in str(done.outcome), done.outcome)
    if memory:
        eat = [sys.executable, "-c", "b = b'x' * (512 << 20)"]
        done = Sandbox(timeout=20, **memory).run(eat, capture_output=True)
        show("take 512 MiB of 64 MiB", "memory" in str(done.outcome), done.outcome)
        print(f"  account of that one: {done.usage}")
    bomb = "i=0; while [ $i -lt 500 ]; do sleep 9 & i=$((i+1)); done; wait"
    done = Sandbox(pids=50, timeout=5).run(["sh", "-c", bomb], capture_output=True)
    show("fork 500 times", done.returncode != 0, done.outcome)


def main() -> int:
    """0 if all were contained."""
    memory = {"mem": "64M"}
    try:
        Sandbox(**memory).run(["true"])
    except isolate.HostLacks as error:
        print(f"memory can't be limited here, so that attack is left out: {error}\n")
        memory = {}
    with tempfile.TemporaryDirectory(prefix="demo-home-") as folder:
        home = Path(folder)
        (home / ".ssh").mkdir()
        (home / ".ssh" / "id_ed25519").write_text(CANARY)
        (home / "file").write_text("mine")
        os.environ["SECRET"] = CANARY
        print("a hostile plugin, by box.call:")
        plugin(home, memory)
        print("a hostile program, by box.run:")
        program(home, memory)
        show("the caller's file is as it was", (home / "file").read_text() == "mine", "unchanged")
    print("\nall contained" if not FAILED else f"\nNOT CONTAINED: {', '.join(FAILED)}")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
