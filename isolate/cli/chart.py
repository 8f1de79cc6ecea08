# SPDX-License-Identifier: Apache-2.0
"""A run's timeline as a picture: lines and words at places, for any writer. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from attrs import frozen

from isolate.supervise.timeline import Sample

__all__ = ["HEIGHT", "WIDTH", "Line", "Text", "chart", "cores", "ticks"]

WIDTH, HEIGHT = 800, 480
LEFT, RIGHT, TOP, BOTTOM, GAP = 90, 20, 44, 40, 44
GREY, BLUE, RED, BLACK = "#cccccc", "#1f5fa8", "#b03a2e", "#222222"
LEAST = 1e-9  # smaller spans and values are nothing
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
Point = tuple[float, float]


@frozen
class Line:
    """A line through points, in pixels from the upper left corner."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1.0


@frozen
class Text:
    """Words whose `anchor` ("start", "middle", "end") is at a point; `y` is their base line."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    size: int = 12


@frozen
class Panel:
    """One curve: its place on the page, its values and how they are written."""

    top: float
    bottom: float
    title: str
    colour: str
    values: tuple[Point, ...]
    word: Callable[[float], str]


def ticks(most: float, count: int = 5) -> list[float]:
    """Round numbers from 0 up to the first that is not below `most`."""
    if not most > LEAST or math.isinf(most):
        return [0.0, 1.0]
    rough = most / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(most / step - 1e-9) + 1)]


def byte_scale(most: float) -> tuple[float, str]:
    """The unit for sizes up to `most`: its bytes and its name."""
    power = min(len(UNITS) - 1, int(math.log(most, 1024))) if most >= 1 else 0
    return 1024.0**power, UNITS[power]


def cores(samples: Sequence[Sample]) -> tuple[Point, ...]:
    """(seconds, processors in use) between each two samples, at the later one."""
    found = []
    for early, late in zip(samples, samples[1:], strict=False):
        passed = late.at - early.at
        if early.cpu is not None and late.cpu is not None and passed > LEAST:
            found.append((late.at, max(0.0, late.cpu - early.cpu) / passed))
    return tuple(found)


def panels(samples: Sequence[Sample]) -> list[Panel]:
    """Memory above, processors below; one that isn't counted has no curve."""
    middle = TOP + (HEIGHT - TOP - BOTTOM - GAP) / 2
    memory = [(each.at, float(each.memory)) for each in samples if each.memory is not None]
    scale, unit = byte_scale(max((value for _, value in memory), default=0.0))
    sizes = tuple((at, value / scale) for at, value in memory)
    return [
        Panel(TOP, middle, f"memory, {unit}", BLUE, sizes, lambda v: f"{v:g}"),
        Panel(
            middle + GAP, HEIGHT - BOTTOM, "processors in use", RED, cores(samples),
            lambda v: f"{v:g}",
        ),
    ]  # fmt: skip


def draw(panel: Panel, times: list[float]) -> list[Line | Text]:
    """A panel's grid, words and curve."""
    marks = ticks(max((value for _, value in panel.values), default=0.0))
    across = WIDTH - LEFT - RIGHT

    def place(at: float, value: float) -> Point:
        x = LEFT + across * min(1.0, max(0.0, at / times[-1]))
        y = panel.bottom - (panel.bottom - panel.top) * value / marks[-1]
        return round(x, 2), round(y, 2)

    drawn: list[Line | Text] = [Text(LEFT, panel.top - 8, panel.title)]
    for mark in marks:
        y = place(0, mark)[1]
        drawn.append(Line(((LEFT, y), (WIDTH - RIGHT, y)), GREY))
        drawn.append(Text(LEFT - 8, y + 4, panel.word(mark), "end", 11))
    for time in times:
        x = place(time, 0)[0]
        drawn.append(Line(((x, panel.top), (x, panel.bottom)), GREY))
        drawn.append(Text(x, panel.bottom + 16, f"{time:g}", "middle", 11))
    if panel.values:
        points = tuple(place(at, value) for at, value in panel.values)
        drawn.append(Line(points, panel.colour, 1.8))
    else:
        drawn.append(Text(WIDTH / 2, (panel.top + panel.bottom) / 2, "not counted", "middle"))
    return drawn


def chart(title: str, samples: Sequence[Sample]) -> list[Line | Text]:
    """The whole picture, WIDTH by HEIGHT pixels."""
    times = ticks(max((each.at for each in samples), default=0.0), 8)
    shown = title if len(title) <= 90 else title[:89] + "…"
    drawn: list[Line | Text] = [Text(LEFT, 20, shown, "start", 14)]
    for panel in panels(samples):
        drawn += draw(panel, times)
    drawn.append(Text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "seconds", "middle"))
    return drawn
