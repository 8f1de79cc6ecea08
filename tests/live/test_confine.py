# SPDX-License-Identifier: Apache-2.0
"""confine() in processes of their own, since nothing undoes it."""

import os
import pickle
import subprocess
import sys

import pytest

from isolate import CapabilitySet, Landlock, Policy, PolicyError, Rlimit, confine
from isolate.abi.ops import OpCode
from isolate.confine import RULES, lowered
from isolate.host.probe import probe
from isolate.native import EnterError

HEAD = """
import ctypes, errno, os, signal, socket, sys, threading, time
import isolate
from isolate import *
GROUND = ["/usr", "/lib", "/lib64", "/etc", "/proc", "/dev", sys.prefix, sys.base_prefix,
          os.path.dirname(os.path.dirname(isolate.__file__))]
def word(fn, *args):
    try:
        return fn(*args) or "yes"
    except OSError as error:
        return errno.errorcode[error.errno]
def status(key, thread="self"):
    for line in open(f"/proc/{thread}/status"):
        if line.startswith(key + ":"):
            return line.split()[1]
"""


def script(text, *args):
    """What a fresh Python prints, as a value."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + text, *map(str, args)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return eval(done.stdout, {})  # our own script printed it


@pytest.mark.needs("landlock")
def test_landlock_holds_for_this_process_and_its_children(tmp_path):
    (tmp_path / "file").write_text("text")
    text = """
path = sys.argv[1] + "/file"
before = word(lambda: open(path).read())
held = confine(Landlock(read=GROUND))
pid = os.fork()
if pid == 0:
    os._exit(word(lambda: open(path).read()) != "EACCES")
print([before, word(lambda: open(path).read()), os.waitpid(pid, 0)[1], status("NoNewPrivs"),
       sorted((g.name, g.verdict) for g in held)])
"""
    promised = [("landlock", "enforced"), ("no_new_privs", "enforced")]
    assert script(text, tmp_path) == ["text", "EACCES", 0, "1", promised]


@pytest.mark.needs("landlock")
def test_other_threads_make_it_refuse_before_anything_is_done(tmp_path):
    (tmp_path / "file").write_text("text")
    text = """
stop = threading.Event()
other = threading.Thread(target=stop.wait)
other.start()
words = []
for primitive in (Landlock(read=GROUND), CapabilitySet.none()):
    try:
        confine(primitive, Rlimit(nofile=50))
    except HostLacks as error:
        words.append([error.what, "2: the others would stay free" in str(error)])
stop.set()
other.join()
words.append([word(lambda: open(sys.argv[1] + "/file").read()), status("NoNewPrivs")])
import resource
words.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 50)
confine(Landlock(read=GROUND))
words.append(word(lambda: open(sys.argv[1] + "/file").read()))
print(words)
"""
    refused = ["threads", True]
    assert script(text, tmp_path) == [refused, refused, ["text", "0"], True, "EACCES"]


def test_a_filter_reaches_every_thread():
    text = """
go, stop, found = threading.Event(), threading.Event(), []
def other():
    go.wait()
    found.append([word(os.mkdir, "/nowhere/x"), status("Seccomp", "thread-self"),
                  status("NoNewPrivs", "thread-self")])
    stop.wait()
crowd = [threading.Thread(target=other) for _ in range(4)]
for each in crowd:
    each.start()
before = word(os.mkdir, "/nowhere/x")
confine(SeccompFilter.deny("mkdir", "mkdirat", action=Errno("ENOANO")))
go.set()
while len(found) < 4:
    time.sleep(0.01)
stop.set()
for each in crowd:
    each.join()
print([before, found, word(os.mkdir, "/nowhere/x")])
"""
    assert script(text) == ["ENOENT", [["ENOANO", "2", "1"]] * 4, "ENOANO"]


def test_a_thread_with_a_filter_of_its_own_makes_it_raise():
    """TSYNC can't overrule it: the kernel names the thread, which is an error and no success."""
    text = """
from isolate import native
from isolate.plan.encode import encode
from isolate.confine import lowered
from isolate.policy.policy import Policy
from isolate.host.probe import probe
from attrs import evolve
go, stop = threading.Event(), threading.Event()
def other():
    ops, _ = lowered(Policy(SeccompFilter.deny("swapon")), probe())
    alone = tuple(evolve(op, nums=(0,)) if op.code.name == "SECCOMP" else op for op in ops)
    native.enter(encode(alone).blob, [])
    go.set()
    stop.wait()
thread = threading.Thread(target=other)
thread.start()
go.wait()
try:
    confine(SeccompFilter.deny("swapoff"))
    print("confined")
except LaunchError as error:
    print([errno.errorcode[error.errno], error.op.code.name, "no_new_privs" in str(error)])
stop.set()
thread.join()
"""
    assert script(text) == ["ESRCH", "SECCOMP", True]


