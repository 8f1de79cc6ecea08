"""A box's first process is in the box's profile: what `AppArmorProfile.of(box.pid)` says is so."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isolate import AppArmorProfile, Exited, HostLacks, Sandbox, TimedOut
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


AS_USER = """
from isolate import AppArmorProfile, Sandbox
with Sandbox(apparmor="isolate-test-user") as box:
    inside = box.run(["cat", "/proc/self/attr/current"], capture_output=True, text=True).stdout
    print([AppArmorProfile.of(box.pid), inside.strip("\\0\\n")])
"""


@pytest.mark.needs("root")
def test_an_ordinary_user_s_box_is_in_the_loaded_profile(loading):  # noqa: F811
    loading(grounded("isolate-test-user"))
    argv = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", sys.executable]
    done = subprocess.run(
        [*argv, "-c", AS_USER], capture_output=True, text=True, cwd="/srv/isolate", timeout=110,
        env={"HOME": "/home/ordinary", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout, {}) == ["isolate-test-user (enforce)"] * 2
