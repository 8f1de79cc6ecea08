"""A limit of one program in a live box ends all that descends from it, and nothing else."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from isolate import Exited, Namespace, Policy, Sandbox, TimedOut, allow
from isolate.errors import LimitExceeded, ReplyError, TimeLimitExceeded
from isolate.supervise.launch import Session
from tests.live import trees as hostile

TREES = Path(hostile.__file__)
KINDS = ["daemons", "chain", "caterpillar", "bomb", "siblings", "threads", "reapers", "stopped"]
SEEN = 20.0  # seconds: how long we look for a process that has to be there


def marked(mark):
    """Processes of this machine that carry the mark and aren't dead."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def wait_for(condition):
    end = time.monotonic() + SEEN
    while time.monotonic() < end:
        if condition():
            return True  # seen once: it may be over by now
        time.sleep(0.01)
    return False


@pytest.fixture
def box():
    with Sandbox(read=[TREES], pids=120) as live:
        yield live


def argv(kind, mark):
    return [sys.executable, str(TREES), kind, mark]


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout_ends_the_whole_tree(box, kind):
    mark = f"isolate-tree-{kind}-{os.getpid()}"
    bystander = box.popen(["/bin/sh", "-c", "sleep 60; : bystander"])
    with box.popen(argv(kind, mark), timeout=1.5) as program:
        assert wait_for(lambda: len(marked(mark)) > 2 or program.poll() is not None)
        assert program.wait(60) == -signal.SIGKILL
        assert program.outcome == TimedOut(1.5)
    assert marked(mark) == []
    assert bystander.poll() is None
    assert box.run(["/bin/sh", "-c", "echo alive"], capture_output=True).stdout == b"alive\n"
    bystander.kill()
    bystander.wait(10)


@pytest.mark.parametrize("kind", ["stop_keeper", "kill_keeper"])
def test_a_program_that_attacks_its_keeper_ends_as_well(box, kind):
    """As root the keeper is out of its reach; as an ordinary user it has the same uid."""
    mark = f"isolate-tree-{kind}-{os.getpid()}"
    bystander = box.popen(["/bin/sleep", "60"])
    done = box.run(argv(kind, mark), timeout=1.5)
    assert isinstance(done.outcome, TimedOut) or done.returncode == -signal.SIGKILL
    assert wait_for(lambda: not marked(mark))
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait(10)


