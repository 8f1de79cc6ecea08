# SPDX-License-Identifier: Apache-2.0
"""AppArmor where a kernel has it: each kind of rule where it allows and where it refuses."""

import faulthandler
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from isolate import (
    AppArmorProfile,
    HostLacks,
    Namespace,
    PolicyError,
    Sandbox,
    outside,
)
from isolate.host.probe import probe
from tests.live.test_landlock import bare

pytestmark = pytest.mark.needs("apparmor")
# What a Python needs to start, in a test that is about something else.
GROUND = {
    "read": ["/usr", "/etc", "/proc", "/dev", "/lib", "/srv/isolate", "/sys/kernel/mm"],
    "execute": ["/usr", "/bin", "/lib", "/lib64", "/srv/isolate"],
    "write": ["/dev/null"],
}
WORD = """
import ctypes, errno, os, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def word(fn, *args):
    try:
        fn(*args)
        return "yes"
    except OSError as error:
        return errno.errorcode[error.errno]
def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags, 0o600))
def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
"""


def grounded(name=None, **more):
    """A generated profile in which Python runs, with what is given on top."""
    fields = {key: [*GROUND.get(key, ()), *more.pop(key, ())] for key in GROUND}
    more.setdefault("network", ["unix"])
    return AppArmorProfile.generate(name, **fields, **more)


def ask(profile, script, *others):
    """What a Python under that profile prints, as a value."""
    done = bare([*others, profile], [sys.executable, "-c", WORD + script])
    assert done.returncode == 0, done.stderr
    return eval(done.stdout, {})  # our own script printed it


@pytest.fixture
def loading():
    """Load a profile for a test."""
    made = []

    def load(profile):
        profile.load()
        made.append(profile)
        return profile

    yield load
    for profile in made:
        profile.unload()
        assert profile.name not in AppArmorProfile.loaded()


@pytest.fixture(autouse=True)
def no_profile_left():
    """Law 8, for profiles."""
    if os.geteuid() != 0:
        yield
        return
    before = AppArmorProfile.loaded()
    yield
    assert AppArmorProfile.loaded() == before
    assert not os.path.exists("/run/isolate-apparmor")


def test_the_machine_says_so():
    host = probe()
    assert (host.apparmor, host.apparmor_label) == ("", "unconfined")
    assert AppArmorProfile.of(os.getpid()) == "unconfined"
    with pytest.raises(ProcessLookupError):
        AppArmorProfile.of(2**22 + 1)


@pytest.mark.needs("root")
def test_files_are_read_written_started_and_linked_where_it_says(tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
        (tmp_path / name / "true").write_bytes(Path("/bin/true").read_bytes())
        (tmp_path / name / "true").chmod(0o755)
    inner, outer = tmp_path / "in", tmp_path / "out"
    profile = grounded(read=[inner], write=[inner], execute=[inner])
    script = f"""
i, o = {str(inner)!r}, {str(outer)!r}
def ran(path):
    subprocess.run([path], check=True)
print([[word(opened, d + "/file"), word(os.listdir, d), word(opened, d + "/file", os.O_WRONLY),
        word(opened, d + "/new", os.O_CREAT | os.O_WRONLY), word(os.link, d + "/file", d + "/l"),
        word(ran, d + "/true"), word(os.mkdir, d + "/dir"), word(os.unlink, d + "/file")]
       for d in (i, o)] + [word(os.link, o + "/true", i + "/got")])
"""
    assert ask(profile, script) == [["yes"] * 8, ["EACCES"] * 8, "EACCES"]
    assert not (inner / "got").exists()


@pytest.mark.needs("root")
def test_read_alone_is_not_writing_or_starting(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "true").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "true").chmod(0o755)
    script = f"""
d = {str(tmp_path)!r}
def ran(path):
    subprocess.run([path], check=True)
print([word(opened, d + "/file"), word(opened, d + "/file", os.O_WRONLY), word(ran, d + "/true")])
"""
    assert ask(grounded(read=[tmp_path]), script) == ["yes", "EACCES", "EACCES"]


