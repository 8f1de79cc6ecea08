# SPDX-License-Identifier: Apache-2.0
"""A timeline into a file: SVG by ourselves, PNG by Pillow, which is the extra `plot`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any
from xml.sax.saxutils import escape

from isolate.cli.chart import HEIGHT, WIDTH, Line, Text, chart
from isolate.errors import IsolateError, PolicyError
from isolate.supervise.proctree import printable
from isolate.supervise.timeline import Sample

__all__ = ["plotter", "svg"]

Drawing = Sequence[Line | Text]
BLACK = "#222222"


def svg(drawing: Drawing) -> bytes:
    """A picture as SVG 1.1, without any reference to the outside."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" fill="{BLACK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for each in drawing:
        if isinstance(each, Line):
            points = " ".join(f"{x:g},{y:g}" for x, y in each.points)
            lines.append(
                f'<polyline fill="none" stroke="{each.colour}" stroke-width="{each.width:g}" '
                f'points="{points}"/>'
            )
        else:
            lines.append(
                f'<text x="{each.x:g}" y="{each.y:g}" font-size="{each.size}" '
                f'text-anchor="{each.anchor}">{escape(each.text)}</text>'
            )
    return "\n".join([*lines, "</svg>", ""]).encode("utf-8", "replace")


def png_library() -> tuple[Any, Any, Any]:
    """Pillow's parts. Raises: IsolateError that says how to get it."""
    try:
        names = ("PIL.Image", "PIL.ImageDraw", "PIL.ImageFont")
        image, draw, font = (importlib.import_module(name) for name in names)
    except ModuleNotFoundError as error:
        raise IsolateError(
            "a PNG needs Pillow, which is not installed: pip install 'isolate-linux[plot]', "
            "or draw an SVG, which needs nothing"
        ) from error
    return image, draw, font


def png_writer() -> Callable[[Drawing, str], None]:
    """A function that writes a picture as PNG. Raises: IsolateError without Pillow."""
    image, draw, font = png_library()
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}

    def write(drawing: Drawing, path: str) -> None:
        page = image.new("RGB", (WIDTH, HEIGHT), "#ffffff")
        pen = draw.Draw(page)
        for each in drawing:
            if isinstance(each, Line):
                pen.line(each.points, fill=each.colour, width=round(each.width), joint="curve")
            else:
                face = font.load_default(each.size)
                where = (each.x, each.y)
                pen.text(where, each.text, fill=BLACK, font=face, anchor=anchors[each.anchor])
        page.save(path, "PNG")

    return write


def write_svg(drawing: Drawing, path: str) -> None:
    """Into a file."""
    with open(path, "wb") as file:
        file.write(svg(drawing))


def plotter(path: str) -> Callable[[str, Sequence[Sample]], None]:
    """What draws a title and a timeline into `path`; made before the run, so that mistakes are
    told before anything starts.

    Raises: PolicyError for another ending than .svg and .png, or a directory that isn't there;
    IsolateError for .png without Pillow.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending not in (".svg", ".png"):
        raise PolicyError(f"--plot takes a name that ends in .svg or .png, not {path!r}")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise PolicyError(f"--plot {path}: there is no such directory")
    write = write_svg if ending == ".svg" else png_writer()
    return lambda title, samples: write(chart(printable(title), samples), path)
