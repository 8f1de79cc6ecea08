# SPDX-License-Identifier: Apache-2.0
"""A module imports only from lower floors; policy and host don't know each other."""

import ast
from pathlib import Path

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


def test_every_floor_is_a_room_that_exists():
    rooms = {path.stem for path in PACKAGE.glob("*.py")}
    rooms |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(FLOORS) - {"_native"} <= rooms