ODD = ["a b", "st*r", "sq[ab]", "cur{x,y}", "qu?st", "ca^ret", "@{PROC}", "com,ma", "back\\", "#h"]


@pytest.mark.needs("root")
def test_odd_names_mean_themselves_and_nothing_else(tmp_path):
    """Each name's file may be read; the name that it would match as a pattern may not."""
    others = ["starr", "sqa", "curx", "quest", "ca", "com", "back", "a", "proc"]
    for name in (*ODD, *others):
        (tmp_path / name).write_text(name)
    profile = grounded(read=[tmp_path / name for name in ODD])
    script = f"""
d = {str(tmp_path)!r}
print([[word(opened, d + "/" + n) for n in names] for names in ({ODD!r}, {others!r})])
"""
    assert ask(profile, script) == [["yes"] * len(ODD), ["EACCES"] * len(others)]


@pytest.mark.needs("root")
def test_a_network_family_is_there_only_if_named():
    script = """
print([word(lambda f=f, t=t: socket.socket(f, t).close()) for f, t in (
    (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM),
    (socket.AF_INET6, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_STREAM))])
"""
    assert ask(grounded(), script) == ["EACCES", "EACCES", "EACCES", "yes"]
    one = grounded(network=["unix", "inet stream"])
    assert ask(one, script) == ["yes", "EACCES", "EACCES", "yes"]
    assert ask(grounded(network="all"), script) == ["yes"] * 4


@pytest.mark.needs("root")
def test_a_capability_is_there_only_if_named(tmp_path):
    (tmp_path / "file").write_text("")
    script = f"print([word(os.chown, {str(tmp_path / 'file')!r}, 12345, 0)])"
    assert ask(grounded(write=[tmp_path]), script) == ["EPERM"]
    assert ask(grounded(write=[tmp_path], capabilities=["CHOWN"]), script) == ["yes"]


@pytest.fixture
def sleeper():
    with outside():
        process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.needs("root")
def test_signals_and_ptrace_reach_its_own_kind_alone(sleeper):
    script = f"""
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
child = subprocess.Popen(["sleep", "300"])
while open(f"/proc/{{child.pid}}/comm").read() != "sleep\\n":
    pass
def attach(pid):
    call("ptrace", PTRACE_ATTACH, pid, 0, 0)
    os.waitpid(pid, 0)
    call("ptrace", PTRACE_DETACH, pid, 0, 0)
print([word(os.kill, {sleeper.pid}, 0), word(attach, {sleeper.pid}), word(attach, child.pid),
       word(child.kill)])
"""
    powers = {"capabilities": ["KILL", "SYS_PTRACE"]}
    assert ask(grounded(**powers), script) == ["EACCES", "EACCES", "yes", "yes"]
    extra = ["signal (send) peer=unconfined,"]
    assert ask(grounded(**powers, extra_rules=extra), script)[0] == "yes"


@pytest.mark.needs("root")
def test_mounts_are_made_where_a_rule_says(tmp_path):
    (tmp_path / "yes").mkdir()
    (tmp_path / "no").mkdir()
    script = f"""
def mounted(where):
    call("mount", b"none", where.encode(), b"tmpfs", 0, None)
print([word(mounted, {str(tmp_path)!r} + d) for d in ("/yes", "/no")])
"""
    spaces = Namespace(mount=True)
    extra = [f'mount fstype=tmpfs -> "{tmp_path}/yes/",']
    allowed = grounded(capabilities=["SYS_ADMIN"], extra_rules=extra)
    assert ask(allowed, script, spaces) == ["yes", "EACCES"]
    refused = grounded(capabilities=["SYS_ADMIN"])
    assert ask(refused, script, spaces) == ["EACCES", "EACCES"]


