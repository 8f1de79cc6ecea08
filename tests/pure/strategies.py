"""Made-up primitives of every kind, and what each permits, told without the code under test.

`PERMITS[kind](value)` is a dict of comparable parts: numbers (more is wider), frozensets (a larger
one is wider), and `Tree`s of paths. `wider` compares two of them.
"""

import math

from attrs import fields, frozen
from hypothesis import strategies as st

from isolate import (
    INFINITY,
    AppArmorProfile,
    Arg,
    CapabilitySet,
    CgroupLimit,
    Chroot,
    Errno,
    IdMap,
    Landlock,
    Mount,
    Namespace,
    Network,
    Policy,
    Rlimit,
    Rule,
    SeccompFilter,
)
from isolate.abi.caps import CAPABILITIES
from isolate.abi.flags import NAMESPACES, RLIMITS
from isolate.policy.deadline import Deadline
from isolate.policy.identity import Identity
from isolate.policy.rules import STRICTNESS, Action

SIZES = st.none() | st.integers(4096, 1 << 44)
FEW = st.none() | st.integers(1, 9)
PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda p: "/" + "/".join(p))
PATH_SETS = st.frozensets(PATHS, max_size=4)
CPUS = st.none() | st.frozensets(st.integers(0, 4), min_size=1).map(
    lambda each: ",".join(map(str, sorted(each)))
)
CAPS = st.frozensets(st.sampled_from(sorted(CAPABILITIES)[:6]))
MAPS = st.just(()) | st.just((IdMap(0, 5),)) | st.just((IdMap(1, None, 2),))


@st.composite
def namespaces(draw):
    kinds = {kind: draw(st.booleans()) for kind in NAMESPACES}
    name = draw(st.none() | st.sampled_from(["a", "b"])) if kinds["uts"] else None
    maps = {each: draw(MAPS) if kinds["user"] else () for each in ("uid_map", "gid_map")}
    offset = draw(st.none() | st.sampled_from([1.0, 2.5])) if kinds["time"] else None
    free = [kind for kind in NAMESPACES if not kinds[kind]]
    joined = draw(st.frozensets(st.sampled_from(free), max_size=2)) if free else ()
    joins = tuple((kind, "path:/pin/1") for kind in NAMESPACES if kind in joined)
    return Namespace(**kinds, hostname=name, **maps, boottime_offset=offset, joins=joins)


@st.composite
def capability_sets(draw):
    permitted, inheritable = draw(CAPS), draw(CAPS)
    return CapabilitySet(
        permitted=permitted,
        inheritable=inheritable,
        bounding=draw(CAPS),
        effective=permitted & draw(CAPS),
        ambient=permitted & inheritable & draw(CAPS),
    )


LIMITS = st.integers(0, 99) | st.just(INFINITY)
PAIRS = st.none() | st.tuples(LIMITS, LIMITS).map(lambda pair: (min(pair), max(pair)))
CONDITIONS = st.builds(lambda i, n: Arg(i) >= n, st.integers(0, 1), st.integers(0, 3))
RULES = st.builds(
    Rule,
    st.sampled_from(["read", "socket", "ioctl", "mkdir"]),
    st.sampled_from([Errno("EPERM"), Errno("EROFS"), Action("allow"), Action("kill_process")]),
    st.lists(CONDITIONS, max_size=1).map(tuple),
)
PORTS = st.none() | st.frozensets(st.integers(1, 5), max_size=3)
RULED = st.none() | PATH_SETS
STRATEGIES = {
    Namespace: namespaces(),
    Chroot: st.builds(
        lambda read, write, tmp, python, mounts: Chroot.host_view(
            read=read, write=write, tmp=tmp, interpreter=python, mounts=mounts
        ),
        PATH_SETS,
        PATH_SETS,
        st.integers(4096, 1 << 30),
        st.booleans(),
        st.just(()) | st.just((Mount.tmpfs("/t"),)),
    )
    | st.sampled_from([Chroot("/x"), Chroot("/x", writable=True)]),
    Mount: st.sampled_from(
        [
            Mount.bind("/a", "/m"),
            Mount.bind("/a", "/m", writable=True),
            Mount.tmpfs("/m", size="1M"),
            Mount.file("/m", b"\0\xff"),
            Mount.proc("/m"),
        ]
    ),
    CgroupLimit: st.builds(
        CgroupLimit,
        memory=SIZES,
        memory_high=SIZES,
        swap=st.none() | st.integers(0, 1 << 30),
        pids=FEW,
        cpu=st.none() | st.floats(0.01, 64),
        cpu_weight=FEW,
        cpuset=CPUS,
        mems=CPUS,
    ),
    CapabilitySet: capability_sets(),
    Rlimit: st.fixed_dictionaries(
        {}, optional=dict.fromkeys(RLIMITS, PAIRS)
    ).map(lambda values: Rlimit(**values)),
    Network: st.sampled_from([Network.none(), Network.loopback(), Network.host()]),
    Identity: st.builds(
        Identity,
        uid=st.integers(1, 2),
        no_new_privs=st.booleans(),
        new_keyring=st.booleans(),
        umask=st.integers(0, 0o777),
    ),
    Deadline: st.builds(
        Deadline,
        wall=st.none() | st.floats(0, 99),
        cpu_time=st.none() | st.floats(0, 99),
        output=st.none() | st.integers(0, 99),
        files_size=st.none() | st.integers(0, 99),
    ),
    SeccompFilter: st.lists(RULES, min_size=1, max_size=3).map(
        lambda rules: SeccompFilter.deny(*rules)
    ),
    Landlock: st.builds(
        Landlock,
        read=RULED,
        write=RULED,
        execute=RULED,
        tcp_bind=PORTS,
        tcp_connect=PORTS,
        scope=st.frozensets(st.sampled_from(["signal", "abstract_unix_socket"])),
        view=st.booleans(),
    ),
    AppArmorProfile: st.builds(
        AppArmorProfile,
        st.sampled_from(["docker-default", "other"]),
        stack=st.none() | st.booleans(),
    ),
}
# At most one of a kind, and mounts at places of their own.
POLICIES = st.builds(
    lambda kinds, weaken: Policy(*kinds.values(), weaken=weaken),
    st.fixed_dictionaries({}, optional={kind.__name__: each for kind, each in STRATEGIES.items()}),
    st.frozensets(st.sampled_from(["memory", "pids", "proc"])),
)


