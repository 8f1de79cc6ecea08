"""A box's first process is in the box's profile: what `AppArmorProfile.of(box.pid)` says is so."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from attrs import evolve

from isolate import AppArmorProfile, Exited, HostLacks, LaunchError, Sandbox, TimedOut
from isolate.abi.ops import OpCode
from isolate.plan.model import Program
from isolate.supervise import launch
from tests.live.test_landlock import bare
from tests.vm.test_apparmor import grounded, loading, no_profile_left  # noqa: F401

pytestmark = pytest.mark.needs("apparmor")


@pytest.fixture
def written():
    """A profile that somebody wrote, loaded by the parser alone."""
    names = []

    def write(name, *rules, flags="attach_disconnected"):
        text = f"profile {name} flags=({flags}) {{\n" + "\n".join(rules) + "\n}\n"
        subprocess.run(["apparmor_parser", "-aK"], input=text.encode(), check=True)
        names.append(name)
        return name

    yield write
    for name in names:
        AppArmorProfile(name).unload()


def labels_inside(pid):
    """The label of every process of the box, by pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "ns/pid") == os.readlink(f"/proc/{pid}/ns/pid"):
                found[int(path.name)] = AppArmorProfile.of(int(path.name))
        except (OSError, ProcessLookupError):
            continue
    return found


@pytest.mark.needs("root")
def test_of_says_name_and_mode_for_a_generated_one(loading):  # noqa: F811
    profile = loading(grounded("isolate-test-first"))
    with Sandbox(apparmor=profile) as box:
        assert AppArmorProfile.of(box.pid) == "isolate-test-first (enforce)"
        assert box.run(["true"]).returncode == 0
    with Sandbox(apparmor=grounded()) as box:
        assert AppArmorProfile.of(box.pid) == f"{box.session.made.profile} (enforce)"


@pytest.mark.needs("root")
def test_of_says_name_and_mode_for_docker_s(loading):  # noqa: F811
    loading(AppArmorProfile.docker_default())
    with Sandbox(apparmor=AppArmorProfile("docker-default")) as box:
        assert AppArmorProfile.of(box.pid) == "docker-default (enforce)"
        assert box.run(["true"]).returncode == 0
    with Sandbox(apparmor=AppArmorProfile.docker_default()) as box:
        assert AppArmorProfile.of(box.pid) == "docker-default (enforce)"
    with Sandbox(apparmor="docker-default") as box:
        assert AppArmorProfile.of(box.pid) == "docker-default (enforce)"


BARE = ("/usr/** mr,", "/etc/ld.so.cache r,", "/dev/null rw,", "/proc/** r,")


@pytest.mark.needs("root")
def test_a_written_one_needs_no_rule_for_our_sake(written):
    """No exec, no signal, no network, no ptrace: programs start, time out and end all the same."""
    name = written("isolate-test-bare", *BARE)
    with Sandbox(apparmor=name) as box:
        assert AppArmorProfile.of(box.pid) == f"{name} (enforce)"
        done = box.run(["cat", "/proc/self/attr/current"], capture_output=True, text=True)
        assert done.stdout.strip("\0\n") == f"{name} (enforce)", done.stderr
        assert box.run(["sh", "-c", "/usr/bin/true"]).outcome == Exited(126)  # no x rule
        steward = [pid for pid, label in labels_inside(box.pid).items() if label == "unconfined"]
        assert len(steward) == 1
        pid = box.pid
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.needs("root")
def test_one_that_takes_no_signal_from_outside_ends_with_its_box(written):
    name = written("isolate-test-deaf", *BARE, "/usr/** ix,")
    with Sandbox(apparmor=name) as box:
        program = box.popen(["sleep", "300"])
        with pytest.raises(PermissionError):  # what the profile says of kill(2)
            os.kill(box.pid, signal.SIGTERM)
        pid = box.pid
    assert program.wait() != 0
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.needs("root")
def test_one_that_takes_no_signal_is_held_by_its_time_limit(written):
    name = written("isolate-test-deaf", *BARE, "/usr/** ix,")
    done = Sandbox(apparmor=name).run(["sleep", "300"], timeout=1)
    assert isinstance(done.outcome, TimedOut)
    done = Sandbox(apparmor=name).run(["sh", "-c", "sleep 300 >/dev/null & exit 3"])
    assert done.outcome == Exited(3)
    with Sandbox(apparmor=name) as box:
        done = box.run(["sh", "-c", "sleep 300 & sleep 301"], timeout=1)
        assert isinstance(done.outcome, TimedOut)


@pytest.mark.needs("root")
def test_complain_mode_is_told(loading):  # noqa: F811
    loading(grounded("isolate-test-lenient", complain=True))
    with Sandbox(apparmor=AppArmorProfile("isolate-test-lenient", complain=True)) as box:
        assert AppArmorProfile.of(box.pid) == "isolate-test-lenient (complain)"


