# SPDX-License-Identifier: Apache-2.0
"""The shape of the house: floors, sizes, and what is public."""

import ast
from pathlib import Path

import isolate

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "isolate"
FLOORS = {
    "errors": 0,
    "abi": 0,
    "policy": 1,
    "profiles": 1,
    "host": 1,
    "plan": 2,
    "native": 3,
    "_native": 3,
    "supervise": 4,
    "worker": 5,
}
TOP = 6
PUBLIC = """
    INFINITY INHERIT Action Arg Box CapabilitySet CgroupLimit Chroot Completed
    CpuTimeLimitExceeded Errno Exited FileSizeLimitExceeded Guarantee HostLacks IdMap
    IsolateError Killed LaunchError LimitExceeded LimitHit MemoryLimitExceeded Mount
    Namespace Network OutputLimitExceeded PidsLimitExceeded Policy PolicyConflict
    PolicyError Popen RemoteError ReplyError Rlimit Rule Sandbox SeccompFilter
    SandboxViolation TimeLimitExceeded TimedOut Unsandboxed Usage Violated allow call
    outside run
"""


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "isolate":
            if node.module == "isolate":
                yield from (f"isolate.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "isolate")


def test_imports_go_down_the_floors():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).with_suffix("").parts[0]
        floor = FLOORS.get(here, TOP)
        for module in imports(path):
            there = room(module)
            other = FLOORS.get(there, TOP)
            siblings = {here, there} == {"policy", "host"}
            if other > floor or siblings:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_files_and_functions_fit_a_screen():
    wrong = []
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "_native").glob("*.[ch]")]:
        text = path.read_text()
        most = 400 if path.suffix == ".py" else 300
        if text.count("\n") > most:
            wrong.append(f"{path.relative_to(ROOT)} has more than {most} lines")
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                wrong.append(f"{path.relative_to(ROOT)}: {node.name} is too long")
    assert not wrong


def test_every_public_name_says_what_it_is():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                wrong.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not wrong


def test_the_public_names_are_these():
    assert sorted(isolate.__all__) == sorted(PUBLIC.split())
    assert all(hasattr(isolate, name) for name in PUBLIC.split())


def test_tests_are_as_long_as_they_say():
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert "def test_" in path.read_text(), path
