# SPDX-License-Identifier: Apache-2.0
"""AppArmor on a machine that has none: refused with the reason, or done without and told.

Where a kernel has it, see tests/vm/test_apparmor.py.
"""

import os
import signal

import pytest

from isolate import AppArmorProfile, HostLacks, PolicyError, Sandbox
from isolate.host.probe import probe
from isolate.supervise import apparmor

WITHOUT = pytest.mark.skipif(not probe().apparmor, reason="needs a kernel without AppArmor")
GENERATED = AppArmorProfile.generate("isolate-test", read="/usr", execute="/usr")


@WITHOUT
@pytest.mark.parametrize(
    "use",
    [
        GENERATED.load,
        GENERATED.replace,
        GENERATED.unload,
        AppArmorProfile.loaded,
        lambda: AppArmorProfile.of(os.getpid()),
        lambda: Sandbox(apparmor="docker-default").run(["true"]),
        lambda: Sandbox(apparmor=GENERATED).open(),
        lambda: Sandbox(apparmor=AppArmorProfile.generate(read="/")).call(sum, [1]),
    ],
)
def test_every_use_says_why_it_can_t_be(use):
    with pytest.raises(HostLacks) as caught:
        use()
    assert caught.value.what == "apparmor"
    assert caught.value.why == probe().apparmor
    assert "apparmor=1" in str(caught.value)


@WITHOUT
def test_weakened_it_runs_and_says_so():
    done = Sandbox(apparmor="docker-default", weaken={"apparmor"}).run(["true"])
    assert done.returncode == 0
    [held] = [g for g in done.guarantees if g.name == "apparmor"]
    assert (held.verdict, held.by) == ("weakened", probe().apparmor)


@WITHOUT
def test_explain_counts_it_as_not_there():
    box = Sandbox(apparmor=AppArmorProfile.generate(read="/nothing"), weaken={"apparmor"})
    answer = box.explain_access("read", "/etc/passwd")
    assert answer.allowed is True
    assert "not in force" in str(answer)


@pytest.mark.needs("apparmor_parser")
def test_a_text_is_checked_by_the_parser_without_a_kernel():
    GENERATED.check()
    with pytest.raises(PolicyError, match="extra_rules"):
        AppArmorProfile.generate("x", extra_rules=["/a nonsense,"]).check()


@pytest.mark.needs("apparmor_parser")
def test_a_check_does_not_believe_a_status_that_was_lost():
    """Where SIGCHLD is ignored, subprocess knows no status, and says 0."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        GENERATED.check()
        with pytest.raises(PolicyError, match="extra_rules"):
            AppArmorProfile.generate("x", extra_rules=["/a nonsense,"]).check()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_without_the_parser_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(apparmor, "SBIN", "/nowhere")
    with pytest.raises(HostLacks, match="apparmor_parser is not installed"):
        GENERATED.check()


@pytest.mark.needs("apparmor_parser")
def test_a_check_works_inside_a_block_of_primitives():
    with AppArmorProfile("isolate-test"):
        GENERATED.check()


def test_a_lock_of_somebody_else_s_folder_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setattr(apparmor, "RUN", str(folder))
    with pytest.raises(HostLacks, match="belongs to somebody else"):
        apparmor.new_lock("isolate-x")


def test_a_process_that_ends_while_it_is_looked_at_is_no_lack(monkeypatch):
    def gone(self):
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(apparmor.Path, "read_bytes", gone)
    with pytest.raises(ProcessLookupError):
        apparmor.label_of(os.getpid())


def test_locks_tell_the_living_from_the_dead(tmp_path, monkeypatch):
    """The bookkeeping of temporary profiles, with a kernel that only takes notes."""
    removed = []
    monkeypatch.setattr(apparmor, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(apparmor, "remove", removed.append)
    alive = apparmor.new_lock("isolate-alive")
    os.close(apparmor.new_lock("isolate-dead"))
    apparmor.RECLAIMED.discard(os.getpid())
    apparmor.reclaim()
    assert removed == ["isolate-dead"]
    assert os.listdir(tmp_path / "run") == ["isolate-alive"]
    os.close(alive)
    apparmor.discard("isolate-alive")
    assert removed == ["isolate-dead", "isolate-alive"]
    assert not (tmp_path / "run").exists()
