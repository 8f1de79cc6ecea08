"""One system call that fails in isolate-init and in all that it starts, but not in the caller."""

import os
import stat
import struct
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from isolate import Errno, Rule, native
from isolate.plan.bpf.assemble import assemble
from isolate.policy.rules import ALLOW, Layer
from isolate.supervise import start

HERE = Path(__file__).parent
MAGICS = (b"iso-filter-here\0", b"iso-init---here\0")


@cache
def shim(folder):
    """The compiled stand-in, without its two payloads."""
    target = Path(folder) / "shim"
    flags = ["-static", "-nostdlib", "-no-pie", "-fno-stack-protector", "-fcf-protection=none"]
    source = str(HERE / "faulty_init.c")
    argv = ["gcc", "-O1", *flags, "-fno-builtin", "-Wall", "-o", str(target), source]
    subprocess.run(argv, check=True)
    return target.read_bytes()


def filled(data, magic, payload):
    """The binary with one payload in its place."""
    at = data.index(magic)
    body = struct.pack("<II", len(payload), 0) + payload
    return data[: at + 16] + body + data[at + 16 + len(body) :]


def faulty_init(folder, name, number, tests=(), more=()):
    """A stand-in whose filter lets one call fail, where the arguments are so; and others."""
    rules = (Rule(name, Errno(number), tuple(tests)), *more)
    code = assemble(Layer(rules, ALLOW), os.uname().machine)
    data = filled(shim(folder), MAGICS[0], code)
    return filled(data, MAGICS[1], native.INIT_PATH.read_bytes())


@contextmanager
def failing(folder, name, number, tests=(), more=()):
    """Until the end of the block every start of init has that fault."""
    path = Path(folder) / f"init-{name}"
    path.unlink(missing_ok=True)
    path.write_bytes(faulty_init(folder, name, number, tests, more))
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    old_path, old_shared = native.INIT_PATH, start.SHARED
    start.SHARED = start.Shared()
    native.INIT_PATH = path
    try:
        yield
    finally:
        for fd in start.SHARED.opened:
            if fd >= 0:
                os.close(fd)
        native.INIT_PATH, start.SHARED = old_path, old_shared