@frozen
class Tree:
    """Everything at and below some paths; None is everything there is."""

    paths: frozenset | None

    def holds(self, path):
        if self.paths is None:
            return True
        parts = path.split("/")
        return any("/".join(parts[: n + 1]) in self.paths for n in range(1, len(parts)))


def ceiling(value):
    return math.inf if value is None else value


def of_namespace(each):
    return {
        "shared": frozenset(kind for kind in NAMESPACES if kind not in each.kinds),
    }


def of_chroot(each):
    if each.kind == "dir":
        return {"path": frozenset([each.path]), "writable": int(each.writable)}
    return {
        "read": Tree(frozenset(each.read + each.write)),
        "write": Tree(frozenset(each.write)),
        "tmp": each.tmp,
        "interpreter": int(each.interpreter),
    }


def of_cgroup(each):
    found = {
        name: ceiling(getattr(each, name))
        for name in ("memory", "memory_high", "pids", "cpu", "cpu_weight")
    }
    # "None is none, if memory is set"
    none = each.swap is None and each.memory is not None
    found["swap"] = 0 if none else ceiling(each.swap)
    for name in ("cpuset", "mems"):
        value = getattr(each, name)
        found[name] = frozenset(value.split(",") if value else map(str, range(5)))
    return found


def of_rlimit(each):
    found = {}
    for one in fields(Rlimit):
        soft, hard = getattr(each, one.name) or (math.inf, math.inf)
        found |= {f"{one.name} soft": soft, f"{one.name} hard": hard}
    return found


def of_filter(each):
    return {
        f"{call}{args}": STRICTNESS.index(each.evaluate(call, *args, arch="x86_64").action.name)
        for call in ("read", "socket", "ioctl", "mkdir", "getpid")
        for args in ((0, 0), (1, 0), (3, 3))
    }


def of_landlock(each):
    found = {
        name: Tree(None if getattr(each, name) is None else frozenset(getattr(each, name)))
        for name in ("read", "write", "execute")
    }
    for name in ("tcp_bind", "tcp_connect"):
        value = getattr(each, name)
        found[name] = frozenset(range(1, 6) if value is None else value)
    found["beyond"] = frozenset(["signal", "abstract_unix_socket"]) - set(each.scope)
    return found | {"unruled view": int(not each.view)}


PERMITS = {
    Namespace: of_namespace,
    Chroot: of_chroot,
    Mount: lambda each: {"it": frozenset([each])},
    CgroupLimit: of_cgroup,
    CapabilitySet: lambda each: {
        one.name: getattr(each, one.name) for one in fields(CapabilitySet)
    },
    Rlimit: of_rlimit,
    Network: lambda each: {"kind": ["none", "loopback", "host"].index(each.kind)},
    Identity: lambda each: {
        "privileges": int(not each.no_new_privs),
        "keyring": int(not each.new_keyring),
        "bits": frozenset(n for n in range(9) if not each.umask >> n & 1),
    },
    Deadline: lambda each: {one.name: ceiling(getattr(each, one.name)) for one in fields(Deadline)},
    SeccompFilter: of_filter,
    Landlock: of_landlock,
    # Only stack=False leaves the profile of a confined caller.
    AppArmorProfile: lambda each: {
        "name": frozenset([each.name]),
        "leaves": int(each.stack is False),
    },
}
EVERY_PATH = ["/" + "/".join(p) for p in (("a",), ("b",), ("c",), ("a", "a"), ("a", "b"),
              ("b", "a"), ("b", "c"), ("a", "b", "c"), ("c", "c", "c"), ("d",))]  # fmt: skip


def part_wider(a, b):
    if isinstance(a, Tree):
        return any(a.holds(path) and not b.holds(path) for path in EVERY_PATH)
    return bool(a - b) if isinstance(a, frozenset) else a > b


def wider(a, b):
    """In which parts `a` permits what `b` doesn't; empty if in none."""
    ours, theirs = PERMITS[type(a)](a), PERMITS[type(b)](b)
    assert ours.keys() == theirs.keys()
    return [part for part in ours if part_wider(ours[part], theirs[part])]
