# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/primitives run, and the pages have their seven headings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "primitives"
HEADINGS = ["Example", "Fields", "What it does not stop", "Needs", "When it fails", "Source"]


@pytest.mark.parametrize("name", ["landlock", "apparmor"])
def test_the_page_has_its_headings_in_order(name):
    text = (DOCS / f"{name}.md").read_text()
    assert re.findall(r"^# (.*)$", text, re.MULTILINE)[0] in ("Landlock", "AppArmorProfile")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("name", ["landlock", "apparmor"])
def test_the_examples_run(name):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{name}.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        assert f"'{name}'" in done.stdout
