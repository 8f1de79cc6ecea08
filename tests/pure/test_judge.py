"""The verdict from what was seen: the first reason wins, whatever else is true."""

import signal

import pytest

from isolate import Exited, Killed, LimitHit, TimedOut, Violated
from isolate.plan.model import Limits
from isolate.supervise.outcome import Seen, judge

LIMITS = Limits(wall=5.0, cpu_time=2.0, memory=64 << 20, pids=10, files_size=100, output=1000)
EXIT_3 = 3 << 8
KILL = int(signal.SIGKILL)


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (Seen(status=EXIT_3), Exited(3)),
        (Seen(status=KILL), Killed(signal.SIGKILL)),
        (Seen(status=KILL, verdict=TimedOut(5.0)), TimedOut(5.0)),
        # The supervisor's own reason comes before what the kernel counted by then.
        (Seen(status=KILL, verdict=TimedOut(5.0), oom_kills=1, cpu=9.0), TimedOut(5.0)),
        (
            Seen(status=KILL, verdict=LimitHit("output", 1001, 1000), pids_refused=3),
            LimitHit("output", 1001, 1000),
        ),
        (
            Seen(status=KILL, oom_kills=1, memory_peak=64 << 20, cpu=9.0),
            LimitHit("memory", 64 << 20, 64 << 20),
        ),
        # Memory that killed a child only: the run is over its limit, however it exited.
        (Seen(status=0, oom_kills=2, memory_peak=1), LimitHit("memory", 1, 64 << 20)),
        # Processor time: by the account, also when nobody looked in time.
        (Seen(status=0, cpu=2.0), LimitHit("cpu_time", 2.0, 2.0)),
        (Seen(status=0, cpu=1.999), Exited(0)),
        (Seen(status=KILL, cpu=2.1), LimitHit("cpu_time", 2.1, 2.0)),
        (Seen(status=int(signal.SIGXCPU), cpu=2.5), LimitHit("cpu_time", 2.5, 2.0)),
        # A program that sends itself SIGXCPU has not used up its time.
        (Seen(status=int(signal.SIGXCPU), cpu=0.1), Killed(signal.SIGXCPU)),
        (Seen(status=int(signal.SIGXCPU)), LimitHit("cpu_time", None, 2.0)),
        (Seen(status=int(signal.SIGXFSZ)), LimitHit("files_size", None, 100)),
        (Seen(status=0, pids_refused=1, pids_peak=10), LimitHit("pids", 10, 10)),
        (Seen(status=0, pids_refused=1, cpu=3.0), LimitHit("cpu_time", 3.0, 2.0)),
        (Seen(status=int(signal.SIGSYS)), Violated(None, (), "seccomp")),
        (Seen(status=64), Killed(64)),
    ],
)
def test_the_first_reason_wins(seen, outcome):
    assert judge(seen, LIMITS) == outcome


def test_without_limits_only_the_status_counts():
    seen = Seen(status=int(signal.SIGXCPU), cpu=1e9, pids_refused=4)
    assert judge(seen, Limits()) == Killed(signal.SIGXCPU)
    assert judge(Seen(status=int(signal.SIGXFSZ)), Limits()) == Killed(signal.SIGXFSZ)
