"""Policy files: what goes out comes in, and every mistake is told with its key."""

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import (
    INFINITY,
    Arg,
    CapabilitySet,
    CgroupLimit,
    Chroot,
    Errno,
    IdMap,
    Mount,
    Namespace,
    Network,
    Policy,
    PolicyError,
    Rlimit,
    Rule,
    Sandbox,
    SeccompFilter,
)
from isolate.abi.caps import CAPABILITIES
from isolate.policy.deadline import Deadline
from isolate.policy.identity import Identity

SIZES = st.integers(4096, 1 << 50)
NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1)
PATHS = st.lists(NAMES.filter(lambda n: n not in (".", "..")), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
LIMITS = st.integers(0, 1 << 40) | st.just(INFINITY)
MOUNTS = st.one_of(
    st.builds(Mount.bind, PATHS, PATHS, st.booleans()),
    st.builds(Mount.tmpfs, PATHS, SIZES),
    st.builds(Mount.proc, PATHS),
    st.builds(Mount.file, PATHS, st.binary(max_size=40)),
    st.builds(Mount.symlink, NAMES, PATHS),
)
CAPS = st.frozensets(st.sampled_from(sorted(CAPABILITIES)))
NAMESPACES = st.builds(
    Namespace,
    user=st.just(True),
    uts=st.just(True),
    pid=st.booleans(),
    net=st.booleans(),
    hostname=st.none() | st.text("abc-", min_size=1, max_size=20),
    uid_map=st.lists(
        st.builds(IdMap, st.integers(0, 9), st.none() | st.integers(0, 9)), max_size=2
    ),
)
CGROUPS = st.builds(
    CgroupLimit,
    memory=st.none() | SIZES,
    pids=st.none() | st.integers(1, 9999),
    cpu=st.none() | st.floats(0.01, 64, allow_nan=False),
    cpuset=st.none() | st.just("0-3,5"),
)
RLIMITS = st.builds(
    Rlimit,
    nofile=st.none() | LIMITS,
    as_=st.none() | st.tuples(LIMITS, LIMITS).map(lambda pair: (min(pair), max(pair))),
)
RULES = st.builds(
    Rule,
    st.sampled_from(["read", "socket", "ioctl"]),
    st.sampled_from([Errno("EPERM"), Errno(38)]),
    st.lists(st.integers(0, (1 << 64) - 1).map(lambda n: Arg(1, width=32) >= n), max_size=2).map(
        tuple
    ),
)
FILTERS = st.one_of(
    st.just(SeccompFilter.default()),
    st.lists(RULES, max_size=3).map(lambda rules: SeccompFilter.deny(*rules)),
)
DEADLINES = st.builds(
    Deadline, wall=st.none() | st.floats(0, 1e6), output=st.none() | st.integers(0, 1 << 40)
)
POLICIES = st.builds(
    lambda items, mounts, weaken: Policy(
        *items, *{m.target: m for m in mounts}.values(), weaken=weaken
    ),
    st.tuples(
        NAMESPACES,
        CGROUPS,
        RLIMITS,
        FILTERS,
        DEADLINES,
        st.builds(lambda bound: CapabilitySet(*bound), CAPS),
        st.sampled_from([Network.none(), Network.loopback(), Network.host()]),
        st.builds(Identity, uid=st.integers(1, 60000), umask=st.integers(0, 0o777)),
        st.builds(
            lambda read, mounts: Chroot.host_view(read=read, mounts=mounts),
            st.lists(PATHS, max_size=2),
            st.lists(MOUNTS, max_size=2),
        ),
    ),
    st.lists(MOUNTS, max_size=3),
    st.frozensets(st.sampled_from(["memory", "cpu", "pids"])),
)


@settings(max_examples=60, deadline=None)
@given(POLICIES, st.sampled_from(["toml", "json"]))
def test_a_policy_goes_through_a_file(policy, format):
    text = policy.dumps(format)
    again = Policy.loads(text, format)
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.dumps(format) == text
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_the_policy_of_a_sandbox_goes_through_a_file(tmp_path):
    policy = Sandbox(mem="64M", timeout=5, files={"in.txt": b"\x00\xff"}).policy
    for ending in ("toml", "json"):
        path = tmp_path / f"policy.{ending}"
        path.write_text(policy.dumps(ending))
        assert Policy.load(path) == policy
    assert 'layers = [{name = "default"}]' in policy.dumps()


def test_a_file_reads_as_a_person_writes_it():
    text = """
version = 1
weaken = ["memory"]

[namespace]
user = true
net = true

[cgroup]
memory = "64M"
cpu = 1

[deadline]
wall = "500ms"

[rlimit]
nofile = [64, 128]
core = "infinity"

[capabilities]
permitted = ["NET_BIND_SERVICE"]
effective = ["CAP_NET_BIND_SERVICE"]

[seccomp]
layers = [{ name = "default" }]

[[mount]]
kind = "tmpfs"
target = "/scratch"
size = "1M"
"""
    policy = Policy.loads(text)
    assert policy.get(CgroupLimit) == CgroupLimit(memory=64 << 20, cpu=1)
    assert policy.get(Deadline).wall == 0.5
    assert policy.get(Rlimit).nofile == (64, 128)
    assert policy.get(Rlimit).core == (INFINITY, INFINITY)
    assert policy.get(CapabilitySet).ambient == frozenset()
    assert policy.get(SeccompFilter) == SeccompFilter.default()
    assert policy.mounts[0].size == 1 << 20
    assert policy.weaken == {"memory"}


FIVE = """
version = 1
[cgroup]
memory = "64 apples"
pidz = 5
[namespace]
user = "yes"
[rlimit]
nofile = [128, 64]
[netwrok]
kind = "none"
"""


def test_five_mistakes_are_five_sentences_with_their_keys(tmp_path):
    with pytest.raises(PolicyError) as caught:
        Policy.loads(FIVE)
    problems = caught.value.problems
    assert [each.split(":")[0] for each in problems] == [
        "cgroup.memory",
        "cgroup.pidz",
        "namespace.user",
        "rlimit.nofile",
        "netwrok",
    ]
    assert "did you mean pids?" in problems[1]
    assert "did you mean network?" in problems[4]
    assert str(caught.value).startswith("5 mistakes:")
    path = tmp_path / "mine.toml"
    path.write_text(FIVE)
    with pytest.raises(PolicyError, match="mine.toml: cgroup.memory"):
        Policy.load(path)


@pytest.mark.parametrize(
    ("document", "about"),
    [
        ([], "table"),
        ({}, "version"),
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"version": 1, "weaken": "memory"}, "weaken"),
        ({"version": 1, "namespace": 5}, "namespace"),
        ({"version": 1, "mount": {"kind": "proc"}}, "mount"),
        ({"version": 1, "mount": [{"kind": "proc"}]}, r"mount\[0\]"),
        ({"version": 1, "mount": [{"kind": "file", "target": "/x", "data": 5}]}, "data"),
        (
            {"version": 1, "mount": [{"kind": "file", "target": "/x", "data": {"base64": "?"}}]},
            "base64",
        ),
        ({"version": 1, "namespace": {"uid_map": [{"inside": -1}]}}, r"uid_map\[0\].inside"),
        ({"version": 1, "namespace": {"hostname": "x"}}, "uts"),
        ({"version": 1, "namespace": {"joins": [["net"]]}}, "joins"),
        ({"version": 1, "capabilities": {"permitted": ["FLY"]}}, "FLY"),
        ({"version": 1, "capabilities": {"permitted": 5}}, "capabilities.permitted"),
        ({"version": 1, "seccomp": {"layers": [{"default": "maybe", "rules": []}]}}, "default"),
        ({"version": 1, "seccomp": {"layers": [{"default": "errno(EX)", "rules": []}]}}, "EX"),
        (
            {
                "version": 1,
                "seccomp": {"layers": [{"default": "allow", "rules": [{"action": "log"}]}]},
            },
            "syscall",
        ),
        ({"version": 1, "deadline": {"wall": float("nan")}}, "deadline.wall"),
        ({"version": 1, "cgroup": {"memory": None}}, ""),
        (
            {"version": 1, "chroot": {"path": None, "read": [5], "kind": "host_view"}},
            "read",
        ),
    ],
)
def test_what_is_no_policy_is_refused_with_its_key(document, about):
    if document == {"version": 1, "cgroup": {"memory": None}}:
        assert Policy.loads(json.dumps(document), "json") == Policy(CgroupLimit())
        return
    with pytest.raises(PolicyError, match=about):
        Policy.loads(json.dumps(document), "json")


