# SPDX-License-Identifier: Apache-2.0
"""AppArmor profiles as values and as text; apparmor_parser is the judge of the text."""

import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isolate import (
    AppArmorProfile,
    HostLacks,
    Mount,
    Network,
    Policy,
    PolicyConflict,
    PolicyError,
    Sandbox,
)
from isolate.abi.ops import OpCode
from isolate.plan.compile import apparmor_lines, compile_box, compile_plan
from isolate.policy.apparmor_text import file_rule, render
from isolate.policy.command import Command
from isolate.supervise import apparmor, confined
from tests import hosts

TRUE = Command(["true"])
GOLDEN = Path(__file__).parent / "golden"
SBIN = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
WITH = evolve(hosts.ROOT_V1, apparmor="", apparmor_label="unconfined")
COUNT = int(os.environ.get("ISOLATE_APPARMOR_POLICIES", "60"))
# What paths are made of, the language's own characters first.
PIECES = st.text(st.sampled_from(list("abz \\*?[]{}^@,#:;()<>=&|!~-'$%éÿ")), max_size=8)
HOSTILE = st.lists(PIECES.filter(lambda p: "/" not in p and p not in (".", "..")), min_size=1,
                   max_size=3).map(lambda parts: "/" + "/".join(parts))  # fmt: skip


