"""Set-up time by phase, on every kind of result."""

from isolate import Namespace, Popen, Sandbox, Timing
from isolate.abi.ops import Phase

BOX = ("prepare", "clone", "set_up")


def check(timing, *, program):
    assert isinstance(timing, Timing)
    assert set(BOX) <= set(timing)
    assert all(value >= 0 for value in timing.values()), str(timing)
    inner = [phase.name.lower() for phase in Phase if phase.name.lower() in timing]
    assert {"ids", "mount", "root"} <= set(inner)
    assert sum(timing[name] for name in inner) <= timing["set_up"] + 1e-6
    assert ("start" in timing) is program
    assert timing.total < 60


def test_a_run_tells_the_phases_of_its_box_and_its_start():
    check(Sandbox().run(["/bin/true"]).timing, program=True)


def test_a_live_box_tells_its_own_and_each_program_its_start():
    with Sandbox() as box:
        check(box.timing, program=False)
        first, second = (box.run(["/bin/true"]).timing for _ in range(2))
        check(first, program=True)
        assert {name: first[name] for name in BOX} == {name: second[name] for name in BOX}
        assert first.spawned_ns < second.spawned_ns


def test_a_popen_has_it_while_it_runs():
    with Sandbox() as box, box.popen(["/bin/sleep", "5"]) as process:
        check(process.timing, program=True)
        process.kill()
    assert isinstance(process.timing, Timing)


def test_a_bare_popen_has_it_too():
    with Namespace(user=True, uts=True), Popen(["/bin/true"]) as process:
        process.wait()
        assert "clone" in process.timing and "mount" not in process.timing


def test_a_clock_of_its_own_gives_no_false_start():
    shifted = Namespace(time=True, monotonic_offset=-1000.0)
    assert "start" not in Sandbox(shifted).run(["/bin/true"]).timing