@pytest.mark.parametrize(
    "text", ["", "{", "[[", "version = ", '{"version": 1, "version": 1}', "[" * 99999]
)
def test_what_is_no_document_is_refused(text):
    for format in ("toml", "json"):
        with pytest.raises(PolicyError):
            Policy.loads(text, format)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "target", "layers", "rules", "user", "x"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["namespace", "mount", "seccomp", "rlimit", "chroot"]), JUNK)
)
def test_junk_is_a_policy_or_a_policy_error(tables):
    from isolate.policy.codec import from_dict

    try:
        found = from_dict({"version": 1, **tables})
    except PolicyError:
        return
    assert isinstance(found, Policy)


def test_a_file_that_is_too_large_or_unknown_is_refused(tmp_path):
    path = tmp_path / "large.json"
    path.write_text(" " * (1 << 21))
    with pytest.raises(PolicyError, match="more than"):
        Policy.load(path)
    (tmp_path / "policy.yaml").write_text("version: 1")
    with pytest.raises(PolicyError, match="yaml"):
        Policy.load(tmp_path / "policy.yaml")
    (tmp_path / "latin.toml").write_bytes(b"version = 1 # \xff")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy.load(tmp_path / "latin.toml")
    with pytest.raises(PolicyError, match="toml or json"):
        Policy().dumps("xml")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy(Mount.symlink("\udcff", "/x")).dumps()


@pytest.mark.parametrize(
    "item",
    [
        Chroot.overlay(["/b", "/a"], size="8M"),
        Chroot.overlay("/a", upper="/u", mounts=()),
        Chroot.image("/x.tar.gz", writable=True),
        Chroot.image("/x.img", format="ext4"),
        Mount.overlay(["/b", "/a"], "/w"),
        Mount.overlay("/a", "/w", upper="/u"),
    ],
)
@pytest.mark.parametrize("format", ["toml", "json"])
def test_roots_that_are_put_together_round_trip(item, format):
    policy = Policy(item)
    assert Policy.loads(policy.dumps(format), format) == policy


def test_layers_keep_their_order_in_a_file():
    policy = Policy.loads('version = 1\n[chroot]\nkind = "overlay"\nlower = ["/b", "/a"]\n')
    assert policy.get(Chroot).lower == ("/b", "/a")


def test_a_file_with_half_a_root_says_what_lacks():
    for text, words in [
        ('kind = "overlay"', "lower"),
        ('kind = "image"\npath = "/x"', "format"),
        ('kind = "overlay"\nlower = 3', "lower"),
    ]:
        with pytest.raises(PolicyError, match=words):
            Policy.loads(f"version = 1\n[chroot]\n{text}\n")