@pytest.mark.needs("root")
def test_everything_inside_but_the_supervisor_is_in_the_profile(loading):  # noqa: F811
    loading(grounded("isolate-test-all"))
    with Sandbox(apparmor="isolate-test-all") as box:
        box.popen(["python3", "-c", "import os, time; os.fork(); time.sleep(300)"])
        box.run(["true"])
        labels = list(labels_inside(box.pid).values())
    assert labels.count("isolate-test-all (enforce)") >= 2  # pid 1 and the program
    assert labels.count("unconfined") == 2  # the steward and the program's keeper
    assert set(labels) == {"isolate-test-all (enforce)", "unconfined"}


@pytest.mark.needs("root")
def test_weakened_it_is_what_it_is():
    with Sandbox(apparmor="isolate-no-such", weaken={"apparmor"}) as box:
        assert AppArmorProfile.of(box.pid) == "unconfined"
        assert box.run(["true"]).returncode == 0
    with pytest.raises(HostLacks), Sandbox(apparmor="isolate-no-such"):
        pass


# ---- a label that is not the wanted one -------------------------------------------------------


@pytest.fixture
def entering(monkeypatch):
    """Programs enter another profile than the one that they are looked at for: what a profile that
    is unloaded in that moment, or a kernel that errs, would come to."""

    def otherwise(name):
        whole = launch.program_blob

        def forged(program):
            body = tuple(
                evolve(op, strs=(f"exec {name}".encode(), f"{name} (enforce)".encode()))
                if op.code is OpCode.APPARMOR
                else op
                for op in program.body
                if name or op.code is not OpCode.APPARMOR
            )
            return whole(Program(body, program.exec))

        monkeypatch.setattr(launch, "program_blob", forged)

    return otherwise


LATE = "sleep 2; echo ran > {}/canary; sleep 300"


@pytest.mark.needs("root")
@pytest.mark.parametrize("other", ["isolate-test-other", ""])
def test_a_program_under_another_label_is_killed_and_told(loading, entering, disk_path, other):  # noqa: F811
    loading(grounded("isolate-test-wanted"))
    loading(grounded("isolate-test-other", write=[disk_path]))
    entering(other)
    seen = f"{other} (enforce)" if other else "unconfined"
    told = f"it ran under '{seen}' instead of 'isolate-test-wanted (enforce)', and was killed"
    box = Sandbox(apparmor="isolate-test-wanted", write=[disk_path])
    with pytest.raises(LaunchError) as caught:
        box.run(["sh", "-c", LATE.format(disk_path)])
    assert caught.value.hint == told
    assert caught.value.op.code is OpCode.APPARMOR
    with box as live:
        for _ in range(2):
            with pytest.raises(LaunchError, match="and was killed"):
                live.popen(["sh", "-c", LATE.format(disk_path)])
        names = [Path(f"/proc/{pid}/comm").read_text() for pid in labels_inside(live.pid)]
        assert set(names) <= {"isolate-init\n"}
    assert not (disk_path / "canary").exists()


@pytest.mark.needs("root")
def test_a_profile_s_own_transitions_are_for_what_a_program_starts(written):
    """px and cx of a profile say nothing about the first exec: that enters the profile itself."""
    other = written("isolate-test-elsewhere", "/** rm,", "/dev/null rw,")
    name = written(
        "isolate-test-moving", "/** rm,", "/usr/bin/dash ix,", f"/usr/bin/cat px -> {other},",
        "/usr/bin/head cx -> below,", "profile below { /** rm, }",
    )  # fmt: skip
    argv = ["cat", "/proc/self/attr/current"]
    inner = ["sh", "-c", " ".join(argv)]
    with Sandbox(apparmor=name) as box:
        assert AppArmorProfile.of(box.pid) == f"{name} (enforce)"
        assert labelled(box.run(argv, capture_output=True)) == name
        done = box.run(inner, capture_output=True)  # under no_new_privs the kernel takes no px
        assert b"Operation not permitted" in done.stderr
        head = ["sh", "-c", "head -1 /proc/self/attr/current"]
        assert b"Operation not permitted" in box.run(head, capture_output=True).stderr
    assert labelled(bare([AppArmorProfile(name)], argv)) == name
    assert labelled(bare([AppArmorProfile(name)], inner)) == other
    assert labelled(bare([AppArmorProfile(name)], head)) == f"{name}//below"


def labelled(done):
    assert done.returncode == 0, done.stderr
    text = done.stdout if isinstance(done.stdout, str) else done.stdout.decode()
    return text.strip("\0\n").removesuffix(" (enforce)")
