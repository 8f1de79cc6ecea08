# SPDX-License-Identifier: Apache-2.0
"""`explain("write", path)` against boxes that try it: 500 random questions, one answer."""

import json
import os
import random
import sys
import tempfile
from pathlib import Path

import pytest

from isolate import Landlock, Mount, Policy, PolicyError, Sandbox
from isolate.plan.access import OPERATIONS

SEED = int(os.environ.get("ISOLATE_SEED", "5"))
COUNT = 500
# Tries each question without running what it asks about: execveat(AT_EXECVE_CHECK), Linux 6.14.
ASK = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def execute(path):
    argv = (ctypes.c_char_p * 2)(b"x", None)
    args = (ctypes.c_long(322), ctypes.c_long(-100), os.fsencode(path), argv, argv,
            ctypes.c_long(0x10000))
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno(), path)
def read(path):
    os.listdir(path) if os.path.isdir(path) else os.close(os.open(path, os.O_RDONLY))
def write(path):
    os.close(os.open(path, os.O_WRONLY))
def create(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)
answers = []
for operation, path in json.load(sys.stdin):
    try:
        globals()[operation](path)
        answers.append("yes")
    except OSError as error:
        answers.append(error.strerror)
print(json.dumps(answers))
"""


@pytest.fixture
def furniture():
    """Host directories outside of /tmp with every sort of thing, and the paths to ask about."""
    base = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(dir=base, prefix="build-") as name:
        root = Path(name)
        root.chmod(0o755)
        for folder in ("shown", "out", "out/inner", "hidden"):
            fill(root / folder)
        (root / "shown" / "to-out").symlink_to(root / "out")
        (root / "shown" / "to-hidden").symlink_to(root / "hidden" / "open")
        (root / "out" / "round").symlink_to("round")
        (root / "out" / "up").symlink_to("../shown/open")
        yield root


def fill(folder):
    """Files and directories of several modes, some of them of another owner."""
    folder.mkdir()
    for name, mode in (("open", 0o666), ("closed", 0o600), ("program", 0o755), ("none", 0),
                       ("odd", 0o711), ("group", 0o660)):  # fmt: skip
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(mode)
        if os.geteuid() == 0 and name == "group":
            os.chown(folder / name, 1234, 1234)
    for name, mode in (("dir", 0o755), ("shut", 0o700), ("sticky", 0o1777), ("blind", 0o311)):
        (folder / name).mkdir()
        (folder / name / "file").write_text("text")
        (folder / name).chmod(mode)
        if os.geteuid() == 0 and name == "shut":
            os.chown(folder / name, 1234, 1234)


def system_paths(rng):
    """Some of what every machine has."""
    found = [f"/usr/bin/{name}" for name in rng.sample(sorted(os.listdir("/usr/bin")), 60)]
    found += [f"/usr/lib/{name}" for name in rng.sample(sorted(os.listdir("/usr/lib")), 20)]
    found += [f"/bin/{name}" for name in ("sh", "cat", "awk", "nothing")]
    etc = "passwd shadow hosts group ld.so.cache ssl/certs machine-id sudoers".split()
    found += [f"/etc/{name}" for name in etc]
    return [*found, "/", "/usr", "/home", "/root", "/opt/x", "/var", "/var/tmp", "/etc", "/boot"]


def own_paths(root, rng):
    """Below the furniture, there and not there."""
    names = ["", "open", "closed", "program", "none", "odd", "group", "new", "dir", "dir/file",
             "dir/new", "shut/file", "shut/new", "sticky/new", "blind", "blind/file", "blind/new",
             "missing/new", "to-out/open", "to-out/new", "to-hidden", "round", "up",
             "inner/../open", "open/below"]  # fmt: skip
    folders = ["shown", "out", "out/inner", "hidden"]
    found = [os.path.join(root, folder, name).rstrip("/") for folder in folders for name in names]
    rng.shuffle(found)
    return [path for path in found if ".." not in path]


def questions(root, rng):
    """(operation, path), half of them about what the box was given."""
    private = [f"/tmp/{name}" for name in ("", "new", "a/b", "given")] + ["/dev/shm/new", "/tmp"]
    pools = (own_paths(root, rng), own_paths(root, rng), system_paths(rng), private)
    return [(rng.choice(OPERATIONS), rng.choice(rng.choice(pools))) for _ in range(COUNT)]


BOXES = {
    "view": lambda root: Sandbox(
        Mount.file("/tmp/given", b"#!/bin/sh\n", 0o755),
        read=[root / "shown"], write=[root / "out"],
    ),
    "nested": lambda root: Sandbox(
        Mount.file("/tmp/given", b"text"), read=[root / "out/inner"], write=[root / "out"]
    ),
    "landlock": lambda root: Sandbox(
        read=[root / "shown"], write=[root / "out"],
        landlock=Landlock(
            read=["/usr", "/lib", "/lib64", "/etc", "/proc", "/dev", sys.prefix, sys.base_prefix,
                  root / "out"],
            write=[root / "out/dir", root / "out/inner", "/dev/null"],
            execute=["/usr/bin", "/usr/lib", "/lib64", sys.base_prefix],
        ),
    ),
}  # fmt: skip


@pytest.mark.needs("landlock7", "x86_64")
@pytest.mark.parametrize("name", sorted(BOXES))
def test_five_hundred_random_questions_are_answered_as_the_kernel_does(furniture, name):
    rng = random.Random(SEED)
    sandbox = BOXES[name](furniture)
    asked = questions(furniture, rng)
    done = sandbox.run(
        [sys.executable, "-c", ASK], input=json.dumps(asked), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    real = json.loads(done.stdout)
    assert len(real) == COUNT
    told = [sandbox.policy.explain(*question) for question in asked]
    wrong = [
        f"{got}\n{answer}"
        for answer, got in zip(told, real, strict=True)
        if answer.allowed is not (got == "yes")
    ]
    assert not wrong, "\n".join(wrong[:10])
    assert 50 < sum(got == "yes" for got in real) < COUNT - 50  # both kinds were asked


def test_it_names_the_layers_that_refuse():
    answer = Sandbox().explain_access("write", "/etc/passwd")
    refusing = [said.layer for said in answer.layers if said.allowed is False]
    assert refusing[0] == "mounts"
    assert ("files" in refusing) is (os.geteuid() == 0)  # others' programs have init's own id
    assert not answer
    assert str(answer).startswith("write /etc/passwd: refused\n")


def test_nothing_is_run(monkeypatch):
    import isolate.supervise.launch

    def never(*_):
        raise AssertionError("a box was started")

    monkeypatch.setattr(isolate.supervise.launch.Session, "start", never)
    assert Sandbox().explain_access("read", "/usr").allowed is True


def test_what_only_a_run_can_tell_is_not_known():
    assert Sandbox().explain_access("read", "/proc/1/maps").allowed is None


def test_nonsense_is_refused():
    with pytest.raises(PolicyError, match="explain takes read, write, execute, create"):
        Policy().explain("chew", "/usr")
    with pytest.raises(PolicyError, match="absolute"):
        Policy().explain("read", "usr")


def test_a_sandbox_answers_as_its_policy_does():
    box = Sandbox()
    for operation in ("read", "write", "execute", "create"):
        asked = box.explain(operation, "/etc/passwd")
        assert asked == box.explain_access(operation, "/etc/passwd")
        assert asked == box.policy.explain(operation, "/etc/passwd")
    assert "pivot_root" in box.explain()
