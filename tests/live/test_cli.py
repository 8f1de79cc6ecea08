"""The command `isolate`, as a shell uses it: statuses, streams, JSON, pictures, lists."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest

from isolate import Sandbox

ISOLATE = [sys.executable, "-m", "isolate"]
needs_cgroup = pytest.mark.needs("cgroup1")


def isolate(*args, **options):
    return subprocess.run(
        [*ISOLATE, *map(str, args)], capture_output=True, text=True, timeout=90, **options
    )


def test_a_program_runs_inside_with_its_streams_and_status():
    done = isolate("run", "--", "sh", "-c", "cat; echo err >&2; id -u; exit 7", input="through\n")
    assert done.stdout == "through\n1000\n"
    assert done.stderr == "err\nisolate: Exited(code=7)\n"
    assert done.returncode == 7


def test_success_is_silent_and_options_of_the_program_are_its_own():
    done = isolate("run", "echo", "--mem", "-t")
    assert (done.stdout, done.stderr, done.returncode) == ("--mem -t\n", "", 0)


def test_it_really_is_a_sandbox(tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("secret")
    assert isolate("run", "cat", canary).returncode == 1
    shown = isolate("run", "--read", tmp_path, "cat", canary)
    assert shown.stdout == "secret"
    denied = isolate("run", "--read", tmp_path, "sh", "-c", f"echo x > {canary}")
    assert denied.returncode != 0
    assert canary.read_text() == "secret"
    assert isolate("run", "-w", tmp_path, "sh", "-c", f"echo x > {tmp_path}/new").returncode == 0
    assert (tmp_path / "new").read_text() == "x\n"


def test_the_network_is_its_own_unless_allowed():
    names = "print(open('/proc/net/dev').read())"
    alone = isolate("run", sys.executable, "-c", names)
    assert [line.split(":")[0].strip() for line in alone.stdout.splitlines()[2:] if line] == ["lo"]
    refused = isolate("run", "--network", "host", "true")
    assert refused.returncode == 125
    assert "--allow-host-network" in refused.stderr
    ours = os.readlink("/proc/self/ns/net")
    shared = isolate(
        "run", "--network", "host", "--allow-host-network", "readlink", "/proc/self/ns/net"
    )
    assert shared.stdout.strip() == ours


@pytest.mark.parametrize(
    ("options", "program", "status", "name"),
    [
        (["-t", "0.3"], ["sleep", "9"], 124, "TimedOut(limit=0.3)"),
        ([], ["sh", "-c", "kill -SEGV $$"], 139, "Killed"),
        ([], ["no-such-program"], 127, "LaunchError"),
        ([], ["/etc/passwd"], 126, "LaunchError"),
        (["--mem", "lots"], ["true"], 125, "PolicyError"),
        (["--no-such-option"], ["true"], 125, "No such option"),
        (["-o", "10"], ["sh", "-c", "while :; do echo xxxxxxxxxxxx; done"], 137, "LimitHit"),
    ],
)
def test_how_it_ended_is_a_status_and_a_name(options, program, status, name):
    done = isolate("run", *options, "--", *program)
    assert done.returncode == status
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_quiet_says_nothing():
    done = isolate("run", "-q", "-t", "0.2", "sleep", "9")
    assert (done.returncode, done.stderr) == (124, "")


@needs_cgroup
def test_limits_of_the_command_line_hold():
    hog = "bytearray(b'x') * (300 << 20)"
    done = isolate("run", "-m", "64M", sys.executable, "-c", hog)
    assert done.returncode == 137
    assert "LimitHit(limit='memory', used=67108864, ceiling=67108864" in done.stderr
    burn = "while True: pass"
    done = isolate("run", "--cpu-time", "0.5", sys.executable, "-c", burn)
    assert "limit='cpu_time'" in done.stderr
    seen = isolate("run", "--cpus", "0", "nproc")
    assert seen.stdout == "1\n"


def test_the_result_is_one_json_object_with_the_output():
    done = isolate("run", "--json", "sh", "-c", "echo out; echo err >&2; exit 3")
    found = json.loads(done.stdout)
    assert done.returncode == found["returncode"] == found["exit_status"] == 3
    assert found["outcome"] == {"name": "Exited", "code": 3}
    assert (found["stdout"], found["stderr"]) == ("out\n", "err\n")
    assert found["usage"]["wall"] > 0
    assert {each["name"] for each in found["guarantees"]} >= {"pid", "mount", "net"}


def test_a_run_can_be_drawn(tmp_path):
    code = "import time\nx = b'x' * (20 << 20)\nend = time.monotonic() + .5\n" \
           "while time.monotonic() < end: pass"  # fmt: skip
    for name in ("out.svg", "out.png"):
        argv = ["run", "--plot", tmp_path / name, "--timeline", "20ms", sys.executable, "-c", code]
        assert isolate(*argv).returncode == 0
    root = ElementTree.parse(tmp_path / "out.svg").getroot()
    curves = [each for each in root.iter() if each.get("stroke") not in (None, "#cccccc")]
    assert [len(curve.get("points").split()) > 3 for curve in curves] == [True, True]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    wrong = isolate("run", "--plot", tmp_path / "out.gif", "touch", "/tmp/x")
    assert wrong.returncode == 125
    assert ".svg or .png" in wrong.stderr


def find(boxes, owner):
    return [each for each in boxes if each["owner"] == owner]


def test_stats_lists_boxes_of_other_processes():
    with Sandbox(pids=17) as box, box.popen(["/bin/sleep", "50"]) as program:
        done = isolate("stats", "--no-stream", "--json")
        mine = find(json.loads(done.stdout), os.getpid())
        assert len(mine) == 1
        assert mine[0]["init"] == box.pid
        assert program.pid in mine[0]["pids"]
        assert mine[0]["stats"]["pids"]["current"] == 1
        assert mine[0]["cores"] is None or mine[0]["cores"] < 0.5
        if os.geteuid() == 0:
            assert mine[0]["stats"]["pids"]["limit"] == 17
        shown = isolate("stats", "--no-stream").stdout
        assert shown.split()[:3] == ["BOX", "OWNER", "CPU%"]
        assert any(str(os.getpid()) in line for line in shown.splitlines()[1:])
        program.kill()
    done = isolate("stats", "--no-stream", "--json")
    assert find(json.loads(done.stdout), os.getpid()) == []


@needs_cgroup
def test_stats_shows_a_frozen_and_a_burning_box():
    with Sandbox(cpu=0.5) as box, box.popen(["/bin/sh", "-c", "while :; do :; done"]) as program:
        seen = json.loads(isolate("stats", "--no-stream", "--json").stdout)
        assert find(seen, os.getpid())[0]["cores"] > 0.1
        box.freeze()
        seen = json.loads(isolate("stats", "--no-stream", "--json").stdout)
        assert find(seen, os.getpid())[0]["stats"]["frozen"]
        box.thaw()
        program.kill()


def test_stats_streams_json_lines_until_it_is_stopped():
    argv = [*ISOLATE, "stats", "--json", "--interval", "100ms"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as stream:
        lines = [json.loads(stream.stdout.readline()) for _ in range(3)]
        assert all(isinstance(line, list) for line in lines)
        stream.send_signal(signal.SIGINT)
        assert stream.wait(20) == 130
        assert b"Traceback" not in stream.stderr.read()


def test_stats_is_a_live_table_on_a_terminal():
    leader, follower = pty.openpty()
    argv = [*ISOLATE, "stats", "--interval", "100ms"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    with Sandbox() as box, box.popen(["/bin/sleep", "50"]) as program:
        table = subprocess.Popen(argv, stdout=follower, stderr=follower, stdin=follower, env=env)
        os.close(follower)
        shown = b""
        end = time.monotonic() + 30
        while shown.count(str(os.getpid()).encode()) < 4 and time.monotonic() < end:
            shown += os.read(leader, 65536)
        table.send_signal(signal.SIGINT)
        assert b"THROTTLED" in shown
        assert shown.count(str(os.getpid()).encode()) >= 4  # painted more than once
        try:
            while os.read(leader, 65536):
                pass
        except OSError:
            pass  # EIO: the other end is closed, the table has ended
        assert table.wait(20) == 130
        os.close(leader)
        program.kill()


def test_a_reader_that_goes_away_ends_the_stream_quietly():
    argv = [*ISOLATE, "stats", "--json", "--interval", "100ms"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as stream:
        stream.stdout.readline()
        stream.stdout.close()
        assert stream.wait(20) == 1  # as click has it
        assert stream.stderr.read() == b""


def test_ps_shows_what_runs_and_no_escape_sequences():
    evil = "\x1b[2Jevil"
    with Sandbox() as box, box.popen(["/bin/sh", "-c", "sleep 50; :", evil]) as program:
        found = find(json.loads(isolate("ps", "--json").stdout), os.getpid())
        shown = isolate("ps").stdout
        assert len(found) == 1
        commands = [each["command"] for each in found[0]["processes"]]
        assert any("sleep 50" in command for command in commands)
        assert "\x1b" not in shown + "".join(commands)
        assert "?[2Jevil" in shown
        box.kill()
        program.wait(20)


def test_explain_starts_nothing_and_names_what_would_be_done():
    done = isolate("explain", "--hostname", "other", "/no/such/program")
    assert done.returncode == 0
    for word in ("SETHOSTNAME", "EXEC", "guarantees:", "no_new_privs"):
        assert word in done.stdout


def test_doctor_finds_what_this_machine_has():
    done = isolate("doctor")
    assert done.returncode == 0
    assert "user namespaces" in done.stdout
    found = {each["name"]: each for each in json.loads(isolate("doctor", "--json").stdout)}
    assert found["kernel"]["ok"]
    if os.geteuid() == 0:
        assert found["memory"]["ok"]
    for each in found.values():
        assert each["ok"] or (each["why"] and each["cure"])


def test_ctrl_c_ends_the_run_and_all_that_is_in_it():
    argv = [*ISOLATE, "run", "sh", "-c", "echo go; sleep 300 & sleep 300"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"go\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert b"Traceback" not in running.stderr.read()


def test_the_script_is_the_module():
    script = os.path.join(os.path.dirname(sys.executable), "isolate")
    assert subprocess.run([script, "--version"], capture_output=True).stdout == (
        subprocess.run([*ISOLATE, "--version"], capture_output=True).stdout
    )
