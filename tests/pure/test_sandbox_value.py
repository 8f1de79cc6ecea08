# SPDX-License-Identifier: Apache-2.0
"""A Sandbox is a value; what is wrong in it is told, and never quietly another value."""

import copy
import pickle

import pytest

from isolate import (
    CapabilitySet,
    CgroupLimit,
    Landlock,
    Namespace,
    Network,
    PolicyConflict,
    PolicyError,
    Rlimit,
    Sandbox,
    allow,
)
from isolate.policy.ambient import collected
from isolate.policy.chroot import Chroot
from isolate.policy.identity import Identity

SANDBOXES = [
    {},
    {"pids": 5},
    {"mem": "64M", "cpu": 0.5},
    {"env": {"A": "b"}},
    {"env": {b"A": b"\xff"}},
    {"cwd": "/usr"},
    {"timeout": "500ms", "cpu_time": 3, "output": "1M", "files_size": 1000},
    {"read": ["/etc"], "write": ["/srv"], "tmp": "1M", "files": {"a": b"1", "b": "2"}},
    {"hostname": "other", "uid": 7, "gid": 8},
    {"rlimits": {"nofile": 50}},
    {"landlock": Landlock(read=["/usr"])},
    {"caps": ["NET_BIND_SERVICE"], "allow": [allow.Capabilities()]},
    {"timeline": 0.5},
    {"weaken": {"memory"}},
]


@pytest.mark.parametrize("fields", SANDBOXES, ids=lambda fields: ",".join(fields) or "default")
def test_equal_fields_make_equal_sandboxes(fields):
    one, other = Sandbox(**fields), Sandbox(**fields)
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1


@pytest.mark.parametrize("fields", SANDBOXES, ids=lambda fields: ",".join(fields) or "default")
def test_a_sandbox_survives_pickle_and_copy(fields):
    one = Sandbox(**fields)
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one
    assert copy.copy(one) == one


def test_different_fields_make_different_sandboxes():
    made = [Sandbox(**fields) for fields in SANDBOXES]
    for i, one in enumerate(made):
        assert one not in made[:i]


def test_a_sandbox_can_t_be_changed():
    sandbox = Sandbox(env={"A": "1"})
    with pytest.raises(AttributeError):
        sandbox.cwd = "/"
    sandbox.env["A"] = "2"  # of a copy
    assert sandbox.env["A"] == "1"


def test_the_caller_s_own_mapping_may_change_afterwards():
    given = {"A": "1"}
    sandbox = Sandbox(env=given)
    given["A"] = "2"
    assert sandbox.env["A"] == "1"


# ---- nothing is quietly something else ------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("pids", 0, "pids"),
        ("pids", -1, "pids"),
        ("pids", True, "pids"),
        ("pids", "many", "pids"),
        ("pids", 1.5, "pids"),
        ("uid", 0, "uid"),
        ("uid", -1, "uid"),
        ("gid", 0, "gid"),
        ("tmp", 0, "tmp"),
        ("tmp", "1X", "size"),
        ("mem", 0, "memory"),
        ("mem", "64X", "size"),
        ("cpu", 0, "cpu"),
        ("cpu", -1, "cpu"),
        ("hostname", "", "hostname"),
        ("hostname", "x" * 65, "hostname"),
        ("hostname", 5, "hostname"),
        ("timeout", -1, "duration"),
        ("timeout", "soon", "duration"),
        ("timeout", float("nan"), "duration"),
        ("cpu_time", "-1s", "duration"),
        ("output", -1, "size"),
        ("files", {"a": 5}, "bytes or str"),
        ("files", {"../a": b""}, r"\.\."),
        ("files", {"a\0b": b""}, "NUL"),
        ("read", ["a\0b"], "NUL"),
        ("seccomp", "default", "SeccompFilter"),
        ("landlock", True, "Landlock"),
        ("apparmor", 5, "AppArmorProfile"),
        ("net", "no", "net must be True"),
        ("pid", 0, "pid must be True"),
        ("allow", "HostNetwork", "tokens"),
        ("rlimits", {"nofile": (5, 2)}, "soft"),
    ],
)
def test_a_value_that_can_t_be_meant_is_told_by_its_field(field, value, named):
    with pytest.raises(PolicyError, match=named):
        Sandbox(**{field: value})