@pytest.mark.needs("root")
def test_docker_default_closes_what_belongs_to_the_machine(loading, tmp_path):
    loading(AppArmorProfile.docker_default("isolate-test-docker"))
    held = AppArmorProfile("isolate-test-docker")
    script = f"""
def mounted():
    call("mount", b"none", {str(tmp_path)!r}.encode(), b"tmpfs", 0, None)
print([word(opened, "/etc/passwd"), word(opened, {str(tmp_path)!r} + "/new", os.O_CREAT),
       word(socket.socket), word(opened, "/proc/self/comm", os.O_WRONLY),
       word(opened, "/proc/sys/kernel/shmmax", os.O_WRONLY)],
      [word(mounted), word(opened, "/proc/kcore"), word(opened, "/proc/sysrq-trigger", os.O_WRONLY),
       word(opened, "/proc/sys/kernel/core_pattern", os.O_WRONLY),
       word(opened, "/proc/sys/vm/swappiness", os.O_WRONLY),
       word(opened, "/sys/kernel/security/apparmor/profiles"),
       word(opened, "/sys/kernel/profiling", os.O_WRONLY)], sep=",")
"""
    granted, refused = ask(held, script, Namespace(mount=True))
    assert granted == ["yes"] * 5
    assert refused == ["EACCES"] * 7
    [free] = {tuple(ask(Namespace(mount=True), script)[1][:6])}
    assert set(free) == {"yes"}  # the positive control: without it root may


@pytest.mark.needs("root")
def test_a_profile_that_somebody_wrote_is_entered_by_name(tmp_path):
    text = """
profile isolate-test-written flags=(attach_disconnected) {
  file,
  capability,
  network unix,
  signal (receive) peer=unconfined,
  deny /etc/hostname r,
}
"""
    subprocess.run(["apparmor_parser", "-aK"], input=text.encode(), check=True)
    try:
        profile = AppArmorProfile("isolate-test-written")
        assert AppArmorProfile.loaded()["isolate-test-written"] == "enforce"
        script = 'print([word(opened, "/etc/hostname"), word(opened, "/etc/passwd")])'
        assert ask(profile, script) == ["EACCES", "yes"]
        done = Sandbox(apparmor="isolate-test-written").run(
            ["cat", "/proc/self/attr/current"], capture_output=True, text=True
        )
        assert done.stdout.strip() == "isolate-test-written (enforce)"
    finally:
        AppArmorProfile("isolate-test-written").unload()


@pytest.mark.needs("root")
def test_a_program_of_a_box_is_told_by_its_pid():
    """Under no_new_privs, in a user namespace and all the others."""
    with Sandbox(apparmor=grounded()) as box:
        name = box.session.made.profile
        program = box.popen(["sleep", "60"])
        label = AppArmorProfile.of(host_pid(program))
        assert label == f"{name} (enforce)"
        assert AppArmorProfile.loaded()[name] == "enforce"
        assert ("apparmor", "enforced") in {(g.name, g.verdict) for g in box.guarantees}
        assert AppArmorProfile.of(box.pid) == f"{name} (enforce)"
        program.kill()
    assert name not in AppArmorProfile.loaded()


def host_pid(program):
    from isolate.supervise.confined import host_pid as pid

    return pid(program.supervision.pump.process.pidfd)


@pytest.mark.needs("root")
def test_a_whole_policy_becomes_a_profile_and_changes_nothing_that_it_allows(disk_path):
    tmp_path = disk_path
    (tmp_path / "shown").write_text("shown")
    target = tmp_path / "out"
    target.mkdir()
    plain = Sandbox(read=[tmp_path / "shown"], write=[target])
    box = Sandbox(
        read=[tmp_path / "shown"], write=[target], apparmor=AppArmorProfile.from_policy(plain)
    )
    script = f"""
cat {tmp_path}/shown && echo a > {target}/a && ln {target}/a {target}/b && echo x > /tmp/x &&
cat < /dev/null && echo > /dev/null && ls /proc/self/fd > /dev/null &&
cat /etc/passwd > /dev/null &&
python3 -c 'import socket, ctypes; socket.socketpair()' && cat /proc/self/attr/current
"""
    done = box.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.endswith("(enforce)\n")
    assert sorted(os.listdir(target)) == ["a", "b"]
    assert box.call(sum, [1, 2, 3]) == 6


