# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PT012  what raises is the end of a block
"""Blocks of a Sandbox, in whatever order and place they end: each ends its own box alone."""

import asyncio
import contextlib
import gc
import os
import select
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import isolate
from isolate import (
    CgroupLimit,
    IsolateError,
    LimitHit,
    Namespace,
    Sandbox,
    Unsandboxed,
    blocks,
)
from isolate.policy.ambient import collected
from isolate.supervise import atend
from tests import conftest


def is_open(box):
    try:
        return box.run(["true"]).returncode == 0
    except IsolateError:
        return False


def generator(sandbox):
    with sandbox as box:
        yield box
        yield box.run(["echo", "mine"], capture_output=True).stdout


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    yield
    assert blocks.BLOCKS == []
    assert collected() == ()
    gc.collect()
    assert [each for each in atend.OPEN if not each.closed] == []


@pytest.mark.parametrize("same", [False, True], ids=["two", "one"])
def test_generators_that_end_out_of_order_end_their_own_boxes(same):
    one = Sandbox()
    other = one if same else Sandbox(pids=9)
    first, second = generator(one), generator(other)
    a, b = next(first), next(second)
    first.close()
    assert (is_open(a), is_open(b)) == (False, True)
    assert next(second) == b"mine\n"
    second.close()
    assert not is_open(b)


@pytest.mark.parametrize("same", [False, True], ids=["two", "one"])
def test_an_exit_stack_ends_them_all(same):
    sandboxes = [Sandbox()] * 3 if same else [Sandbox(pids=9 + i) for i in range(3)]
    with contextlib.ExitStack() as stack:
        boxes = [stack.enter_context(each) for each in sandboxes]
        assert all(map(is_open, boxes))
    assert not any(map(is_open, boxes))


def test_a_generator_that_nobody_holds_ends_its_box():
    made = generator(Sandbox())
    box = next(made)
    del made
    gc.collect()
    assert not is_open(box)