@pytest.mark.parametrize("name", ["memory", "timeouts", "reads", "Net", "preexec_fn", "privileged"])
def test_an_unknown_field_is_told_with_those_that_there_are(name):
    with pytest.raises(PolicyError, match=f"no field {name}.*mem,.*timeout") as caught:
        Sandbox(**{name: 1})
    assert "read" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("user", "HostUser"),
        ("mount", "HostMount"),
        ("pid", "HostPid"),
        ("net", "HostNetwork"),
        ("ipc", "HostIpc"),
        ("uts", "HostUts"),
        ("cgroup", "HostCgroup"),
        ("seccomp", "SystemCalls"),
        ("landlock", "Unlocked"),
    ],
)
def test_what_widens_names_its_token_and_takes_it(field, token):
    with pytest.raises(PolicyError, match=rf"allow\.{token}\(\)"):
        Sandbox(**{field: False})
    assert Sandbox(**{field: False}, allow=[getattr(allow, token)()])


@pytest.mark.parametrize(
    "wide",
    [
        {"caps": ["SYS_ADMIN"]},
        {"caps": CapabilitySet.docker()},
        {"network": Network.host()},
    ],
    ids=["names", "docker", "network"],
)
def test_no_other_token_lets_these_through(wide):
    every = [allow.HostPid(), allow.HostIpc(), allow.HostUts(), allow.SystemCalls()]
    with pytest.raises(PolicyError, match=r"allow\."):
        Sandbox(**wide, allow=every)


def test_a_primitive_that_widens_needs_the_token_of_its_short_name():
    with pytest.raises(PolicyError, match=r"allow\.Capabilities"):
        Sandbox(CapabilitySet("NET_RAW"))
    assert Sandbox(Network.host()).policy.get(Network).kind != "host"  # narrowed by the default
    with pytest.raises(PolicyError, match=r"allow\.OtherNamespaces"):
        Sandbox(Namespace(joins=(("net", "path:/proc/1/ns/net"),)))


def test_two_roots_are_a_conflict():
    with pytest.raises(PolicyError, match="two roots"):
        Sandbox(Chroot("/srv"), root="/usr")
    with pytest.raises(PolicyConflict, match="two roots"):
        Sandbox(Chroot("/srv"), Chroot("/usr"))


def test_a_limit_that_is_given_in_both_ways_narrows():
    assert Sandbox(CgroupLimit(pids=9), pids=5).policy.get(CgroupLimit).pids == 5
    assert Sandbox(CgroupLimit(pids=4), pids=5).policy.get(CgroupLimit).pids == 4
    assert Sandbox(Rlimit(nofile=9), rlimits={"nofile": 7}).policy.get(Rlimit).nofile == (7, 7)


# ---- nesting is never wider ----------------------------------------------------------------


def test_a_sandbox_inside_a_block_is_as_narrow_as_the_block():
    with CgroupLimit(pids=7, memory="32M"), Rlimit(nofile=11):
        limit = Sandbox(mem="64M").in_force.get(CgroupLimit)
        assert (limit.pids, limit.memory) == (7, 32 << 20)
        assert Sandbox(rlimits={"nofile": 50}).in_force.get(Rlimit).nofile == (11, 11)
        assert Sandbox(pids=3).in_force.get(CgroupLimit).pids == 3


def test_the_block_s_end_is_the_end_of_that():
    sandbox = Sandbox()
    with CgroupLimit(pids=7):
        assert sandbox.in_force != sandbox.policy
    assert sandbox.in_force is sandbox.policy
    assert collected() == ()


def test_what_may_be_weaker_stays_said_inside_a_block():
    with CgroupLimit(pids=7):
        assert Sandbox(weaken={"memory"}).in_force.weaken == {"memory"}


def test_a_block_can_t_widen_a_sandbox():
    with Namespace(), Identity(no_new_privs=False), Network.host():
        policy = Sandbox().in_force
        assert policy.get(Namespace).net
        assert policy.get(Identity).no_new_privs
        assert policy.get(Network) == Network.loopback()


def test_two_roots_by_nesting_are_a_conflict_as_well():
    with Chroot("/srv"), pytest.raises(PolicyConflict, match="two roots"):
        Sandbox().in_force.get(Chroot)
    assert collected() == ()
