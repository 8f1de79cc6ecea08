"""cpu_time= holds for all processes of a run together, whoever burns the time."""

import sys

import pytest

from isolate import CpuTimeLimitExceeded, Exited, HostLacks, Killed, LimitHit, Sandbox, TimedOut

needs_cgroup = pytest.mark.needs("cgroup1")
BURN = "import time\ndef burn(s):\n    end = time.process_time() + s\n" \
       "    while time.process_time() < end: pass\n"  # fmt: skip
OVER = 0.5  # seconds beyond the limit, at most: a look every 10 ms, on loaded processors


def python(code, **short):
    return Sandbox(timeout=60, **short).run([sys.executable, "-c", BURN + code])


def check_hit(outcome, limit):
    assert isinstance(outcome, LimitHit)
    assert outcome.limit == "cpu_time"
    assert outcome.ceiling == limit
    assert limit <= outcome.used < limit + OVER


@needs_cgroup
def test_one_process_is_ended_close_to_its_limit():
    done = python("burn(30)", cpu_time=0.5)
    check_hit(done.outcome, 0.5)
    assert 0.5 <= done.usage.cpu < 0.5 + OVER


@needs_cgroup
def test_children_that_burn_together_share_the_limit():
    """No process of these reaches a limit of its own: 20 burn 0.2 s each."""
    code = "import os\nfor _ in range(20):\n    if os.fork() == 0: burn(.2); os._exit(0)\n" \
           "for _ in range(20): os.wait()"  # fmt: skip
    check_hit(python(code, cpu_time=1).outcome, 1)


@needs_cgroup
def test_children_one_after_another_that_nobody_waits_for_share_it_too():
    """Ended children whose time no parent is told (SIGCHLD ignored) are in the cgroup's account."""
    code = "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n" \
           "    r, w = os.pipe()\n    if os.fork() == 0: burn(.03); os._exit(0)\n" \
           "    os.close(w); os.read(r, 1); os.close(r)"  # fmt: skip
    check_hit(python(code, cpu_time=0.6).outcome, 0.6)


@needs_cgroup
def test_an_orphan_in_a_session_of_its_own_counts():
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n" \
           "    if os.fork() == 0: burn(30)\n    os._exit(0)\ntime.sleep(50)"  # fmt: skip
    check_hit(python(code, cpu_time=0.5).outcome, 0.5)


@needs_cgroup
def test_a_little_less_is_let_through():
    done = python("burn(.4)", cpu_time=2)
    assert done.outcome == Exited(0)
    assert 0.4 <= done.usage.cpu < 2


@needs_cgroup
def test_sleeping_costs_nothing():
    assert python("time.sleep(1.5)", cpu_time=1).outcome == Exited(0)


@needs_cgroup
def test_each_run_of_a_box_has_its_own_limit():
    with Sandbox(cpu_time=1) as box:
        argv = [sys.executable, "-c", BURN + "burn(.7)"]
        assert [box.run(argv).outcome for _ in range(3)] == [Exited(0)] * 3
        assert box.stats().cpu.usage > 2.1
        check_hit(box.run([sys.executable, "-c", BURN + "burn(9)"]).outcome, 1)


@needs_cgroup
def test_a_call_is_held_as_a_program_is():
    def burn():
        while True:
            pass

    with Sandbox(cpu_time=0.5) as box:
        with pytest.raises(CpuTimeLimitExceeded) as caught:
            box.call(burn)
        assert 0.5 <= caught.value.used < 0.5 + OVER


@needs_cgroup
def test_the_signal_of_the_limit_sent_by_hand_is_a_plain_signal():
    done = python("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", cpu_time=5)
    assert done.outcome == Killed(24)


@needs_cgroup
def test_the_first_of_two_limits_is_the_verdict():
    assert Sandbox(cpu_time=30, timeout=0.3).run(["/bin/sleep", "9"]).outcome == TimedOut(0.3)
    code = "burn(.1); b = bytearray(b'x') * (200 << 20); burn(9)"
    assert python(code, cpu_time=3, mem="64M").outcome.limit == "memory"
    assert python("burn(9)", cpu_time=0.3, mem="64M").outcome.limit == "cpu_time"


@pytest.mark.needs("unprivileged")
def test_without_a_cgroup_one_process_is_held_by_its_rlimit():
    with pytest.raises(HostLacks, match=r"(?s)cpu_time.*(Delegate=yes|chown)"):
        python("burn(30)", cpu_time=1)
    done = python("burn(30)", cpu_time=1, weaken={"cpu_time"})
    assert isinstance(done.outcome, LimitHit)
    assert done.outcome.limit == "cpu_time"
    held = {each.name: each.verdict for each in done.guarantees}
    assert held["cpu_time"] == "weakened"


@needs_cgroup
def test_popen_is_held_too():
    argv = [sys.executable, "-c", BURN + "burn(30)"]
    with Sandbox(cpu_time=0.4).popen(argv) as program:
        program.wait(50)
        check_hit(program.outcome, 0.4)
