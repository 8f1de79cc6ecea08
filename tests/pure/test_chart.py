"""The picture of a timeline: what is drawn is inside the page, and its words can do no harm."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import IsolateError, PolicyError
from isolate.cli import plotting
from isolate.cli.chart import HEIGHT, WIDTH, Line, Text, chart, cores, ticks
from isolate.cli.plotting import plotter, svg
from isolate.supervise.timeline import Sample

RAMP = [Sample(n / 10, n << 20, n / 20) for n in range(20)]
SVG = "{http://www.w3.org/2000/svg}"
samples = st.lists(
    st.tuples(
        st.floats(0, 1e5),
        st.none() | st.integers(0, 1 << 50),
        st.none() | st.floats(0, 1e6),
    ),
    max_size=30,
).map(lambda rows: [Sample(*row) for row in sorted(rows, key=lambda row: row[0])])


def test_half_a_processor_is_drawn_as_half():
    assert all(value == pytest.approx(0.5) for _, value in cores(RAMP))
    assert len(cores(RAMP)) == len(RAMP) - 1


@given(st.floats(0, 1e18))
def test_marks_are_few_and_reach_to_the_top(most):
    marks = ticks(most)
    assert marks[0] == 0
    assert marks[-1] >= most * (1 - 1e-6)
    assert 2 <= len(marks) <= 8


def test_marks_of_nothing_are_still_marks():
    assert ticks(0) == ticks(-1) == ticks(math.inf) == ticks(math.nan) == [0.0, 1.0]


@given(st.text(max_size=200), samples)
def test_all_that_is_drawn_is_on_the_page(title, rows):
    for each in chart(title, rows):
        points = each.points if isinstance(each, Line) else ((each.x, each.y),)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_what_is_not_counted_is_said():
    words = [each.text for each in chart("x", []) if isinstance(each, Text)]
    assert words.count("not counted") == 2


def test_the_svg_has_both_curves_and_no_link(tmp_path):
    path = tmp_path / "out.svg"
    plotter(str(path))("a <b> & 'c' \x1b[0m", RAMP)
    root = ElementTree.parse(path).getroot()
    lines = root.findall(f"{SVG}polyline")
    curves = [line for line in lines if line.get("stroke") != "#cccccc"]
    assert [len(curve.get("points").split()) for curve in curves] == [20, 19]
    words = [each.text for each in root.findall(f"{SVG}text")]
    assert "a <b> & 'c' ?[0m" in words
    assert "memory, MiB" in words
    assert b"href" not in path.read_bytes()


@settings(deadline=None)
@given(st.text(max_size=100))
def test_every_title_gives_an_svg_that_parses(title):
    from isolate.supervise.proctree import printable

    ElementTree.fromstring(svg(chart(printable(title), RAMP)))


def test_a_png_is_a_png(tmp_path):
    path = tmp_path / "out.png"
    plotter(str(path))("title", RAMP)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == WIDTH
    from PIL import Image

    colours = {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 20)}
    assert {(0x1F, 0x5F, 0xA8), (0xB0, 0x3A, 0x2E)} <= colours  # both curves


def test_without_pillow_a_png_is_one_clear_sentence(monkeypatch, tmp_path):
    def gone(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(plotting.importlib, "import_module", gone)
    with pytest.raises(IsolateError, match=r"isolate-linux\[plot\]"):
        plotter(str(tmp_path / "out.png"))
    plotter(str(tmp_path / "out.svg"))  # needs nothing


@pytest.mark.parametrize("name", ["out.jpg", "out", "no-such-dir/out.svg"])
def test_mistakes_are_told_before_anything_starts(name, tmp_path):
    with pytest.raises(PolicyError):
        plotter(str(tmp_path / name))