@pytest.mark.needs("root")
def test_complain_mode_only_logs():
    script = 'print([word(opened, "/etc/passwd")])'
    strict = {"read": ["/usr", "/proc", "/lib", "/srv/isolate"], "execute": GROUND["execute"]}
    assert ask(AppArmorProfile.generate(**strict, write="/dev/null"), script) == ["EACCES"]
    lenient = AppArmorProfile.generate(**strict, complain=True)
    assert ask(lenient, script) == ["yes"]


@pytest.mark.needs("root")
def test_a_profile_in_another_mode_is_refused(loading):
    loading(grounded("isolate-test-lenient", complain=True))
    with pytest.raises(HostLacks, match="complain mode, not enforce"):
        Sandbox(apparmor="isolate-test-lenient").run(["true"])
    done = Sandbox(apparmor=AppArmorProfile("isolate-test-lenient", complain=True)).run(["true"])
    assert done.returncode == 0


@pytest.mark.needs("root")
def test_an_unknown_profile_is_refused_unless_weakened():
    with pytest.raises(HostLacks, match="'isolate-no-such' is not loaded"):
        Sandbox(apparmor="isolate-no-such").run(["true"])
    box = Sandbox(apparmor="isolate-no-such", weaken={"apparmor"})
    done = box.run(["cat", "/proc/self/attr/current"], capture_output=True, text=True)
    assert done.stdout.strip("\0\n") == "unconfined"
    [held] = [g for g in done.guarantees if g.name == "apparmor"]
    assert (held.verdict, "not loaded" in held.by) == ("weakened", True)


@pytest.mark.needs("root")
def test_load_replace_and_unload(loading):
    first = grounded("isolate-test-replaced")
    loading(first)
    with pytest.raises(HostLacks, match="isolate-test-replaced"):
        first.load()
    grounded("isolate-test-replaced", complain=True).replace()
    assert AppArmorProfile.loaded()["isolate-test-replaced"] == "complain"
    with pytest.raises(PolicyError, match="extra_rules"):
        AppArmorProfile.generate("isolate-test-bad", extra_rules=["/a zzz,"]).load()
    assert "isolate-test-bad" not in AppArmorProfile.loaded()


SCRIPT = """
import os, sys
from isolate import AppArmorProfile, HostLacks, Sandbox
done = Sandbox(apparmor="isolate-test-loaded").run(
    ["cat", "/proc/self/attr/current"], capture_output=True, text=True)
words = [done.stdout.strip()]
with Sandbox(apparmor="isolate-test-loaded") as box:
    words.append(AppArmorProfile.of(box.pid))
try:
    Sandbox(apparmor=AppArmorProfile.generate(read="/usr")).run(["true"])
except HostLacks as error:
    words.append(error.what)
try:
    Sandbox(apparmor="isolate-no-such").run(["true"])
except HostLacks as error:
    words.append(error.what)
print(words)
"""


