"""What the pages say of the filter is what the code has."""

import re
from pathlib import Path

from isolate.plan.lower.seccomp_notify import NOISE
from tests.live.cpython import EXPLAINED, MODULES, explained

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(page):
    """The cells of a page's tables, but for their heads."""
    lines = (DOCS / page).read_text().splitlines()
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| `")
    ]


def test_what_may_differ_of_cpythons_tests_is_listed_in_the_page():
    assert dict(rows("python-tests.md")) == EXPLAINED


def test_the_page_names_every_module_that_is_run():
    text = (DOCS / "python-tests.md").read_text()
    for module in MODULES:
        assert f"`{module}`" in text


def test_only_sockets_differ_and_no_pattern_takes_all_of_a_module():
    for pattern in EXPLAINED:
        assert pattern.startswith("test_socket.")
        assert pattern.strip("*") != "test_socket."
    for name in ("GeneralModuleTests.testClose", "BasicTCPTest.testRecv", "NonBlockingTCPTests.x"):
        assert explained("test_socket", f"test.test_socket.{name}") is None


def test_calls_that_are_not_reported_are_named_in_the_page():
    text = (DOCS / "primitives" / "seccomp.md").read_text()
    for name in NOISE:
        assert re.search(rf"\b{name}\b", text), name
