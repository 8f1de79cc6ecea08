"""The harness' arithmetic, and the job that the floor is given; nothing is measured here."""

import random

import pytest

from bench.harness import Bench, Budget, Contender, Scale
from bench.job import job_text
from bench.report import as_text, verdict
from bench.stats import Ratio, flat, quantile, ratio, summary
from isolate import Sandbox
from isolate.plan.compile import compile_plan
from isolate.policy.command import Command

from .. import hosts


def test_quantiles_interpolate():
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([1, 2], 0.5) == 1.5
    assert quantile([1, 2, 3, 4, 5], 0.0) == 1 and quantile([1, 2, 3, 4, 5], 1.0) == 5
    assert quantile([7], 0.99) == 7


@pytest.mark.parametrize(("values", "q"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_a_quantile_of_nothing_is_an_error(values, q):
    with pytest.raises(ValueError):
        quantile(values, q)


def test_a_summary_takes_all_rounds():
    found = summary([[1.0, 2.0], [3.0, 4.0, 5.0]])
    assert (found.count, found.median) == (5, 3.0)
    assert found.p10 < found.median < found.p99


def rounds(seed, scale, count=20):
    pick = random.Random(seed)
    return [[scale * pick.uniform(0.9, 1.1) for _ in range(10)] for _ in range(count)]


def test_a_ratio_lies_in_its_interval():
    found = ratio(rounds(1, 3.0), rounds(2, 2.0))
    assert found.low <= found.value <= found.high
    assert found.low > 1.4 and found.high < 1.6


def test_the_same_samples_give_the_same_interval():
    a, b = rounds(3, 1.0), rounds(4, 1.0)
    assert ratio(a, b) == ratio(a, b)


def test_equal_ways_can_not_be_told_apart():
    found = ratio(rounds(5, 1.0), rounds(6, 1.0))
    assert found.low < 1.0 < found.high


def test_drift_that_hits_both_does_not_widen_the_interval():
    drift = [1.0 + i for i in range(20)]  # the machine gets twenty times slower
    a = [[2.0 * d] * 5 for d in drift]
    b = [[1.0 * d] * 5 for d in drift]
    found = ratio(a, b)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


def test_a_ratio_needs_the_same_rounds():
    with pytest.raises(ValueError):
        ratio(rounds(1, 1.0, 3), rounds(1, 1.0, 4))
    with pytest.raises(ValueError):
        ratio([], [])


@pytest.mark.parametrize(
    ("limit", "least", "value", "kept"),
    [(1.3, False, 1.2, True), (1.3, False, 1.4, False), (15, True, 20, True), (15, True, 3, False)],
)
def test_a_budget_is_kept_or_missed(limit, least, value, kept):
    budget = Budget("ours", "theirs", limit, "row", least=least)
    found = Ratio(value=value, low=value, high=value)
    assert budget.kept(found) is kept
    assert ("met" in verdict(budget, found)) is kept
    assert ("MISSED" in verdict(budget, found)) is not kept


def test_a_budget_without_a_limit_has_no_verdict():
    found = Ratio(value=9, low=9, high=9)
    assert verdict(Budget("a", "b", None), found) == ""


def test_contenders_take_turns_and_are_summed_up():
    seen = []

    def way(name, seconds):
        def block(count):
            seen.append(name)
            return [seconds] * count

        return Contender(name, block)

    said = []
    bench = Bench(Scale(4, 3), say=said.append)
    table = bench.compare("t", [way("a", 2.0), way("b", 1.0)], [Budget("a", "b", 1.5, "row")])
    assert seen == ["a", "b"] + ["a", "b", "b", "a"] * 2  # warm once; then A B B A
    assert table.ratios[0][1].value == 2.0
    assert [found.count for _, found in table.rows] == [12, 12]
    assert "MISSED" in said[0] and said[0] == as_text(table)


def test_two_contenders_of_one_name_are_a_mistake():
    bench = Bench(Scale(1, 1), say=lambda text: None)
    one = Contender("a", lambda count: [1.0] * count)
    with pytest.raises(ValueError, match="one name"):
        bench.compare("t", [one, one])


def test_slow_contenders_take_a_smaller_share():
    counts = []

    def block(count):
        counts.append(count)
        return [1.0] * count

    Bench(Scale(2, 10), say=lambda text: None).compare("t", [Contender("a", block, share=0.2)])
    assert counts == [1, 2, 2]


def plan_of(box, program="/bin/true"):
    return compile_plan(box.policy, Command([program], box.env, box.cwd), hosts.ORDINARY)


def steps_of(text):
    return [line.split()[1] for line in text.splitlines() if line.startswith("step ")]


def test_the_floor_does_what_the_plan_does():
    plan = plan_of(Sandbox())
    steps = steps_of(job_text(plan))
    ops = [op.code.name for op in (*plan.setup, *plan.program)]
    for op, step in {
        "MASK": "mask",
        "MOUNT_NEW": "fs",
        "SECCOMP": "seccomp",
        "RLIMIT": "rlimit",
        "SYMLINK": "link",
        "PIVOT_ROOT": "pivot",
        "LOOPBACK_UP": "loopback",
        "BOUNDING": "bounding",
        "NO_NEW_PRIVS": "no_new_privs",
        "SETSID": "setsid",
    }.items():
        assert ops.count(op) == steps.count(step), op


def test_the_floor_refuses_what_it_can_not_do():
    from isolate import Namespace

    with pytest.raises(NotImplementedError, match="TIME|UNSHARE"):
        job_text(plan_of(Sandbox(Namespace(time=True, monotonic_offset=5.0))))


def test_the_floor_wants_a_full_path():
    with pytest.raises(NotImplementedError, match="path"):
        job_text(plan_of(Sandbox(), "true"))


def test_rounds_are_flattened_in_order():
    assert flat([[1, 2], [], [3]]) == [1, 2, 3]
