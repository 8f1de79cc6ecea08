# SPDX-License-Identifier: Apache-2.0
"""Escape attempts from inside, each against what the caller has put in place to be found.

Rules of HARDENING in brackets. The payload is escapes.py; each attempt is one test for each kind of
start, so that a hole says where it is.
"""

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from stat import S_ISCHR

import pytest

from isolate import Sandbox, Violated

pytestmark = pytest.mark.needs("userns", "pidns", "x86_64")
PAYLOAD = Path(__file__).with_name("escapes.py")
ATTEMPTS = re.findall(r"^def ([a-z_0-9]+)\(\):", PAYLOAD.read_text(), re.MULTILINE)
ATTEMPTS = [name for name in ATTEMPTS if name != "main"]
STARTS = ["run", "live", "popen", "pty", "write", "passed"]
# What refuses an attempt: the filter, the file's absence, a read-only mount, an id of nobody …
WORDS = {
    "EPERM", "EACCES", "ENOSYS", "ENOENT", "EROFS", "EINVAL", "EFAULT", "ENXIO", "EAFNOSUPPORT",
    "ESRCH", "EBADF", "ENOTTY", "ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EIO", "EISDIR",
    "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EXDEV", "ENOTDIR", "ELOOP", "ENODEV", "EADDRNOTAVAIL",
    "ENOMEM", "ETXTBSY", "EOPNOTSUPP", "EOVERFLOW", "ENOKEY", "time",
    "own", "none", "closed", "ignored", "taken", "unknown", "empty",
}  # fmt: skip
IPC_KEY = 0x69736F31


def system_v_shm():
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.shmget(IPC_KEY, 4096, 0o1666)
    return libc, found


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """What must not be reached: files, sockets, memory, all with names of this run."""
    folder = tmp_path_factory.mktemp("canary")
    secret = folder / "secret"
    secret.write_text("the caller's secret")
    name = f"isolate-{uuid.uuid4().hex}"
    libc, shm_id = system_v_shm()
    shm = Path("/dev/shm") / name
    shm.write_text("shared")
    listener = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{name}")
    abstract.listen()
    try:
        yield {
            "secrets": [str(secret), "/etc/shadow", "/root/.bashrc", str(Path(sys.argv[0]).parent)],
            "names": [socket.gethostname()] if socket.gethostname() != "sandbox" else [],
            "ports": [listener.getsockname()[1]],
            "addresses": [],
            "abstract": [name],
            "shm": [name],
            "ipc": IPC_KEY,
            "key": 1,
            "uid": os.getuid(),
            "inodes": [
                [st.st_dev, st.st_ino]
                for st in map(os.fstat, (0, 1, 2))
                if not S_ISCHR(st.st_mode)
            ],
            "processes": 4,
            "write": [],
            "fds": [],
            "pty": False,
        }
    finally:
        listener.close()
        abstract.close()
        shm.unlink()
        if shm_id >= 0:
            libc.shmctl(shm_id, 0, None)


def argv(told):
    return [sys.executable, "-I", "-c", PAYLOAD.read_text().replace("__file__", '"<string>"'),
            json.dumps(told)]  # fmt: skip


def with_pty(told):
    with Sandbox().popen(argv({**told, "pty": True}), pty=True) as program:
        out = b""
        while data := program.pty.read(4096):
            out += data
    return out.replace(b"\r\n", b"\n")


def with_write(told, folder):
    written = folder / "written"
    written.mkdir()
    told = {**told, "write": [str(written)]}
    done = Sandbox(write=[str(written)]).run(argv(told), capture_output=True)
    assert list(written.iterdir()) == []
    return done.stdout


def with_passed(told, folder):
    given = folder / "given"
    given.write_text("given")
    with given.open("rb") as file:
        told = {**told, "fds": [file.fileno()]}
        options = {"stdout": subprocess.PIPE, "pass_fds": [file.fileno()]}
        with Sandbox().popen(argv(told), **options) as program:
            return program.communicate()[0]


def in_live_box(told):
    with Sandbox() as box:
        assert box.call(os.getpid) > 1  # a worker and a keeper are there
        told = {**told, "processes": 8}
        return box.run(argv(told), capture_output=True).stdout


@pytest.fixture(scope="module")
def results(host, tmp_path_factory):
    """Each way of starting once, when its first attempt is looked at."""
    found = {}
    starts = {
        "run": lambda: Sandbox().run(argv(host), capture_output=True).stdout,
        "live": lambda: in_live_box(host),
        "popen": lambda: Sandbox().popen(argv(host), stdout=subprocess.PIPE).communicate()[0],
        "pty": lambda: with_pty(host),
        "write": lambda: with_write(host, tmp_path_factory.mktemp("write")),
        "passed": lambda: with_passed(host, tmp_path_factory.mktemp("passed")),
    }

    def look(start):
        if start not in found:
            out = starts[start]()
            line = [each for each in out.split(b"\n") if each.startswith(b"ATTEMPTS ")]
            assert line, out[-2000:]
            found[start] = json.loads(line[0].removeprefix(b"ATTEMPTS "))
        return found[start]

    return look


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_is_refused(results, attempt, start):
    got = results(start)[attempt]
    assert set(got.split()) <= WORDS, got


def test_the_payload_finds_a_hole_where_there_is_one(host, tmp_path):
    """The same payload in a box that was opened on purpose: each of these must show."""
    told = json.dumps({**host, "write": [str(tmp_path)]})
    box = Sandbox(read=[str(Path(host["secrets"][0]).parent)], write=[str(tmp_path)])
    code = PAYLOAD.read_text().replace("__file__", '"<string>"')
    done = box.run([sys.executable, "-I", "-c", code, told], capture_output=True)
    found = json.loads(done.stdout.removeprefix(b"ATTEMPTS "))
    for attempt in ("secrets_by_path", "secrets_behind_proc", "secrets_above_the_root"):
        assert found[attempt].startswith("HOLE"), attempt
    assert "the caller's secret" in found["secrets_by_path"]


@pytest.mark.parametrize("number", [39, 41, 101, 165, 520, 547])
def test_calls_of_the_x32_abi_end_who_makes_them(number):
    script = (
        "import ctypes; libc = ctypes.CDLL(None); print('before', flush=True);"
        f"libc.syscall(ctypes.c_long((1 << 30) | {number}), 0, 0, 0); print('after')"
    )
    done = Sandbox().run([sys.executable, "-I", "-c", script], capture_output=True)
    assert isinstance(done.outcome, Violated)
    assert done.stdout == b"before\n"


def test_nothing_of_the_caller_s_environment_and_memory_is_inside():
    script = (
        "import os,glob;"
        "print('ISOLATE_CANARY' in os.environ,"
        "any(b'ISOLATE_CANARY' in open(f,'rb').read() for f in glob.glob('/proc/*/environ')"
        " if os.access(f,os.R_OK) and not f.startswith('/proc/1/')))"
    )
    os.environ["ISOLATE_CANARY"] = "1"
    try:
        done = Sandbox().run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    finally:
        del os.environ["ISOLATE_CANARY"]
    assert done.stdout == "False False\n", done.stderr
