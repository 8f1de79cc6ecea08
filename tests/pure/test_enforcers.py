# SPDX-License-Identifier: Apache-2.0
"""One policy, three enforcers: mounts, Landlock and AppArmor, asked about random paths.

What the policy means is told here from its own fields (`means`); each enforcer's model is made of
what it is really given: the plan's ops, the ruleset's rules, the profile's text.
"""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import AppArmorProfile, Mount, Sandbox
from isolate.abi import landlock as abi
from isolate.abi.ops import OpCode
from isolate.plan.access import DIRECTORY, FILE, LINK, Node, Who, answer, find
from isolate.plan.compile import apparmor_lines, compile_box
from isolate.plan.layers import apparmor_allows, later_layers, rights_of
from isolate.plan.view import grants_of, view_of
from isolate.policy.fields import inside
from tests import hosts

HOST = hosts.ROOT_V1
EXAMPLES = int(os.environ.get("ISOLATE_ENFORCER_EXAMPLES", "60"))
GRANTED = ["/data", "/data/in", "/data/in/deep", "/data/out", "/srv/x", "/tmp/sub", "/tmp/sub/w",
           "/opt", "/usr/local/w", "/dev/shm/r"]  # fmt: skip
SUBSETS = st.lists(st.sampled_from(GRANTED), max_size=4, unique=True)
TAILS = st.lists(st.sampled_from(["a", "in", "deep", "b c"]), max_size=2).map("/".join)
PLACES = st.sampled_from([*GRANTED, "/", "/usr", "/usr/bin", "/etc", "/tmp", "/dev", "/dev/null",
                          "/dev/shm", "/proc/sys", "/proc/sys/kernel", "/proc/kcore", "/proc",
                          "/home", "/srv/venv", "/run", "/made", "/other"])  # fmt: skip
PATHS = st.builds(lambda place, tail: f"{place}/{tail}".replace("//", "/").rstrip("/") or "/",
                  PLACES, TAILS)  # fmt: skip
MADE = Mount.file("/made", b"#!/bin/sh\n", 0o755)
# The default view, by what the documentation says of it: (writable, programs may be started).
FIXED = {
    "/": (False, False), "/usr": (False, True), "/srv/venv": (False, True), "/tmp": (True, True),
    "/dev": (False, False), "/dev/shm": (True, True), "/proc": (True, False),
    "/proc/sys": (False, False), "/proc/kcore": (False, False), "/dev/null": (True, False),
    "/made": (False, True),
}  # fmt: skip


def means(read, write, path):
    """(writable, startable) as the policy says: the innermost of what holds a path decides."""
    places = {**FIXED, **dict.fromkeys(read, (False, True)), **dict.fromkeys(write, (True, True))}
    return places[max((place for place in places if inside(path, place)), key=len)]


def boxed(read, write):
    policy = Sandbox(MADE, read=[p for p in read if p not in write], write=write).policy
    plan = compile_box(policy, HOST)
    return policy, plan, view_of((*plan.template, *plan.setup), plan.steps)


def rules_of(plan):
    """The view's Landlock rules, from the ops themselves."""
    return [
        (op.strs[0].decode(), op.nums[0]) for op in plan.setup if op.code is OpCode.LANDLOCK_PATH
    ]


def landlock_grants(plan, names, path):
    """The kernel's walk: every right has to be granted by some rule above."""
    got = 0
    for where, mask in rules_of(plan):
        got |= mask if inside(path, where) else 0
    return all(got & abi.FS[name][0] for name in names)


def excepted(paths, path):
    return any(inside(path, each) for each in paths)


@settings(max_examples=EXAMPLES, deadline=None)
@given(SUBSETS, SUBSETS, st.lists(PATHS, min_size=10, max_size=30))
def test_none_allows_what_the_policy_denies(read, write, paths):
    policy, plan, view = boxed(read, write)
    read = [path for path in read if path not in write]
    grants = grants_of(view)
    lines = [line.text for line in apparmor_lines(policy, HOST)]
    for path in paths:
        writable, startable = means(read, write, path)
        mount = view.mount_of(path)
        assert mount.writable == writable or path == "/made"
        if not writable:
            held = landlock_grants(plan, rights_of("write", False), path)
            # Landlock can't take back what it grants above: such places are told, and the
            # mounts hold them.
            assert not held or excepted(grants.unwritable, path)
            if apparmor_allows(lines, "w", path):
                assert nested_below(grants.unwritable, path, [p.path for p in grants.write])
        if not startable:
            held = landlock_grants(plan, ("execute",), path)
            assert not held or excepted(grants.unstartable, path)
            if apparmor_allows(lines, "x", path):
                assert nested_below(grants.unstartable, path, [p.path for p in grants.execute])


def nested_below(taken, path, granted):
    """Refused, but with a granted place below it, so that a deny rule would take too much."""
    around = [each for each in taken if inside(path, each)]
    return any(inside(g, each) for each in around for g in granted)


@settings(max_examples=40, deadline=None)
@given(SUBSETS, SUBSETS, st.lists(PATHS, min_size=10, max_size=30))
def test_each_allows_what_the_policy_allows(read, write, paths):
    """The second and the third lock break nothing."""
    policy, plan, view = boxed(read, write)
    read = [path for path in read if path not in write]
    lines = [line.text for line in apparmor_lines(policy, HOST)]
    for path in paths:
        writable, startable = means(read, write, path)
        assert landlock_grants(plan, ("read_file", "read_dir"), path)
        assert apparmor_allows(lines, "r", path)
        if writable and not inside(path, "/proc"):
            assert landlock_grants(plan, abi.WRITE, path)
            assert apparmor_allows(lines, "w", path)
        if startable:
            assert landlock_grants(plan, ("execute",), path)
            assert apparmor_allows(lines, "x", path)


