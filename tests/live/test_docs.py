"""Every example of the documentation runs, as it stands."""

import re
from pathlib import Path

import pytest

from tests.conftest import FEATURES

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>[\w, -]+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples():
    for path in PAGES:
        for number, match in enumerate(BLOCK.finditer(path.read_text())):
            name = f"{path.relative_to(ROOT)}:{number}"
            needs = [each.strip() for each in (match["needs"] or "").split(",") if each.strip()]
            marks = [pytest.mark.needs(*needs)] if needs else []
            yield pytest.param(match["code"], id=name, marks=marks)


@pytest.mark.parametrize("code", list(examples()))
def test_an_example_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profile.json").write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}'
    )
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_examples_name_features_that_exist():
    for path in PAGES:
        for match in BLOCK.finditer(path.read_text()):
            for name in (match["needs"] or "").split(","):
                assert not name.strip() or name.strip() in FEATURES
