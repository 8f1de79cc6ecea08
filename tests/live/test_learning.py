"""`learn` with real programs: the second run passes under what the first runs did, and no more."""

import os
import subprocess
import sys

import pytest

from isolate import Exited, Policy, Sandbox, SeccompFilter

THREADS = """
import threading
found = []
each = [threading.Thread(target=found.append, args=(n,)) for n in range(8)]
[t.start() for t in each]; [t.join() for t in each]
print(sorted(found))
"""
SPAWN = """
import multiprocessing
if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=print, args=("child",), daemon=True)
    child.start(); child.join()
"""
COMPILE = """
echo 'int main(void) { return 0; }' > /tmp/x.c && gcc -o /tmp/x /tmp/x.c && /tmp/x && echo built
"""
COMMAND = [sys.executable, "-m", "isolate"]


def again(wanted, argv):
    """Under the learnt filter, with the default beside it as ever."""
    return Sandbox(seccomp=wanted).run(argv, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("argv", "output"),
    [
        ([sys.executable, "-c", THREADS], "[0, 1, 2, 3, 4, 5, 6, 7]\n"),
        ([sys.executable, "-c", SPAWN], "child\n"),
        pytest.param(["/bin/sh", "-c", COMPILE], "built\n", marks=pytest.mark.needs("gcc")),
    ],
    ids=["threads", "processes", "gcc"],
)
def test_what_ran_once_runs_again_under_what_was_learnt(argv, output):
    wanted = SeccompFilter.learn(argv, runs=2, capture_output=True)
    done = again(wanted, argv)
    assert (done.stdout, done.outcome, done.violations) == (output, Exited(0), ()), done
    rules = wanted.layers[0].rules
    assert 20 < len({rule.syscall for rule in rules}) < 120
    assert wanted.stricter_than(SeccompFilter((SeccompFilter.deny().layers[0],)))


def test_what_no_run_did_is_refused_and_told():
    wanted = SeccompFilter.learn([sys.executable, "-c", "print(1)"], runs=1, capture_output=True)
    done = again(wanted, [sys.executable, "-c", "import os; os.mkdir('/tmp/new')"])
    assert done.outcome == Exited(1)
    assert "PermissionError" in done.stderr
    told = [each.decoded for each in done.violations if each.syscall in ("mkdir", "mkdirat")]
    assert len(told) == 1
    assert "path='/tmp/new'" in told[0]


def isolate(*words):
    """The command, as somebody types it."""
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=110)


def test_the_command_writes_a_policy_that_the_command_runs(tmp_path):
    path = tmp_path / "learnt.toml"
    program = ["/bin/sh", "-c", "echo a > /tmp/a; cat /tmp/a"]
    learnt = isolate("seccomp", "learn", "--runs", "2", "--output", str(path), "--", *program)
    assert (learnt.returncode, learnt.stdout) == (0, ""), learnt
    text = path.read_text()
    assert len(text.splitlines()) > 15  # a rule a line
    assert Policy.loads(text).get(SeccompFilter).layers[0].name == "learnt"
    second = isolate("run", "--policy", str(path), "--", *program)
    assert (second.returncode, second.stdout) == (0, "a\n"), second
    other = isolate("run", "--policy", str(path), "--", "/bin/mkdir", "/tmp/b")
    assert other.returncode != 0
    assert not os.path.exists("/tmp/b")


def test_a_program_that_fails_teaches_nothing_and_writes_nothing(tmp_path):
    path = tmp_path / "learnt.toml"
    done = isolate("seccomp", "learn", "--output", str(path), "--", "/bin/false")
    assert done.returncode == 125
    assert "learning needs runs that end well" in done.stderr
    assert not path.exists()