def test_a_nested_place_is_told_and_held_by_mounts():
    _, plan, view = boxed(["/data/in"], ["/data"])
    grants = grants_of(view)
    assert "/data/in" in grants.unwritable
    [held] = [g for g in plan.guarantees if g.name == "landlock"]
    assert "mounts alone keep from writing: /data/in" in held.by
    assert not view.mount_of("/data/in/x").writable


def test_a_place_below_a_link_of_the_view_is_where_the_link_leads():
    """/var/tmp is a link to /tmp inside: a read-only place there is one below a writable one."""
    policy, plan, view = boxed(["/var/tmp/given"], [])
    assert view.mount_of("/tmp/given/x").source == "/var/tmp/given"
    assert "/tmp/given" in grants_of(view).unwritable
    [held] = [g for g in plan.guarantees if g.name == "landlock"]
    assert "mounts alone keep from writing: /tmp/given" in held.by
    lines = [line.text for line in apparmor_lines(policy, HOST)]
    assert not apparmor_allows(lines, "w", "/tmp/given/x")
    assert apparmor_allows(lines, "w", "/tmp/x")
    machine = {"/var/tmp/given": Node(kind=FILE)}
    assert find("/var/tmp/given", view, machine.get).path == "/tmp/given"


def test_apparmor_takes_back_what_landlock_can_t():
    policy, _, _ = boxed(["/data/in"], ["/data"])
    lines = [line.text for line in apparmor_lines(policy, HOST)]
    assert apparmor_allows(lines, "w", "/data/x")
    assert not apparmor_allows(lines, "w", "/data/in/x")


def test_rules_of_another_form_are_not_guessed_at():
    assert apparmor_allows(['"/usr/*.so" r,'], "r", "/usr/a.so") is None
    assert apparmor_allows(["file,"], "w", "/x") is True
    assert apparmor_allows(["network,", "capability chown,"], "w", "/x") is False
    odd = AppArmorProfile.generate("x", read=["/a*{b,c}\\"]).rules
    assert apparmor_allows([text for text, _ in odd], "r", "/a*{b,c}\\/below") is True
    assert apparmor_allows([text for text, _ in odd], "r", "/axb") is False


# -- the walk of a path, on a made-up machine

TREE = {
    "/": Node(kind=DIRECTORY),
    "/usr": Node(kind=DIRECTORY),
    "/usr/bin": Node(kind=DIRECTORY),
    "/usr/bin/tool": Node(kind=FILE, mode=0o755),
    "/usr/bin/abs": Node(kind=LINK, text="/bin/tool"),
    "/usr/bin/rel": Node(kind=LINK, text="../bin/tool"),
    "/usr/bin/loop": Node(kind=LINK, text="loop"),
    "/usr/bin/out": Node(kind=LINK, text="/etc/shadow"),
    "/usr/bin/up": Node(kind=LINK, text="../../../../usr/bin/tool"),
    "/data": Node(kind=DIRECTORY, mode=0o700),
    "/data/mine": Node(kind=FILE, mode=0o600),
    "/data/theirs": Node(kind=FILE, mode=0o600, uid=7),
    "/etc/shadow": Node(kind=FILE, mode=0o600),
}


def asked(operation, path, read=(), write=("/data",), who=None):
    policy, plan, view = boxed(list(read), list(write))
    who = who or Who(owned_uid=0, owned_gid=0)
    later = later_layers(policy, HOST, plan, view, TREE.get)
    return answer(operation, path, view, TREE.get, who, later)


def test_links_are_followed_inside_the_view():
    _, _, view = boxed([], [])
    for name in ("abs", "rel", "up", "tool"):
        assert find(f"/bin/{name}", view, TREE.get).path == "/usr/bin/tool"
    assert find("/bin/loop", view, TREE.get).why == "/bin/loop goes round in links"
    assert find("/bin/out", view, TREE.get).node is None  # the box has no /etc/shadow
    assert find("/usr/bin/tool/x", view, TREE.get).why == "/usr/bin/tool is no directory"
    assert find("/no/such", view, TREE.get).why == "/no is not there"


def test_the_caller_s_files_are_the_program_s_and_others_are_not():
    assert asked("read", "/data/mine").allowed
    assert asked("write", "/data/mine").allowed
    assert asked("create", "/data/new").allowed
    assert not asked("read", "/data/theirs")
    assert not asked("execute", "/data/mine")
    assert not asked("write", "/usr/bin/tool")
    assert asked("execute", "/bin/rel").allowed
    assert not asked("create", "/data/mine")
    assert not asked("create", "/data/no/new")
    assert not asked("write", "/data")


def test_a_directory_that_may_not_be_passed_closes_what_is_below():
    stranger = Who(uid=5, owned_uid=5)
    refusal = asked("read", "/data/mine", who=stranger)
    assert [said.layer for said in refusal.layers if said.allowed is False] == ["files"]
    assert "/data may not be passed: mode 700" in str(refusal)
    everything = Who(everything=True)
    assert asked("read", "/data/theirs", who=everything).allowed
    assert not asked("execute", "/data/theirs", who=everything)
