"""A stock of network and IPC namespaces: never shared, never used twice, gone with its block."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from isolate import CapabilitySet, IsolateError, PolicyError, Sandbox, allow, stock
from isolate.supervise.stock import Current, take

pytestmark = pytest.mark.needs("root")
TALK = (
    "import socket\n"
    "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
    "c = socket.create_connection(s.getsockname(), 5); c.sendall(b'x')\n"
    "print(s.accept()[0].recv(1))\n"
)


def spaces(box):
    done = box.run(
        ["sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/ipc"],
        capture_output=True, text=True,
    )  # fmt: skip
    return tuple(done.stdout.split())


def test_each_box_has_its_own_and_its_loopback_works():
    mine = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc")}
    with stock(2) as made, ExitStack() as boxes:  # a number is used again when its box has ended
        seen = set()
        for _ in range(6):
            assert made.wait(1, 20)
            ready = {f"net:[{os.fstat(pair[0]).st_ino}]" for pair in made.pairs}
            found = spaces(boxes.enter_context(Sandbox().open()))
            assert found[0] in ready
            assert not seen & set(found)
            seen |= set(found)
        assert made.wait(1, 20)
        done = Sandbox().run([sys.executable, "-c", TALK], capture_output=True, text=True)
        assert done.stdout == "b'x'\n", done.stderr
    assert len(seen) == 12
    assert not mine & seen
    assert {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc")} == mine


def test_nobody_inside_has_a_right_over_it():
    with stock(1) as made:
        assert made.wait(1, 20)
        forward = "/proc/sys/net/ipv4/ip_forward"
        script = f"ip link set lo down; ip link add d type dummy; echo 1 > {forward}"
        done = Sandbox().run(["sh", "-c", script], capture_output=True, text=True)
        assert done.returncode != 0
        assert made.wait(1, 20)
        up = Sandbox().run([sys.executable, "-c", TALK], capture_output=True, text=True)
        assert up.stdout == "b'x'\n"


def test_a_box_with_capabilities_takes_none():
    own = Sandbox(caps=CapabilitySet("NET_ADMIN"), allow=[allow.Capabilities()])
    with stock(1) as made:
        assert made.wait(1, 20)
        ready = list(made.pairs)
        assert own.run(["true"]).returncode == 0
        assert list(made.pairs) == ready


def test_an_empty_stock_is_no_reason_to_wait():
    with stock(1) as made:
        made.close()
        assert Sandbox().run(["true"]).returncode == 0
        assert take() is None


def test_nothing_of_it_is_left():
    Sandbox().run(["true"])
    before = sorted(os.listdir("/proc/self/fd"))
    with stock(3) as made:
        assert made.wait(3, 20)
        assert len(os.listdir("/proc/self/fd")) >= len(before) + 6
        Sandbox().run(["true"])
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert "isolate-stock" not in {thread.name for thread in threading.enumerate()}
    assert take() is None


def test_a_process_has_one_at_a_time_and_a_size_that_means_something():
    with stock(1), pytest.raises(IsolateError, match="already"), stock(1):
        pass
    for size in (0, -1, 65):
        with pytest.raises(PolicyError, match="1 to 64"), stock(size):
            pass


def test_a_fork_lets_go_of_it():
    with stock(2) as made:
        assert made.wait(2, 20)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                left = [pair for pair in made.pairs if os.path.exists(f"/proc/self/fd/{pair[0]}")]
                ran = Sandbox().run(["true"]).returncode
                code = 0 if Current.stock is None and not left and ran == 0 else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert made.wait(2, 20)
        assert Sandbox().run(["true"]).returncode == 0


def test_threads_share_it_and_get_different_ones():
    seen, lock, boxes = [], threading.Lock(), []

    def one():
        for _ in range(4):
            box = Sandbox().open()
            found = spaces(box)
            with lock:
                boxes.append(box)
                seen.append(found)

    with stock(4):
        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for box in boxes:
            box.close()
    assert len({name for pair in seen for name in pair}) == 32


def test_a_killed_interpreter_leaves_none():
    script = (
        "from isolate import stock\nimport os\n"
        "with stock(2) as made:\n"
        "    assert made.wait(2, 30)\n"
        "    print(*(os.fstat(fd).st_ino for pair in made.pairs for fd in pair), flush=True)\n"
        "    input()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=-1, stdout=-1, text=True, env=env
    ) as child:
        names = child.stdout.readline().split()
        assert len(names) == 4
        child.send_signal(signal.SIGKILL)
    listed = subprocess.run(["lsns", "-n", "-o", "NS"], capture_output=True, text=True).stdout
    assert not set(names) & set(listed.split())