@pytest.mark.needs("root")
def test_an_ordinary_user_enters_a_loaded_profile_and_may_load_none(loading):
    loading(grounded("isolate-test-loaded"))
    argv = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    done = subprocess.run(
        [*argv, sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd="/srv/isolate",
        env={"HOME": "/home/ordinary", "PATH": os.environ["PATH"]}, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    held = "isolate-test-loaded (enforce)"
    assert eval(done.stdout, {}) == [held, held, "apparmor", "apparmor"]


STACKED = """
from isolate import Sandbox
done = Sandbox(apparmor="isolate-test-loaded").run(
    ["cat", "/proc/self/attr/current"], capture_output=True, text=True)
print(done.stdout.strip())
"""


@pytest.mark.needs("root")
def test_a_confined_caller_stacks(loading):
    loading(grounded("isolate-test-loaded"))
    loading(
        AppArmorProfile.generate(
            "isolate-test-outer",
            read="/",
            write="/",
            execute="/",
            network="all",
            capabilities=PowersOf.all,
            extra_rules=[
                "mount,",
                "umount,",
                "pivot_root,",
                "signal,",
                "ptrace,",
                "change_profile -> **,",
            ],
        )  # fmt: skip
    )
    done = subprocess.run(
        ["aa-exec", "-p", "isolate-test-outer", "--", sys.executable, "-c", STACKED],
        capture_output=True, text=True, cwd="/srv/isolate", timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, mode = done.stdout.split()
    assert set(names.split("//&")) == {"isolate-test-outer", "isolate-test-loaded"}
    assert mode == "(enforce)"


class PowersOf:
    from isolate.abi.caps import CAPABILITIES

    all = tuple(sorted(CAPABILITIES))


@pytest.mark.needs("root")
def test_two_hundred_boxes_with_profiles_of_their_own_leave_none():
    """All alive at once; `no_profile_left` looks afterwards."""
    faulthandler.dump_traceback_later(800, exit=True)  # the guest is slow, and these are many
    sandbox, boxes = Sandbox(apparmor=grounded()), []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, max(hard, 16384)))
    with ThreadPoolExecutor(8) as pool:
        try:
            list(pool.map(lambda _: boxes.append(sandbox.open()), range(200)))
            names = {box.session.made.profile for box in boxes}
            assert len(names & set(AppArmorProfile.loaded())) == 200
            labels = list(pool.map(seen_label, boxes[:20]))
            assert labels == [f"{box.session.made.profile} (enforce)" for box in boxes[:20]]
        finally:
            list(pool.map(lambda box: box.close(), boxes))
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not names & set(AppArmorProfile.loaded())


def seen_label(box):
    argv = ["cat", "/proc/self/attr/current"]
    return box.run(argv, capture_output=True, text=True).stdout.strip()


KILLED = """
import sys, time
sys.path.insert(0, "/srv/isolate")
from tests.vm.test_apparmor import grounded
from isolate import Sandbox
with Sandbox(apparmor=grounded()) as box:
    print(box.session.made.profile, flush=True)
    time.sleep(300)
"""


@pytest.mark.needs("root")
def test_a_killed_host_s_profile_goes_with_the_next_start():
    with outside():
        host = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    name = host.stdout.readline().strip()
    assert name in AppArmorProfile.loaded()
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    assert name in AppArmorProfile.loaded()
    script = """
import sys
sys.path.insert(0, "/srv/isolate")
from tests.vm.test_apparmor import grounded
from isolate import Sandbox
Sandbox(apparmor=grounded()).run(["true"], check=True)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=110)
    assert name not in AppArmorProfile.loaded()


@pytest.mark.needs("root")
def test_a_live_host_s_profile_is_not_reclaimed():
    with Sandbox(apparmor=grounded()) as box:
        name = box.session.made.profile
        script = """
import sys
sys.path.insert(0, "/srv/isolate")
from tests.vm.test_apparmor import grounded
from isolate import Sandbox
Sandbox(apparmor=grounded()).run(["true"], check=True)
"""
        with outside():
            subprocess.run([sys.executable, "-c", script], check=True, timeout=110)
        assert AppArmorProfile.loaded()[name] == "enforce"


def test_a_launch_whose_op_asks_for_another_name_is_refused():
    """The kernel's own answer, without a profile in the parent's way."""
    from isolate.supervise import confined

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confined, "look", lambda profile: None)
        with pytest.raises(HostLacks, match="no profile of that name"):
            Sandbox(apparmor="isolate-no-such").run(["true"])


@pytest.mark.needs("unprivileged")
def test_an_ordinary_user_can_t_load():
    with pytest.raises(HostLacks) as caught:
        grounded("isolate-test-ordinary").load()
    assert caught.value.what == "apparmor"
