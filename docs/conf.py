# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds these pages; `make docs`. The pages are Markdown, read by myst-parser."""

import re

project = "isolate"
author = "the isolate developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Untrusted Python callables and programs in Linux sandboxes",
    "page_width": "1100px",
}
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# "Attributes:" and the annotation of the same attrs field would be told twice.
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "notes_style"), ("Example", "example")]
# A fence's language that is no language, and names that docstrings write without a link.
suppress_warnings = ["misc.highlighting_failure"]


def indent(line):
    """How far a line is in."""
    return len(line) - len(line.lstrip())


def joined(lines):
    """A line that goes on below, further in, in one; but not the items of a section."""
    found = []
    for line in lines:
        before = found[-1] if found else ""
        goes_on = line.strip() and before.strip() and indent(line) > indent(before)
        if goes_on and not before.rstrip().endswith(":"):
            found[-1] = f"{before.rstrip()} {line.strip()}"
        else:
            found.append(line)
    return found


def escaped(line):
    """Plain text with `code`, in reStructuredText."""
    parts = re.split(r"(`+[^`]+`+)", line)
    for i, part in enumerate(parts):
        if part.startswith("`"):
            parts[i] = f"``{part.strip('`')}``"
        else:
            parts[i] = re.sub(r"([*|]|(?<=\w)_(?=\W|$))", r"\\\1", part)
    return "".join(parts)


def as_restructured(app, what, name, obj, options, lines):
    """Docstrings here are plain text; "Raises: ..." in one line is a paragraph of its own."""
    found = []
    for line in joined(lines):
        if re.match(r"[A-Z][a-z]+: \S", line):
            found.append("")
        found.append(escaped(line))
    lines[:] = found


def setup(app):
    """Sphinx calls it; before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", as_restructured, priority=100)
