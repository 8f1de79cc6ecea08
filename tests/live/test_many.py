"""Many launches at once, from callers of every kind: none lost, nothing left.

ISOLATE_MANY is how many each of the six ways takes; 1700 makes ten thousand.
"""

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from isolate import Sandbox

MANY = int(os.environ.get("ISOLATE_MANY", "70"))
THREADS = 64


def one(number):
    """A launch whose result can't be another's."""
    script = f"echo {number}; exit {number % 200}"
    done = Sandbox().run(["/bin/sh", "-c", script], capture_output=True)
    return number, int(done.stdout), done.returncode


def right(results, count):
    assert sorted(results) == [(n, n, n % 200) for n in range(count)]


def test_sixty_four_threads():
    with ThreadPoolExecutor(THREADS) as pool:
        right(pool.map(one, range(MANY)), MANY)


def test_under_asyncio():
    async def main():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(16) as pool:
            jobs = [loop.run_in_executor(pool, one, n) for n in range(MANY)]
            other = await asyncio.create_subprocess_exec("/bin/true")  # asyncio's own watcher works
            assert await other.wait() == 0
            return await asyncio.gather(*jobs)

    right(asyncio.run(main()), MANY)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_with_sigchld_handled_by_others(handler):
    old = signal.signal(signal.SIGCHLD, handler)
    try:
        with ThreadPoolExecutor(8) as pool:
            right(pool.map(one, range(MANY)), MANY)
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_inside_a_fork_of_the_caller():
    Sandbox().run(["/bin/true"])  # the parent has used the library before
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            right(list(map(one, range(MANY))), MANY)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_one_live_box_from_many_threads():
    with Sandbox() as box:

        def inside(number):
            done = box.run(["/bin/sh", "-c", f"echo {number}"], capture_output=True)
            return int(done.stdout)

        with ThreadPoolExecutor(16) as pool:
            assert sorted(pool.map(inside, range(MANY))) == list(range(MANY))
    assert threading.active_count() < 4