def test_capabilities_and_limits_go():
    text = """
import resource
held = confine(CapabilitySet.none(), Rlimit(nofile=64, core=0))
print([status(key) for key in ("CapEff", "CapPrm", "CapInh", "CapAmb")],
      resource.getrlimit(resource.RLIMIT_NOFILE), sorted(g.name for g in held), sep=",")
"""
    sets, limit, names = script(text)
    assert [int(each, 16) for each in sets] == [0] * 4
    assert limit == (64, 64)
    assert names == ["caps", "no_new_privs", "rlimits"]


@pytest.mark.needs("root")
def test_root_s_bounding_set_is_emptied():
    text = """
confine(CapabilitySet("NET_BIND_SERVICE"))
print([int(status(key), 16) for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb")])
"""
    assert script(text) == [1 << 10] * 4


def test_it_never_raises_a_limit():
    text = """
import resource
confine(Rlimit(nofile=64))
confine(Rlimit(nofile=128))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert script(text) == (64, 64)


@pytest.mark.needs("landlock")
def test_what_is_confined_can_be_confined_further(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("a")
    text = """
f = sys.argv[1] + "/a/f"
confine(Landlock(read=[*GROUND, sys.argv[1]]))
first = word(lambda: open(f).read())
confine(Landlock(read=GROUND))
print([first, word(lambda: open(f).read())])
"""
    assert script(text, tmp_path) == ["a", "EACCES"]


@pytest.mark.needs("landlock")
def test_afterwards_errors_of_the_library_are_the_library_s(tmp_path):
    text = """
confine(Landlock(read=GROUND, write=["/dev/null"], level=%d, execute=GROUND),
        SeccompFilter.deny("mount", "unshare", "open_tree", "move_mount"))
words = []
for start in (lambda: Sandbox().run(["true"]), lambda: run(["true"]),
              lambda: Sandbox().call(sum, [1])):
    try:
        start()
        words.append("ran")
    except (HostLacks, LaunchError) as error:
        words.append(bool(str(error)))
try:
    confine(Landlock(read=["/no/such/path"]))
except LaunchError as error:
    words.append([error.errno, error.op.code.name, "no such" not in str(error)])
try:
    confine(Namespace(pid=True))
except PolicyError as error:
    words.append("process of its own" in str(error))
print(words)
"""
    found = script(text % min(5, probe().landlock), tmp_path)
    assert found == [True, True, True, [2, "LANDLOCK_PATH", True], True]


@pytest.mark.needs("landlock")
def test_a_step_that_fails_says_what_is_in_force():
    text = """
try:
    confine(Rlimit(core=0), Landlock(read=["/no/such/path"]))
except LaunchError as error:
    print(str(error).splitlines())
"""
    lines = script(text)
    assert lines[0] == "allow read below /no/such/path: No such file or directory (ENOENT)"
    assert "in force are: nothing" in lines[-1]


@pytest.mark.needs("landlock")
def test_a_path_that_is_missing_is_told_before_anything_is_given_up():
    """Rulesets are made first; nothing is changed, and no descriptor is left."""
    text = """
import resource
words = []
def state():
    lines = open("/proc/self/status").read().splitlines()
    return [x for x in lines if x.split(":")[0] in (
        "NoNewPrivs", "Seccomp", "CapEff", "CapPrm", "CapBnd", "CapAmb")]
def open_now():
    return sorted(os.listdir("/proc/self/fd"))
before, fds = (state(), resource.getrlimit(resource.RLIMIT_CORE)), open_now()
for _ in range(3):
    try:
        confine(CapabilitySet.none(), Rlimit(core=0, nofile=10), SeccompFilter.deny("mount"),
                Landlock(read=["/usr", "/no/such/path"]))
    except LaunchError as error:
        words.append((error.op.code.name, "in force are: nothing" in str(error)))
words.append(((state(), resource.getrlimit(resource.RLIMIT_CORE)) == before, open_now() == fds))
confine(CapabilitySet.none(), Rlimit(core=0), Landlock(read=["/"]))
words.append(state() == before[0])
print(words)
"""
    assert script(text) == [("LANDLOCK_PATH", True)] * 3 + [(True, True), False]


@pytest.mark.needs("landlock")
def test_the_order_of_what_is_given_up_is_kept():
    policy = Policy(CapabilitySet.none(), Rlimit(core=0), Landlock(read=["/usr"]))
    ops, _ = lowered(policy, probe())
    codes = [op.code for op in ops]
    last = max(codes.index(code) for code in RULES[:2])
    assert last < codes.index(OpCode.RLIMIT) < codes.index(OpCode.CAPSET)
    assert codes.index(OpCode.NO_NEW_PRIVS) < codes.index(OpCode.LANDLOCK_RESTRICT)


def test_nonsense_is_refused():
    from isolate import Mount, Network

    for wrong in (Network.none(), Mount.tmpfs("/tmp"), Landlock.of_view()):
        with pytest.raises(PolicyError):
            confine(wrong)
    with pytest.raises(PolicyError, match="at least one"):
        confine()
    with pytest.raises(PolicyError):
        confine("landlock")


def test_its_inner_error_goes_through_pickle():
    error = pickle.loads(pickle.dumps(EnterError(3, 13)))
    assert (error.step, error.errno) == (3, 13)
    assert os.strerror(13) in str(error)
