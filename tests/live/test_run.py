# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import isolate
from isolate import (
    Chroot,
    Exited,
    HostLacks,
    Killed,
    LaunchError,
    LimitHit,
    Mount,
    Namespace,
    PolicyError,
    Sandbox,
    TimedOut,
    Unsandboxed,
    allow,
)


def sh(script, sandbox=None, **options):
    """A shell script in a box; stdout, stripped."""
    done = (sandbox or Sandbox()).run(
        ["sh", "-c", script], capture_output=True, text=True, **options
    )
    return done.stdout.strip()


def test_a_program_runs_like_subprocess_run():
    done = Sandbox().run(["sh", "-c", "cat; echo err >&2; exit 3"], input="in", text=True,
                         capture_output=True)  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("in", "err\n", 3)
    assert done.outcome == Exited(3)
    assert isinstance(done, subprocess.CompletedProcess)


def test_output_goes_to_the_caller_unless_captured(capfd):
    done = Sandbox().run(["echo", "seen"])
    assert done.stdout is None
    assert capfd.readouterr().out == "seen\n"


def test_stderr_can_go_where_stdout_goes():
    done = Sandbox().run(
        ["sh", "-c", "echo a; echo b >&2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.stdout == b"a\nb\n"


def test_only_stderr_can_be_captured(capfd):
    done = Sandbox().run(["sh", "-c", "echo a; echo b >&2"], stderr=subprocess.PIPE)
    assert (done.stdout, done.stderr) == (None, b"b\n")
    assert capfd.readouterr().out == "a\n"


def test_a_signal_is_told_by_name():
    done = Sandbox().run(["sh", "-c", "kill -SEGV $$"])
    assert done.outcome == Killed(signal.SIGSEGV)
    assert done.returncode == -signal.SIGSEGV


def test_a_timeout_ends_what_ignores_sigterm():
    script = "trap '' TERM; while :; do sleep 1; done"
    done = Sandbox().run(["sh", "-c", script], timeout="300ms")
    assert done.outcome == TimedOut(0.3)


def test_check_raises_what_subprocess_raises():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        Sandbox().run(["false"], check=True)
    assert caught.value.outcome == Exited(1)
    with pytest.raises(subprocess.TimeoutExpired):
        Sandbox(timeout=0.2).run(["sleep", "9"], check=True)


def test_inside_there_is_one_process_and_no_privilege():
    text = sh("echo $$; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; ls /proc | grep -c '^[0-9]'")
    lines = text.splitlines()
    assert int(lines[0]) < 5
    caps = [line.split()[1] for line in lines if line.startswith("Cap")]
    assert len(caps) == 5
    assert set(caps) == {"0" * 16}
    assert "NoNewPrivs:\t1" in lines
    assert int(lines[-1]) < 6


def test_namespaces_are_others_than_the_callers():
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        ours = os.readlink(f"/proc/self/ns/{kind}")
        assert sh(f"readlink /proc/self/ns/{kind}") not in ("", ours)


def test_files_of_the_host_are_not_there(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("canary")
    secret.chmod(0o644)
    for path in (secret, "/etc/shadow", "/root/.bashrc", "/etc/machine-id"):
        assert sh(f"cat {path} 2>/dev/null || echo none") == "none"
    assert "root:x:0:0" in sh("cat /etc/passwd")
    assert len(sh("cat /etc/passwd").splitlines()) == 3


def test_nothing_but_tmp_can_be_written():
    for path in ("/x", "/usr/x", "/etc/x", "/dev/x", "/proc/sys/kernel/hostname", "/home/x"):
        assert sh(f"(echo 1 > {path}) 2>/dev/null && echo written || echo refused") == "refused"
    assert sh("echo 1 > /tmp/x && echo 2 > /dev/shm/y && cat /tmp/x /dev/shm/y") == "1\n2"


def test_the_host_stays_as_it_was():
    sh("echo 1 > /tmp/isolate-leak; mkdir /dev/shm/isolate-leak")
    assert not os.path.exists("/tmp/isolate-leak")
    assert not os.path.exists("/dev/shm/isolate-leak")


def test_proc_is_masked():
    assert sh("head -c1 /proc/kcore 2>/dev/null | wc -c") == "0"
    assert sh("cat /proc/timer_list 2>/dev/null | wc -c") == "0"
    assert sh("echo x > /proc/sysrq-trigger 2>/dev/null && echo bad || echo refused") == "refused"


def test_devices_work():
    assert sh("head -c4 /dev/zero | od -An -tx1 | tr -d ' '") == "00000000"
    assert sh("echo x > /dev/null && head -c8 /dev/urandom | wc -c") == "8"
    assert sh("ls /dev | tr '\\n' ' '") == (
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    )


def test_the_environment_is_made_from_nothing(monkeypatch):
    monkeypatch.setenv("SECRET", "canary")
    text = sh("env")
    assert "canary" not in text
    names = {line.split("=")[0] for line in text.splitlines()}
    assert names <= {"PATH", "HOME", "TMPDIR", "LANG", "PWD", "_", "SHLVL", "OLDPWD"}
    assert sh("echo $A", Sandbox(env={"A": "b"})) == "b"


def test_descriptors_of_the_caller_are_closed(tmp_path):
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert sh("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is ls's own


def test_the_network_is_a_loopback_of_its_own():
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    with server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        done = Sandbox().run([sys.executable, "-c", code], capture_output=True)
    assert b"ConnectionRefusedError" in done.stderr
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "socket.create_connection(s.getsockname(), 2); print('self')"
    )
    assert Sandbox().run([sys.executable, "-c", code], capture_output=True).stdout == b"self\n"


def test_read_and_write_grant_just_that(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a").write_text("hello")
    (tmp_path / "other").write_text("no")
    box = Sandbox(read=[tmp_path / "in"], write=[tmp_path / "out"])
    text = sh(
        f"cat {tmp_path}/in/a; cat {tmp_path}/other; touch {tmp_path}/in/b;"
        f"echo made > {tmp_path}/out/c; exit 0",
        box,
    )
    assert text == "hello"
    made = tmp_path / "out" / "c"
    assert made.read_text() == "made\n"
    assert made.stat().st_uid == os.geteuid()
    assert not (tmp_path / "in" / "b").exists()


def test_files_are_put_where_the_program_starts():
    assert sh("cat in.txt", Sandbox(files={"in.txt": b"data"})) == "data"
    assert sh("./go", Sandbox(files={"go": "#!/bin/sh\necho ran"})) == "ran"


def test_a_missing_grant_is_told_before_anything_starts():
    with pytest.raises(LaunchError, match=r"/no/such") as caught:
        Sandbox(read=["/no/such"]).run(["true"])
    assert isinstance(caught.value.origin, Chroot)


def test_a_missing_program_names_the_op():
    with pytest.raises(LaunchError, match="exec nope") as caught:
        Sandbox().run(["nope"])
    assert caught.value.errno == 2
    assert caught.value.op.code.name == "EXEC"


def test_a_file_that_is_no_program_is_refused():
    with pytest.raises(LaunchError, match="exec"):
        Sandbox().run(["/etc/passwd"])


def test_a_failed_mount_names_the_primitive_that_asked():
    absent = Mount.bind("/no/such/source", "/x")
    with pytest.raises(LaunchError) as caught:
        Sandbox(absent).run(["true"])
    assert caught.value.origin == absent
    assert caught.value.errno == 2


def test_a_directory_can_be_the_root(tmp_path):
    (tmp_path / "here").write_text("x")
    root = Chroot(tmp_path, mounts=[Mount.bind("/usr", "/usr")])
    for name in ("bin", "lib", "lib64"):
        (tmp_path / name).symlink_to(f"usr/{name}")
    (tmp_path / "usr").mkdir()
    tmp_path.chmod(0o755)
    done = Sandbox(root, cwd="/").run(["ls", "/"], capture_output=True, text=True)
    assert done.stdout.split() == ["bin", "here", "lib", "lib64", "usr"]


def test_a_link_in_the_root_does_not_lead_out(tmp_path):
    canary = tmp_path / "canary"
    canary.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(canary)
    done_or_error = None
    try:
        Sandbox(Chroot(root, writable=True, mounts=[Mount.dir("/out/made")]), cwd="/").run(["true"])
    except LaunchError as error:
        done_or_error = error
    assert done_or_error is not None  # there is no program in it, at the least
    assert not (canary / "made").exists()


def test_a_box_is_one_place_and_all_of_it_ends():
    with Sandbox() as box:
        assert sh("echo 1 > /tmp/a; sleep 300 >/dev/null 2>&1 & echo started", box) == "started"
        assert sh("cat /tmp/a; pgrep -c sleep", box) == "1\n1"
        pid = box.pid
        assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(f"/proc/{pid}")
    with pytest.raises(isolate.IsolateError, match="ended"):
        box.run(["true"])


def test_a_daemon_does_not_hold_a_run():
    done = Sandbox(timeout=20).run(["sh", "-c", "setsid sleep 300 & echo x"], capture_output=True)
    assert done.stdout == b"x\n"
    assert done.usage.wall < 10


def test_a_stream_of_100_megabytes_is_identical():
    block = os.urandom(1 << 20)
    data = block * 100
    done = Sandbox().run(["cat"], input=data, capture_output=True)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_a_flood_ends_at_the_output_limit():
    done = Sandbox(output="1M", timeout=20).run(["yes"], capture_output=True)
    assert isinstance(done.outcome, LimitHit)
    assert done.outcome.limit == "output"
    assert len(done.stdout) <= 1 << 20


def test_a_file_that_is_too_large_ends_it():
    done = Sandbox(files_size="1M", timeout=20).run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"
         "open('/tmp/x', 'wb').write(b'x' * (2 << 20))"]
    )  # fmt: skip
    assert done.outcome == LimitHit("files_size", None, 1 << 20)


def test_endless_work_ends_at_the_cpu_limit():
    weak = {"cpu_time"}  # one process is held without a cgroup too
    done = Sandbox(cpu_time=0.5, timeout=20, weaken=weak).run(["sh", "-c", "while :; do :; done"])
    assert isinstance(done.outcome, LimitHit)
    assert done.outcome.limit == "cpu_time"


def test_many_threads_launch_at_once():
    results = []

    def work():
        results.extend(Sandbox().run(["true"]).returncode for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 80


def test_ignored_sigchld_loses_nothing():
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert Sandbox().run(["sh", "-c", "exit 7"]).returncode == 7
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_a_fork_of_the_caller_can_launch():
    with Sandbox() as box:
        pid = os.fork()
        if pid == 0:
            try:
                ok = Sandbox().run(["sh", "-c", "exit 5"]).returncode == 5
                with pytest.raises(isolate.IsolateError):
                    box.run(["true"])
                box.close()  # not ours to end
                os._exit(0 if ok else 1)
            finally:
                os._exit(9)
        assert os.waitpid(pid, 0)[1] == 0
        assert box.run(["true"]).returncode == 0


@pytest.mark.needs("userns", "pidns")
def test_the_box_dies_with_its_host_process():
    code = (
        "import time\nfrom isolate import Sandbox\n"
        "with Sandbox() as box:\n"
        "    box.run(['sh', '-c', 'setsid sleep 300 >/dev/null 2>&1 &'])\n"
        "    print(box.pid, flush=True)\n    time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(host.stdout.readline())
    init = os.pidfd_open(pid)
    host.kill()
    host.wait()
    host.stdout.close()
    import select

    poller = select.poll()
    poller.register(init, select.POLLIN)
    assert poller.poll(1000)
    os.close(init)
    # The next start of the library collects stale leaves.
    code = "from isolate import Sandbox; Sandbox(pids=9).run(['true'])"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bare_primitives_do_what_they_say():
    if os.geteuid() == 0:
        bare = Namespace(uts=True, hostname="bare")
    else:
        bare = Namespace(user=True, uts=True, hostname="bare")
    with bare:
        done = isolate.run(["sh", "-c", "uname -n; readlink /proc/self/ns/pid"],
                           capture_output=True, text=True)  # fmt: skip
    name, pid_ns = done.stdout.split()
    assert name == "bare"
    assert pid_ns == os.readlink("/proc/self/ns/pid")
    assert os.uname().nodename != "bare"


def test_an_ordinary_start_inside_a_block_is_refused():
    with Namespace(net=True):
        with pytest.raises(Unsandboxed, match=r"isolate\.run"):
            subprocess.run(["true"])
        with pytest.raises(Unsandboxed):
            os.system("true")
        with isolate.outside():
            assert subprocess.run(["true"]).returncode == 0
    assert subprocess.run(["true"]).returncode == 0


def test_sharing_needs_its_token():
    with pytest.raises(PolicyError, match=r"allow\.HostNetwork"):
        Sandbox(net=False)
    box = Sandbox(net=False, allow=[allow.HostNetwork()])
    assert sh("readlink /proc/self/ns/net", box) == os.readlink("/proc/self/ns/net")


def test_capabilities_need_their_token():
    with pytest.raises(PolicyError, match=r"allow\.Capabilities"):
        Sandbox(caps=["CHOWN"])
    box = Sandbox(caps=["NET_BIND_SERVICE"], allow=[allow.Capabilities()])
    assert "0000000000000400" in sh("grep CapEff /proc/self/status", box)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Sandbox(memory="64M"), "memory"),
        (lambda: Sandbox(mem="64 pounds"), "size"),
        (lambda: Sandbox().run([]), "empty"),
        (lambda: Sandbox().run("ls -l"), "list"),
        (lambda: Sandbox().run(["a\0b"]), "NUL"),
        (lambda: Sandbox().run(["cat"], stdin=9999), "not an open file"),
        (lambda: Sandbox(Chroot("/a"), root="/b"), "two roots"),
        (lambda: Sandbox(allow=["network"]), "tokens"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(make, names):
    with pytest.raises(PolicyError, match=names):
        make()


@pytest.mark.needs("root")
def test_two_boxes_have_different_host_ids():
    with Sandbox() as a, Sandbox() as b:
        ids = []
        for box in (a, b):
            text = Path(f"/proc/{box.pid}/uid_map").read_text()
            ids.append({int(line.split()[1]) for line in text.splitlines()})
    assert not ids[0] & ids[1]
    assert all(number >= 1 << 30 for each in ids for number in each)


@pytest.mark.needs("unprivileged")
def test_memory_without_delegation_is_refused_or_weakened():
    with pytest.raises(HostLacks, match="systemd-run|chown"):
        Sandbox(mem="64M").run(["true"])
    done = Sandbox(mem="64M", weaken={"memory"}).run(["true"])
    assert [g.verdict for g in done.guarantees if g.name == "memory"] == ["weakened"]


@pytest.mark.needs("gcc", "git", "sqlite3")
def test_real_tools_work_inside(tmp_path):
    (tmp_path / "a.c").write_text('#include <stdio.h>\nint main(void){puts("built");}\n')
    script = (
        f"cd {tmp_path} && gcc -o a a.c && ./a && tar cf a.tar a.c && tar tf a.tar &&"
        "git init -q g && cd g && git -c user.name=x -c user.email=x@x commit -q --allow-empty"
        " -m one && git log --oneline | wc -l && sqlite3 d 'create table t(x); insert into t"
        " values(42); select x from t'"
    )
    done = Sandbox(write=[tmp_path]).run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["built", "a.c", "1", "42"], done.stderr


def test_a_stdlib_test_passes_inside():
    code = (
        "import json, unittest\n"
        "class T(unittest.TestCase):\n"
        "    def test(self):\n"
        "        self.assertEqual(json.loads('[1]'), [1])\n"
        "unittest.main()\n"
    )
    done = Sandbox().run([sys.executable, "-c", code], capture_output=True)
    assert b"OK" in done.stderr
