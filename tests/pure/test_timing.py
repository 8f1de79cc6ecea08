"""The account of set-up: what is in it, in which order, and that reading it is what costs."""

import pickle

from isolate.abi.ops import Phase
from isolate.supervise.timing import Timing

SECOND = 10**9


def stamps(**at):
    """phase_ns with these phases' ends, in seconds."""
    return tuple(int(at.get(phase.name.lower(), 0) * SECOND) for phase in Phase)


FULL = Timing(
    began=10.0,
    prepared=10.5,
    cloned=11.0,
    ended_ns=15 * SECOND,
    phase_ns=stamps(ids=12, namespace=12.5, mount=14, root=14.5),
)


def test_the_three_stretches_are_there_as_ever():
    assert FULL["prepare"] == 0.5 and FULL["clone"] == 0.5 and FULL["set_up"] == 4.0
    assert FULL.total == 5.0


def test_each_phase_is_from_the_end_of_the_one_before():
    assert dict(FULL) == {
        "prepare": 0.5,
        "clone": 0.5,
        "set_up": 4.0,
        "ids": 1.0,
        "namespace": 0.5,
        "mount": 1.5,
        "root": 0.5,
    }
    assert list(FULL)[:3] == ["prepare", "clone", "set_up"]


def test_a_phase_without_an_op_is_absent():
    assert "network" not in FULL and "cgroup" not in FULL
    assert sum(FULL[name] for name in ("ids", "namespace", "mount", "root")) <= FULL["set_up"]


def test_a_programs_start_comes_on_top():
    assert FULL["clone"] == 0.5  # read before: the copy must not share what was made then
    of_one = FULL.of_program((20 * SECOND, 21 * SECOND))
    assert of_one["start"] == 1.0 and of_one["mount"] == 1.5
    assert "start" not in FULL


def test_clocks_that_disagree_give_no_start():
    assert "start" not in FULL.of_program((20 * SECOND, 19 * SECOND))
    assert "start" not in FULL.of_program((0, 0))


def test_nothing_was_timed_before_the_start():
    assert dict(Timing()) == {} and len(Timing()) == 0 and Timing().total == 0.0


def test_it_is_a_mapping_like_the_dict_it_was():
    assert dict(FULL) == FULL
    assert FULL.get("nothing", 7) == 7
    assert {**FULL}["clone"] == 0.5


def test_nothing_is_computed_until_it_is_read():
    fresh = FULL.of_program((1, 2))
    assert "parts" not in vars(fresh)
    assert fresh["clone"] == 0.5
    assert "parts" in vars(fresh)


def test_it_pickles_and_prints():
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert "mount 1500000 us" in str(FULL)
