"""The pages of the documentation: links resolve, and each page is in the index."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FOLDERS = "docs|tests|tools|isolate|_native|examples|bench"
NAMED = re.compile(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]+\.\w+)")
NUMBER = re.compile(r"docs/adr/(\d{4})(?![\w-])")


def anchors(text):
    """The headings of a page, as links name them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_resolves(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page):
    for name in NAMED.findall(page.read_text()):
        assert (ROOT / name).exists(), name
    for number in NUMBER.findall(page.read_text()):
        assert list((ROOT / "docs" / "adr").glob(f"{number}-*.md")), number


def test_decisions_are_numbered_once():
    numbers = [path.name[:4] for path in (ROOT / "docs" / "adr").glob("*.md")]
    assert len(numbers) == len(set(numbers))
    for path in (ROOT / "docs" / "adr").glob("*.md"):
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    entries = [line for line in index.splitlines() if re.fullmatch(r"[\w*/-]+", line)]
    found = {path for entry in entries for path in (ROOT / "docs").glob(f"{entry}.md")}
    assert found | {ROOT / "docs" / "index.md"} == set((ROOT / "docs").rglob("*.md"))