def test_a_block_that_ends_in_another_thread_ends_its_box():
    sandbox = Sandbox()
    box = sandbox.__enter__()
    thread = threading.Thread(target=sandbox.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert not is_open(box)
    from isolate.policy import ambient

    ambient.forget(box)  # of this context, which the other thread has not


def test_a_block_that_ends_twice_says_so():
    sandbox = Sandbox()
    with sandbox:
        pass
    with pytest.raises(IsolateError, match="has ended already"):
        sandbox.__exit__(None, None, None)


def test_tasks_have_boxes_of_their_own():
    async def one(word):
        with Sandbox() as box:
            await asyncio.sleep(0)
            ran = await asyncio.to_thread(isolate.run, ["echo", word], capture_output=True)
            await asyncio.sleep(0)
            assert collected()[-1] is box
            return ran.stdout

    async def many():
        return await asyncio.gather(*(one(str(i)) for i in range(5)))

    assert asyncio.run(many()) == [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n"]


def test_an_async_generator_that_another_task_closes_ends_its_box():
    async def agen():
        with Sandbox() as box:
            yield box

    async def main():
        made = agen()
        box = await made.__anext__()
        assert is_open(box)
        await asyncio.create_task(made.aclose())
        return box

    assert not is_open(asyncio.run(main()))


def test_one_sandbox_in_many_threads_is_many_boxes():
    sandbox = Sandbox()

    def job(i):
        with sandbox as box:
            box.run(["sh", "-c", f"echo {i} > /tmp/mine"])
            there = box.run(["cat", "/tmp/mine"], capture_output=True).stdout
            return there == b"%d\n" % i and box.call(abs, -i) == i

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(job, range(16)))


def test_the_same_sandbox_inside_itself_is_two_boxes():
    sandbox = Sandbox()
    with sandbox as outer, sandbox as inner:
        assert outer is not inner
        outer.run(["touch", "/tmp/outer"])
        assert inner.run(["test", "-e", "/tmp/outer"]).returncode == 1
        assert collected()[-1] is inner


def test_an_error_in_the_block_comes_through_and_ends_the_box():
    kept = []
    with pytest.raises(ZeroDivisionError), Sandbox() as box:
        kept.append(box)
        raise ZeroDivisionError
    assert not is_open(kept[0])


def test_a_block_that_can_t_begin_leaves_nothing():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(IsolateError), Sandbox(read=["/nosuch/file"]):
            raise AssertionError("it has begun")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_box_that_nobody_holds_ends():
    box = Sandbox().open()
    pidfd = os.dup(box.pidfd)
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        assert not poller.poll(0)
        del box
        gc.collect()
        assert poller.poll(10_000)
    finally:
        os.close(pidfd)


def test_a_box_lives_as_long_as_a_program_of_it_is_held():
    program = Sandbox().open().popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    gc.collect()
    assert program.communicate(b"through")[0] == b"through"
    assert program.returncode == 0


def test_a_box_says_what_it_is():
    box = Sandbox().open()
    assert repr(box) == f"<Box: pid {box.pid}>"
    box.close()
    assert repr(box) == "<Box: ended>"


# ---- at the interpreter's end -------------------------------------------------------------

SCRIPT = """
import os, sys
from isolate import Sandbox
box = Sandbox(**({"mem": "64M"} if sys.argv[1] == "limits" else {}))
def leaves():
    import glob
    return glob.glob("/sys/fs/cgroup/*/" + os.environ["ISOLATE_CGROUP_PARENT"] + "/isolate-*")
"""
ENDS = {
    "a box that is open": "kept = box.open(); kept.popen(['sleep', '60'])",
    "a popen that runs": "kept = box.popen(['sleep', '60'])",
    "inside of a block": "with box as kept: kept.popen(['sleep', '60']); sys.exit(0)",
    "an error in a block": "with box as kept: kept.popen(['sleep', '60']); 1/0",
    "a generator": "def g():\n  with box as b: yield b\nkept = g(); next(kept)",
    "a thread": "import threading\nkept = box.open()\n"
    "t = threading.Thread(target=kept.run, args=(['sleep', '0.1'],)); t.start()",
    "a fork that exits": "kept = box.open()\npid = os.fork()\nif pid == 0: sys.exit(0)\n"
    "os.waitpid(pid, 0); assert kept.run(['true']).returncode == 0",
}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_is_left_when_the_interpreter_ends(how):
    parent = f"isolate-test-{os.getpid()}-end"
    limits = "limits" if conftest.FEATURES["cgroup"]() else "none"
    env = {**os.environ, "ISOLATE_CGROUP_PARENT": parent}
    done = subprocess.run(
        [sys.executable, "-c", f"{SCRIPT}\n{ENDS[how]}\n", limits],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if "error" in how else 0), done.stderr
    assert "Exception ignored" not in done.stderr
    assert list(Path("/sys/fs/cgroup").glob(f"*/{parent}/isolate-*")) == []


# ---- nesting narrows (law 3) --------------------------------------------------------------------


@pytest.mark.needs("cgroup")
def test_a_limit_around_a_sandbox_holds_inside_of_it():
    forks = ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"]
    with CgroupLimit(pids=4), Sandbox(pids=50, timeout=20) as box:
        assert isinstance(box.run(forks, stderr=subprocess.DEVNULL).outcome, LimitHit)
    with CgroupLimit(pids=4):
        assert isinstance(
            Sandbox(pids=50, timeout=20).run(forks, stderr=subprocess.DEVNULL).outcome, LimitHit
        )


# ---- what would run outside ---------------------------------------------------------------------

STARTS = {
    "subprocess": lambda: subprocess.run(["true"], check=True),
    "system": lambda: os.system("true"),
    "popen": lambda: os.popen("true").read(),
    "fork": os.fork,
    "forkpty": os.forkpty,
    "posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "spawnv": lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]),
    "execv": lambda: os.execv("/bin/true", ["true"]),
}
PROCESSES = """
import multiprocessing, sys
from isolate import Namespace, Unsandboxed, outside
if __name__ == "__main__":
    for way in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(way)
        if way == "forkserver":
            first = context.Process(target=print)  # the server is there before
            first.start(); first.join()
        with Namespace(net=True):
            try:
                context.Process(target=print, args=("HOLE",)).start()
            except Unsandboxed as error:
                print(way, "isolate." in str(error))
            with outside():
                second = context.Process(target=print, args=("meant",))
                second.start(); second.join()
"""


@pytest.mark.parametrize("start", STARTS)
def test_an_ordinary_start_in_a_block_is_refused(start):
    with Namespace(net=True), pytest.raises(Unsandboxed, match=r"isolate\.(run|call)"):
        STARTS[start]()


def test_every_start_of_multiprocessing_in_a_block_is_refused(tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line]
    assert "HOLE" not in lines
    assert [line for line in lines if line != "meant"] == [
        "fork True",
        "spawn True",
        "forkserver True",
    ], done.stderr
    assert lines.count("meant") == 3


def test_ordinary_starts_outside_of_blocks_are_nobody_s_business():
    with Sandbox():
        assert subprocess.run(["true"], check=False).returncode == 0
    with Namespace(net=True), isolate.outside():
        assert subprocess.run(["true"], check=False).returncode == 0
    assert subprocess.run(["true"], check=False).returncode == 0
