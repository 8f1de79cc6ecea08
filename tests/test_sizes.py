# SPDX-License-Identifier: Apache-2.0
"""Files and functions that a person can hold in mind."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "isolate"


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


def test_every_test_file_holds_a_test():
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert "def test_" in path.read_text(), path
