"""The command line without a sandbox: options into a policy, results into statuses and JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner

from isolate import (
    CgroupLimit,
    Exited,
    HostLacks,
    Killed,
    LaunchError,
    LimitHit,
    Network,
    PolicyError,
    TimedOut,
    Usage,
    Violated,
)
from isolate.abi.ops import OpCode, Phase
from isolate.cli import FAILED, relay, table
from isolate.cli.app import app
from isolate.cli.options import sandbox_of
from isolate.cli.result import exit_status, failure_status, result_dict
from isolate.completed import Completed
from isolate.plan.model import Guarantee, Op, Step
from isolate.policy.deadline import Deadline
from isolate.supervise.boxes import BoxFacts
from isolate.supervise.stats import CpuStats, IoStats, MemoryStats, PidsStats, Stats
from isolate.supervise.timeline import Sample
from isolate.supervise.timing import Timing

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("outcome", "returncode", "status"),
    [
        (Exited(0), 0, 0),
        (Exited(7), 7, 7),
        (Killed(11), -11, 139),
        (TimedOut(5.0), -9, 124),
        (LimitHit("memory", 1, 2), -9, 137),
        (LimitHit("pids", 10, 10), 3, 3),
        (Violated("mount", (), "seccomp"), -31, 159),
    ],
)
def test_the_exit_status_is_the_programs(outcome, returncode, status):
    assert exit_status(outcome, returncode) == status


@pytest.mark.parametrize(("number", "status"), [(2, 127), (13, 126), (8, 126), (12, 125)])
def test_a_program_that_cannot_be_executed_has_its_own_statuses(number, status):
    op = Op(code=OpCode.EXEC, phase=Phase.EXEC, about="exec x")
    assert failure_status(LaunchError(0, op, number)) == status


def test_all_other_failures_are_ours():
    mount = Op(code=OpCode.BIND, phase=Phase.MOUNT, about="bind x")
    for error in (
        LaunchError(0, mount, 2),
        LaunchError(0, Step(kind="open_tree", about="open x"), 2),
        HostLacks("memory", "no cgroup"),
        PolicyError("no"),
    ):
        assert failure_status(error) == FAILED == 125


def test_a_result_is_json_whatever_the_program_wrote():
    usage = Usage(wall=1.0, user=0.5, system=0.25, peak_memory=1 << 20)
    done = Completed(
        ["x", "\udcff"], -9, b"out \xff\x1b", None,
        outcome=LimitHit("memory", 5, 4), usage=usage,
        guarantees=(Guarantee("memory", "enforced", "cgroup v1"),), timing=Timing(),
        timeline=(Sample(0.0, 1, None),),
    )  # fmt: skip
    found = json.loads(json.dumps(result_dict(done)))
    hit = {"limit": "memory", "used": 5, "ceiling": 4, "whose": "box"}
    assert found["outcome"] == {"name": "LimitHit", **hit}
    assert (found["returncode"], found["exit_status"]) == (-9, 137)
    assert found["usage"]["peak_memory"] == 1 << 20
    assert found["stdout"] == "out \\xff\x1b"
    assert found["stderr"] is None
    assert found["timeline"] == [[0.0, 1, None]]
    assert found["guarantees"] == [{"name": "memory", "verdict": "enforced", "by": "cgroup v1"}]


def test_options_are_the_sandboxs():
    sandbox = sandbox_of(
        {"mem": "64M", "cpu": "0.5", "pids": "9", "timeout": "500ms", "cpu_time": "2",
         "read": ("/srv",), "env": ("A=1", "B=x=y"), "network": "none"}
    )  # fmt: skip
    limit, deadline = sandbox.policy.get(CgroupLimit), sandbox.policy.get(Deadline)
    assert (limit.memory, limit.cpu, limit.pids, limit.account) == (64 << 20, 0.5, 9, True)
    assert deadline.wall == 0.5
    assert deadline.cpu_time == 2.0
    assert sandbox.env["A"] == "1"
    assert sandbox.env["B"] == "x=y"
    assert sandbox.policy.get(Network) == Network.none()


def test_the_hosts_network_needs_its_own_word():
    with pytest.raises(PolicyError, match="--allow-host-network"):
        sandbox_of({"network": "host"})
    shared = sandbox_of({"network": "host", "allow_host_network": True})
    assert shared.policy.get(Network) == Network.host()
    # The permission alone changes nothing.
    assert sandbox_of({"allow_host_network": True}).policy.get(Network) == Network.loopback()


@pytest.mark.parametrize(
    "options",
    [{"cpu": "many"}, {"pids": "1.5"}, {"env": ("A",)}, {"mem": "lots"}, {"timeout": "-1"}],
)
def test_wrong_options_are_policy_errors(options):
    with pytest.raises(PolicyError):
        sandbox_of(options)


def test_every_command_has_its_help():
    runner = CliRunner()
    for name in ("run", "stats", "ps", "explain", "doctor", "seccomp"):
        shown = runner.invoke(app, [name, "--help"])
        assert shown.exit_code == 0, shown.output
        assert name in runner.invoke(app, ["--help"]).output
    assert "127" in runner.invoke(app, ["run", "--help"]).output


def test_a_filter_can_be_asked_for_its_verdict():
    shown = CliRunner().invoke(app, ["seccomp", "evaluate", "--arch", "x86_64", "mount", "0", "-1"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("errno")
    shown = CliRunner().invoke(app, ["seccomp", "evaluate", "--arch", "x86_64", "read"])
    assert shown.output.startswith("allow")


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_its_libraries_the_command_says_one_sentence(module, tmp_path):
    block = (
        "import sys\nclass Block:\n    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {module!r}:\n"
        f"            raise ModuleNotFoundError('gone', name={module!r})\n"
        "sys.meta_path.insert(0, Block())\nfrom isolate.cli import main\nsys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 125
    assert done.stderr == (
        f"isolate: the command needs {module}, which is not installed: "
        "pip install 'isolate-linux[cli]'\n"
    )


def test_the_library_needs_neither_of_them():
    code = "import sys, isolate; print({'click', 'rich', 'PIL', 'psutil'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "set()\n", shown.stderr


def test_an_import_that_fails_for_another_reason_is_not_hidden():
    block = (
        "import sys\nclass Block:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'isolate.cli.table':\n"
        "            raise ModuleNotFoundError('gone', name=name)\n"
        "sys.meta_path.insert(0, Block())\nfrom isolate.cli import main\nsys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def row(**stats):
    box = BoxFacts(name="isolate-1-0-00000000", owner=1, directories=(("blkio", "/"),))
    early = Stats(at=0, monotonic=1.0, source="cgroup v1", cpu=CpuStats(usage=1.0))
    late = evolve(early, monotonic=3.0, cpu=CpuStats(usage=4.0, throttled=1.25), **stats)
    return dict(zip(table.STATS.split(), table.stats_row(box, late, early), strict=True))


def test_a_row_of_the_table_is_for_a_person():
    found = row(
        memory=MemoryStats(current=32 << 20, limit=64 << 20),
        pids=PidsStats(current=3, limit=10),
        io=(IoStats(device="8:0", read=1536, written=10),),
    )
    assert found["CPU%"] == "150.0"
    assert (found["MEMORY"], found["LIMIT"], found["MEM%"]) == ("32.0 MiB", "64.0 MiB", "50.0")
    assert (found["PIDS"], found["READ"], found["WRITTEN"]) == ("3/10", "1.5 KiB", "10 B")
    assert (found["THROTTLED"], found["STATE"]) == ("1.2 s", "idle")
    assert row(frozen=True)["STATE"] == "frozen"
    assert row()["MEMORY"] == row()["LIMIT"] == row()["MEM%"] == row()["PIDS"] == "-"


def test_markup_in_a_name_is_text():
    from rich.console import Console

    box = BoxFacts(name="[red]x[/red]", owner=1)
    out = Console(width=200, file=None, record=True)
    with out.capture() as shown:
        out.print(table.stats_table([(box, Stats(at=0, monotonic=0, source="proc"))]))
    assert "[red]x[/red]" in shown.get()


def test_a_relay_copies_until_its_end_and_leaves_nothing():
    before = set(os.listdir("/proc/self/fd"))
    read_fd, write_fd = os.pipe()
    data = bytes(range(256)) * 1000
    import threading

    writer = threading.Thread(target=lambda: (os.write(write_fd, data), os.close(write_fd)))
    with relay.relayed(read_fd) as fd:
        writer.start()
        got = b""
        while chunk := os.read(fd, 65536):
            got += chunk
        writer.join()
    assert got == data
    os.close(read_fd)
    assert set(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == 1


def test_a_relay_ends_while_its_source_is_silent():
    read_fd, write_fd = os.pipe()
    with relay.relayed(read_fd):
        pass
    os.close(read_fd)
    os.close(write_fd)


def test_a_closed_stdin_is_an_empty_one():
    with relay.relayed(900) as fd:  # a number that nobody has open
        assert os.read(fd, 10) == b""


def test_the_command_is_installed_by_its_name():
    assert "isolate = isolate.cli:main" in (ROOT / "setup.cfg").read_text()
