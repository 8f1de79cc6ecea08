"""What a default Sandbox is on each recorded host: what is lacking, and the plan that is left.

`python -m tests.pure.test_museum` writes the goldens anew; read their diff.
"""

from pathlib import Path

import pytest

from isolate import HostLacks, Sandbox
from isolate import native as native_module
from isolate.host.facts import Host
from isolate.plan.compile import compile_plan
from isolate.plan.encode import encode
from isolate.plan.explain import explain
from isolate.policy.command import Command
from tests import museum

GOLDEN = Path(__file__).parent / "golden"
TRUE = Command(["true"])
NAMES = sorted(museum.ALL)


def attempt(given_up, host, **short):
    """(the plan, None), or (None, what is lacking)."""
    try:
        policy = Sandbox(weaken=given_up, **short).policy
        return compile_plan(policy, TRUE, host), None
    except HostLacks as lack:
        return None, lack


def outcome(host, **short):
    """Everything that has to be given up, one after the other, and the plan that is left."""
    lacks = {}
    while True:
        plan, lack = attempt(lacks.keys(), host, **short)
        if lack is None:
            return plan, lacks
        assert lack.what not in lacks, lack
        lacks[lack.what] = lack


def text_of(host):
    plan, lacks = outcome(host)
    refusals = "".join(f"refused: {lack}\n" for lack in lacks.values())
    return refusals + explain(plan)


@pytest.mark.parametrize("name", NAMES)
def test_a_default_sandbox_is_as_recorded(name):
    text = text_of(museum.ALL[name])
    known = (GOLDEN / f"museum-{name}.txt").read_text()
    assert text == known, "if that is meant: python -m tests.pure.test_museum"


@pytest.mark.parametrize("name", NAMES)
def test_what_was_given_up_is_what_is_called_weakened(name):
    plan, lacks = outcome(museum.ALL[name])
    weakened = {each.name for each in plan.guarantees if each.verdict == "weakened"}
    assert set(lacks) <= weakened
    assert weakened - set(lacks) <= {"landlock", "reports"}  # which need no giving up


@pytest.mark.parametrize("name", NAMES)
def test_every_refusal_says_why_and_what_to_do(name):
    _, lacks = outcome(museum.ALL[name], mem="64M", cpu=1)
    for lack in lacks.values():
        assert lack.why
        assert f'weaken={{"{lack.what}"}}' in lack.hint


@pytest.mark.parametrize("name", NAMES)
def test_the_checker_takes_every_blob(name):
    plan, _ = outcome(museum.ALL[name])
    for ops in (plan.template, plan.joining, plan.setup, plan.program):
        if ops:
            assert native_module.check(encode(ops).blob) is None


@pytest.mark.parametrize("name", NAMES)
def test_hosts_go_through_json(name):
    host = museum.ALL[name]
    assert Host.from_json(host.to_json()) == host


def test_the_museum_has_the_hosts_that_matter():
    hosts = museum.ALL.values()
    assert len(hosts) >= 8
    assert {host.arch for host in hosts} == {"x86_64", "aarch64"}
    assert {host.cgroup.version for host in hosts} == {0, 1, 2}
    assert {host.euid for host in hosts} == {0, 1000}
    assert min(host.kernel for host in hosts) < (5, 16)
    assert any("apparmor_restrict" in host.user_why for host in hosts)
    assert any(host.refused for host in hosts)


def test_only_a_container_with_dockers_filter_gives_up_everything():
    given_up = {name: set(outcome(host)[1]) for name, host in museum.ALL.items()}
    assert given_up["in-docker"] >= {"user", "mount", "pid", "net", "root", "ids"}
    assert given_up["in-bwrap-root"] == {"ids"}
    assert given_up["in-unfiltered"] == given_up["in-podman"] == {"proc"}
    for name in ("vm-6.18-root", "vm-6.18-user", "in-bwrap", "debian-12-root", "aarch64-root",
                 "debian-12-delegated", "old-5.15-root", "remapped-root"):  # fmt: skip
        assert given_up[name] == set(), name


if __name__ == "__main__":
    for each, machine in museum.ALL.items():
        (GOLDEN / f"museum-{each}.txt").write_text(text_of(machine))
