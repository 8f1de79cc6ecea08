# SPDX-License-Identifier: Apache-2.0
"""One name on every floor: a primitive of the policy is lowered, run, tested and documented."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from attrs import fields

import isolate
from isolate import policy as package
from isolate.abi.ops import OpCode
from isolate.policy.base import Primitive

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = (
    "Example",
    "Fields",
    "What it does not stop",
    "Needs",
    "When it fails",
    "Source",
)
# Which op of which child file does it; the file is found by the op's function.
OPS = {
    "namespace": "SETNS",
    "chroot": "PIVOT_ROOT",
    "mount": "MOUNT_NEW",
    "cgroup": "JOIN_CGROUP",
    "seccomp": "SECCOMP",
    "capabilities": "CAPSET",
    "rlimit": "RLIMIT",
    "network": "LOOPBACK_UP",
    "landlock": "LANDLOCK_RESTRICT",
    "apparmor": "APPARMOR",
}


def primitives():
    """Every public primitive, by the name of its module, wherever it was added."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for name, each in vars(module).items():
            own = inspect.isclass(each) and each.__module__ == module.__name__
            public = getattr(isolate, name, None) is each
            if own and public and issubclass(each, Primitive) and each is not Primitive:
                found[info.name] = each
    return found


FOUND = primitives()
PAGES = ROOT / "docs" / "primitives"


def test_the_primitives_of_the_design_are_found():
    assert set(FOUND) >= {
        "namespace", "chroot", "mount", "cgroup", "seccomp", "capabilities", "rlimit", "network",
    }  # fmt: skip
    assert set(FOUND) <= set(OPS), "a new primitive: say in OPS which op does it"


@pytest.mark.parametrize("name", sorted(FOUND))
def test_a_primitive_is_lowered_by_a_module_of_its_name(name):
    module = importlib.import_module(f"isolate.plan.lower.{name}")
    verbs = [each for each in module.__all__ if each.startswith("lower")]
    assert verbs, f"plan/lower/{name}.py exports nothing that lowers"
    assert FOUND[name].__name__ in inspect.getsource(module)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_an_op_of_the_child_does_it(name):
    code = OpCode[OPS[name]]
    step = re.compile(rf"^long op_{code.name.lower()}\(", re.MULTILINE)
    files = [path for path in (ROOT / "_native").glob("child*.c") if step.search(path.read_text())]
    assert len(files) == 1, f"op_{code.name.lower()}"
    assert f"OpCode.{code.name}" in "".join(
        path.read_text() for path in (ROOT / "isolate" / "plan").rglob("*.py")
    )


@pytest.mark.parametrize("name", sorted(FOUND))
def test_it_has_live_tests_that_assert_from_inside(name):
    text = (ROOT / "tests" / "live" / f"test_{name}.py").read_text()
    assert text.count("\ndef test_") >= 3
    assert FOUND[name].__name__ in text
    assert "run(" in text


def page(name):
    return (PAGES / f"{name}.md").read_text()


@pytest.mark.parametrize("name", sorted(FOUND))
def test_it_has_a_page_with_the_seven_headings(name):
    text = re.sub(r"```.*?```", "", page(name), flags=re.DOTALL)
    assert re.findall(r"^# (.+)$", text, re.MULTILINE) == [FOUND[name].__name__]
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == HEADINGS
    assert "```python" in page(name)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_its_page_names_every_field(name):
    section = page(name).split("## Fields")[1].split("\n## ")[0]
    missing = [each.name for each in fields(FOUND[name]) if f"`{each.name}`" not in section]
    assert not missing


def test_every_page_is_of_a_primitive():
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(FOUND)