@pytest.mark.needs("root")
def test_a_keeper_is_out_of_reach_and_has_no_rights(box):
    script = (
        "import os\n"
        "pid = os.getppid()\n"
        "text = open(f'/proc/{pid}/status').read()\n"
        "print([line.split()[1] for line in text.splitlines() if line.startswith('Cap')])\n"
        "for name in ('mem', 'environ', 'maps', 'fd/0'):\n"
        "    try:\n"
        "        open(f'/proc/{pid}/{name}').close()\n"
        "    except OSError as error:\n"
        "        print(type(error).__name__)\n"
        "try:\n"
        "    os.kill(pid, 9)\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = box.run([sys.executable, "-c", script], capture_output=True, text=True)
    caps, *errors = done.stdout.splitlines()
    inheritable, permitted, effective = eval(caps)[:3]
    assert (int(permitted, 16), int(effective, 16)) == (1 << 5, 1 << 5)  # CAP_KILL
    assert set(errors) == {"PermissionError"}
    assert len(errors) == 5


def test_what_a_program_leaves_behind_lives_on_without_a_limit(box):
    """A daemon of a program that ended is the box's; the timeout of another doesn't touch it."""
    mark = f"isolate-tree-left-{os.getpid()}"
    left = box.run(["/bin/sh", "-c", f"(sleep 60; : {mark}) </dev/null >/dev/null 2>&1 & exit 4"])
    assert left.outcome == Exited(4)
    assert wait_for(lambda: len(marked(mark)) == 1)  # sleep has begun
    assert box.run(["/bin/sleep", "60"], timeout=0.3).outcome == TimedOut(0.3)
    assert len(marked(mark)) == 1


def test_kill_of_popen_is_subprocess_own_and_ends_one_process(box):
    mark = f"isolate-tree-one-{os.getpid()}"
    program = box.popen(["/bin/sh", "-c", f"(sleep 60; : {mark}) & wait"])
    assert wait_for(lambda: len(marked(mark)) == 2)
    program.kill()
    assert program.wait(10) == -signal.SIGKILL
    assert wait_for(lambda: len(marked(mark)) == 1)


def test_signals_still_reach_the_program(box):
    with box.popen(["/bin/sleep", "60"]) as program:
        program.terminate()
        assert program.wait(10) == -signal.SIGTERM


def test_the_account_of_a_timed_out_program_is_its_own(box):
    script = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    done = box.run([sys.executable, "-c", script + "time.sleep(60)"], timeout=4)
    assert done.outcome == TimedOut(4)
    assert done.usage.user + done.usage.system > 0.25


def test_the_output_limit_ends_the_tree_too():
    mark = f"isolate-tree-output-{os.getpid()}"
    with Sandbox(output="64K") as box:
        script = f"(sleep 60; : {mark}) & while :; do echo {mark}; done"
        done = box.run(["/bin/sh", "-c", script], capture_output=True)
        assert done.outcome.limit == "output"
        assert marked(mark) == []
        assert box.run(["/bin/true"]).returncode == 0


@pytest.mark.needs("root")
def test_without_a_pid_namespace_the_tree_ends_as_well():
    mark = f"isolate-tree-shared-{os.getpid()}"
    with Sandbox(pid=False, read=[TREES], allow=[allow.HostPid()]) as box:
        bystander = box.popen(["/bin/sleep", "60"])
        assert box.run(argv("daemons", mark), timeout=1.5).outcome == TimedOut(1.5)
        assert marked(mark) == []
        assert bystander.poll() is None


def test_without_a_proc_of_its_own_a_box_can_still_tell(tmp_path):
    """A bare pid namespace shows the machine's /proc: init mounts one for itself."""
    mark = f"isolate-tree-bare-{os.getpid()}"
    policy = Policy(Namespace(user=os.geteuid() != 0, pid=True, mount=True))
    from isolate.host.probe import probe
    from isolate.plan.compile import compile_box
    from isolate.running import RunOptions, run_in

    host = probe()
    session = Session(compile_box(policy, host)).start()

    def run(command, **options):
        return run_in(session, policy, host, command, RunOptions(**options), None, None, False)

    try:
        done = run(argv("daemons", mark), timeout=1.5)
        assert done.outcome == TimedOut(1.5)
        assert marked(mark) == []
        assert run(["/bin/true"]).returncode == 0
    finally:
        session.close()


# -- calls


def call_tree(box, kind, mark):
    path = str(TREES)

    def attack():
        import sys

        sys.argv = [path, kind, mark]
        os.execv(sys.executable, [sys.executable, path, kind, mark])

    return box.call(attack)


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout_of_a_call_ends_the_whole_tree(kind):
    mark = f"isolate-call-{kind}-{os.getpid()}"
    with Sandbox(read=[TREES], pids=120, timeout=1.5) as box:
        bystander = box.popen(["/bin/sleep", "60"], timeout=None)
        with pytest.raises(TimeLimitExceeded):
            call_tree(box, kind, mark)
        assert marked(mark) == []
        bystander.kill()
        assert box.call(sum, [1, 2]) == 3


@pytest.mark.parametrize("kind", ["stop_keeper", "kill_keeper"])
def test_a_call_that_attacks_its_keeper_ends_with_all_calls(kind):
    mark = f"isolate-call-{kind}-{os.getpid()}"
    with Sandbox(read=[TREES], timeout=1.5) as box:
        with pytest.raises((TimeLimitExceeded, ReplyError)):
            call_tree(box, kind, mark)
        assert wait_for(lambda: not marked(mark))
        assert box.call(sum, [1, 2]) == 3


def test_the_timeout_of_one_call_leaves_the_others_alone():
    mark = f"isolate-call-others-{os.getpid()}"
    results = []
    with Sandbox(read=[TREES], timeout=3) as box:

        def patient():
            time.sleep(1.5)
            return "done"

        def late():
            time.sleep(2)
            results.append(box.call(patient))

        thread = threading.Thread(target=late)
        thread.start()
        with pytest.raises(TimeLimitExceeded):
            call_tree(box, "daemons", mark)
        thread.join(30)
        assert results == ["done"]
        assert marked(mark) == []


def test_a_daemon_of_a_call_lives_on_and_its_keeper_takes_no_more_calls():
    mark = f"isolate-call-daemon-{os.getpid()}"

    def leave():
        if os.fork() == 0:
            os.setsid()
            os.execv("/bin/sh", ["/bin/sh", "-c", f"sleep 60; : {mark}"])
        return os.getppid()

    with Sandbox() as box:
        keeper = box.call(leave)
        assert wait_for(lambda: len(marked(mark)) == 1)
        assert box.call(os.getppid) != keeper
        assert len(marked(mark)) == 1


def test_a_keeper_is_used_again():
    with Sandbox() as box:
        keepers = {box.call(os.getppid) for _ in range(5)}
        assert len(keepers) <= 2
        assert len({box.call(os.getpid) for _ in range(5)}) == 5


@pytest.mark.needs("cgroup1")
def test_a_memory_limit_of_a_call_ends_its_tree():
    mark = f"isolate-call-memory-{os.getpid()}"

    def hog():
        if os.fork() == 0:
            os.execv("/bin/sh", ["/bin/sh", "-c", f"sleep 60; : {mark}"])
        return len(b"x" * (200 << 20))

    with Sandbox(mem="64M") as box:
        with pytest.raises(LimitExceeded):
            box.call(hog)
        assert box.call(sum, [1]) == 1