def parsed(text, *options):
    """(status, stdout, stderr) of the parser, without a kernel."""
    parser = shutil.which("apparmor_parser", path=SBIN)
    done = subprocess.run(
        [parser, "-Q", "-K", *options], input=text.encode(), capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def batches(texts, size=40):
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def sample():
    return AppArmorProfile.generate(
        "isolate-golden",
        read=["/usr", "/srv/a b"],
        write="/srv/out",
        execute=["/usr/bin", "/odd\\"],
        network=["unix", "inet stream"],
        capabilities=["NET_BIND_SERVICE"],
        extra_rules=['mount fstype=tmpfs -> "/mnt/**",', "deny /srv/out/*.exe x,"],
    )


def golden(name, text):
    path = GOLDEN / name
    assert text == path.read_text(), f"if that is meant: write it to {path}"


def test_the_text_is_as_recorded():
    golden("apparmor-generated.txt", sample().text())
    golden("apparmor-docker.txt", AppArmorProfile.docker_default().text())
    lines = [(each.text, each.field) for each in apparmor_lines(POLICY, WITH)]
    golden("apparmor-policy.txt", AppArmorProfile("isolate-policy", rules=lines).text())


POLICY = Sandbox(read=["/data"], write=["/data/out"], network=Network.none()).policy


@pytest.mark.needs("apparmor_parser")
def test_the_parser_takes_every_recorded_text():
    for name in ("generated", "docker", "policy"):
        status, _, told = parsed((GOLDEN / f"apparmor-{name}.txt").read_text())
        assert status == 0, told


PROFILES = st.builds(
    AppArmorProfile.generate,
    st.just("x"),
    read=st.lists(HOSTILE, max_size=3),
    write=st.lists(HOSTILE, max_size=3),
    execute=st.lists(HOSTILE, max_size=3),
    network=st.lists(st.sampled_from(["unix", "inet", "inet6 dgram", "all"])),
    capabilities=st.lists(st.sampled_from(["CHOWN", "SYS_ADMIN", "NET_RAW"])),
    complain=st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(HOSTILE, st.sampled_from(['"', "\n", "\r", "\0", "\t", "\x1b", "\x7f", "\udc80"]))
def test_what_the_language_can_t_say_is_refused_not_mangled(path, char):
    with pytest.raises(PolicyError, match=r"control character|quote|UTF-8|NUL"):
        AppArmorProfile.generate("x", write=[path + char + "a"])


def joined(batch):
    """Several profiles as one text: `abi` is for all of them."""
    first, *rest = (profile.text() for profile in batch)
    return first + "".join(text.split("\n", 1)[1] for text in rest)


@pytest.mark.needs("apparmor_parser")
def test_no_value_can_add_a_rule():
    """Every generated policy is taken, as one profile, with as many file rules as paths."""
    made = []

    @settings(max_examples=COUNT, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(PROFILES)
    def collect(profile):
        made.append(evolve(profile, name=f"p{len(made)}"))

    collect()
    distinct = list({profile.rules: profile for profile in made}.values())
    assert len(distinct) > COUNT // 2
    for batch in batches(distinct):
        text = joined(batch)
        status, names, told = parsed(text, "-N")
        assert status == 0, told
        assert sorted(names.split()) == sorted(profile.name for profile in batch)
        _, dump, _ = parsed(text, "-d")
        shown = [part.count("\nMode:\t") for part in dump.split("Name:\t\t")[1:]]
        # One entry a path: read, write and execute of the same path are one.
        said = [len({re.search('"(.*)"', t)[1] for t, f in p.rules if "file" in t}) for p in batch]
        assert sorted(shown) == sorted(said)


def random_policies(count):
    found = []

    @settings(max_examples=count, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(
        st.lists(st.sampled_from(["/data", "/srv/x", "/srv/x/y", "/a b", "/t*["]), max_size=3),
        st.lists(st.sampled_from(["/out", "/srv/x/z", "/data/w", "/tmp/w"]), max_size=2),
        st.lists(st.sampled_from([Mount.tmpfs("/scratch"), Mount.file("/f", b"#!", 0o755)]),
                 max_size=2, unique=True),
        st.sampled_from([None, Network.none(), Network.loopback()]),
        st.sampled_from(list(hosts.ALL.values())),
    )  # fmt: skip
    def collect(read, write, mounts, network, host):
        read = [path for path in read if path not in write]
        box = Sandbox(*mounts, read=read, write=write, network=network, weaken={"ids"})
        policy = box.policy
        lines = [(each.text, each.field) for each in apparmor_lines(policy, host)]
        found.append(AppArmorProfile(f"policy-{len(found)}", rules=lines))

    collect()
    return found


@pytest.mark.needs("apparmor_parser")
def test_the_parser_takes_what_is_made_of_whole_policies():
    """ISOLATE_APPARMOR_POLICIES=1000 for as many as that."""
    made = random_policies(COUNT)
    assert len(made) >= COUNT // 3
    for batch in batches(made):
        status, names, told = parsed(joined(batch), "-N")
        assert status == 0, told
        assert sorted(names.split()) == sorted(profile.name for profile in batch)


HOSTILE_NAMES = [
    "", " ", "a b", "-a", ".a", "x" * 129, 'a"b', "a\nb", "a\0b", "a\\", "a{b", "a}", "a*", "a,b",
    "unconfined", ":ns:a", "a//&b", "é", "a)", None, 7,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_refused(name):
    if name is None:
        assert AppArmorProfile.generate(None).is_temporary
        return
    with pytest.raises(PolicyError, match="name"):
        AppArmorProfile.generate(name)


@pytest.mark.parametrize(
    "name",
    ["", "unconfined", ":other:x", "a//&b", "x (enforce)", 'a"', "a\n", "a\\b", " a", "&x", 3],
)
def test_a_name_that_the_kernel_would_read_otherwise_is_refused(name):
    with pytest.raises(PolicyError):
        AppArmorProfile(name)


@pytest.mark.parametrize("name", ["docker-default", "/usr/bin/man", "a//hat", "libvirt-0a0b"])
def test_names_that_profiles_have_are_taken(name):
    assert AppArmorProfile(name).name == name


@pytest.mark.parametrize("path", ['/a"b', "/a\nb", "/a\0", "/a\x7f", "/\udcff", "relative", 7])
def test_a_path_that_can_t_be_written_is_refused(path):
    with pytest.raises(PolicyError):
        AppArmorProfile.generate("x", read=[path])


@pytest.mark.parametrize(
    "rule",
    [
        "/a r",
        "/a r, }",
        "} profile evil { file,",
        "#include <x>,",
        "include <abstractions/base>,",
        "/a r, # no",
        '/a "r,',
        "/a{ r,",
        "/a r,\n/b w,",
        "/a\\",
        7,
    ],
)
def test_an_extra_rule_can_t_leave_the_profile(rule):
    with pytest.raises(PolicyError, match=r"rules"):
        AppArmorProfile.generate("x", extra_rules=[rule])
    with pytest.raises(PolicyError):
        AppArmorProfile("x", rules=[(rule, "read")])


@pytest.mark.parametrize(
    "wrong", [{"network": "ipx"}, {"network": "inet sideways"}, {"capabilities": ["FLY"]}]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(PolicyError):
        AppArmorProfile.generate("x", **wrong)


def test_a_path_that_ends_in_a_backslash_keeps_its_quote():
    rule = file_rule("/odd\\", "r", "read").text
    assert rule == 'allow file "/odd\\\\{,/,/**}" r,'


@pytest.mark.needs("apparmor_parser")
def test_the_parser_s_complaint_names_the_field():
    bad = AppArmorProfile.generate("x", read="/a", extra_rules=["/b flywithme,"])
    with pytest.raises(PolicyError, match=r"extra_rules: apparmor_parser refuses '/b flywithme,'"):
        apparmor.check(bad)
    apparmor.check(sample())
    assert sample().check() is None


def test_a_name_alone_has_no_text():
    with pytest.raises(PolicyError, match="no text"):
        AppArmorProfile("docker-default").text()


def test_it_narrows_to_itself_and_to_nothing_else():
    one = AppArmorProfile("a")
    assert (Policy(one) | one) == Policy(one)
    with pytest.raises(PolicyConflict):
        Policy(one) | AppArmorProfile("b")


@pytest.mark.parametrize("format", ["toml", "json"])
def test_it_goes_through_a_file_and_pickle(format):
    for profile in (AppArmorProfile("a"), sample(), AppArmorProfile.generate(complain=True)):
        policy = Policy(profile)
        assert Policy.loads(policy.dumps(format), format) == policy
        assert pickle.loads(pickle.dumps(policy)) == policy


def test_a_file_can_t_smuggle_a_rule_in():
    text = "version = 1\n[apparmor]\nname = 'x'\nrules = [['} profile y {', 'read']]\n"
    with pytest.raises(PolicyError, match="apparmor"):
        Policy.loads(text)


def entry(plan):
    return [op for op in plan.program if op.code is OpCode.APPARMOR]


def test_it_is_entered_at_exec_before_no_new_privs_and_read_back():
    plan = compile_plan(Sandbox(apparmor="docker-default").policy, TRUE, WITH)
    [op] = entry(plan)
    assert op.strs == (b"exec docker-default", b"docker-default (enforce)")
    codes = [op.code for op in plan.program]
    assert codes.index(OpCode.APPARMOR) < codes.index(OpCode.NO_NEW_PRIVS)
    assert [step.kind for step in plan.steps][-1] == "apparmor"


def test_a_confined_caller_stacks_under_no_new_privs():
    confined_host = evolve(WITH, apparmor_label="docker-default (enforce)")
    plan = compile_plan(Sandbox(apparmor="x").policy, TRUE, confined_host)
    assert entry(plan)[0].strs[0] == b"stack x"
    for wanted, verb in ((True, b"stack x"), (False, b"exec x")):
        policy = Sandbox(apparmor=AppArmorProfile("x", stack=wanted)).policy
        assert entry(compile_plan(policy, TRUE, WITH))[0].strs[0] == verb


def test_without_apparmor_it_is_refused_with_the_reason():
    for why in ("the kernel has no AppArmor", "AppArmor is not enabled: boot with apparmor=1"):
        host = evolve(hosts.ROOT_V1, apparmor=why)
        with pytest.raises(HostLacks, match=why) as caught:
            compile_box(Sandbox(apparmor="x").policy, host)
        assert caught.value.what == "apparmor"
        plan = compile_plan(Sandbox(apparmor="x", weaken="apparmor").policy, TRUE, host)
        [held] = [g for g in plan.guarantees if g.name == "apparmor"]
        assert (held.verdict, held.by) == ("weakened", why)
        assert not entry(plan)
        assert not [step for step in plan.steps if step.kind == "apparmor"]


def test_a_box_without_proc_can_t_enter_one():
    policy = Policy(*Sandbox(pid=True).policy, Mount.tmpfs("/proc"), AppArmorProfile("x"))
    with pytest.raises(HostLacks, match="no /proc"):
        compile_box(policy, WITH)


def test_a_temporary_one_gets_the_box_s_own_name():
    plan = compile_plan(Sandbox(apparmor=AppArmorProfile.generate(read="/usr")).policy, TRUE, WITH)
    [op] = [op for op in confined.named(plan.program, "isolate-1-2") if op.code is OpCode.APPARMOR]
    assert op.strs == (b"exec isolate-1-2", b"isolate-1-2 (enforce)")
    assert op.about == "enter the AppArmor profile isolate-1-2 at exec"


def test_one_that_is_done_without_is_left_out_and_told():
    policy = Sandbox(apparmor="x", weaken="apparmor").policy
    plan = compile_plan(policy, TRUE, WITH)
    told = confined.weakened(plan, "!the profile 'x' is not loaded")
    [held] = [g for g in told.guarantees if g.name == "apparmor"]
    assert (held.verdict, held.by) == ("weakened", "the profile 'x' is not loaded")
    assert not any(op.code is OpCode.APPARMOR for op in confined.named(plan.program, "!why"))
    assert confined.weakened(plan, "x") == plan


def test_a_label_is_compared_whole():
    assert confined.entered("x (enforce)", "x (enforce)", stacked=False)
    for seen in ("x (complain)", "xy (enforce)", "unconfined", "y//&x (enforce)", ""):
        assert not confined.entered(seen, "x (enforce)", stacked=False)
    assert confined.entered("y//&x (enforce)", "x (enforce)", stacked=True)
    assert not confined.entered("y//&xx (enforce)", "x (enforce)", stacked=True)
    assert not confined.entered("y//&x (mixed)", "x (enforce)", stacked=True)


def test_generate_sends_a_whole_policy_to_where_it_belongs():
    for wrong in (Sandbox().policy, Sandbox(), 7):
        with pytest.raises(PolicyError, match=r"AppArmorProfile\.from_policy\(policy\)"):
            AppArmorProfile.generate(wrong)


def test_every_program_may_talk_to_its_own_kind():
    text, fields = render("x", [])
    assert 'signal (send, receive) peer="x",' in text
    assert len(fields) == text.count("\n")
