"""The example of docs/statistics.md does what it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/statistics.md"


@pytest.mark.needs("cgroup1")
def test_the_example_runs(capfd):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], str(PAGE), "exec"), {"__name__": "example"})
    lines = capfd.readouterr().out.splitlines()
    first = [int(each) for each in (lines[0].split()[0], lines[0].split()[1])]
    assert first[1] == 256 << 20
    assert len(lines) >= 4
