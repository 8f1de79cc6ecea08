# SPDX-License-Identifier: Apache-2.0
"""What the tests of cgroups share: programs that use an exact amount, and looks at a leaf."""

import os
import sys

from isolate import Sandbox

SLOW = bool(os.environ.get("ISOLATE_VM"))  # emulated processors
SECONDS = 120 if SLOW else 40

# Touches `more` bytes in steps, telling after each how far it is.
EAT = """
import mmap, os
more, step = {more}, 1 << 20
held = mmap.mmap(-1, more)
for at in range(0, more, 4096):
    held[at] = 1
    if at % step == 0:
        os.write(1, b"%d\\n" % at)
os.write(1, b"all\\n")
"""
HOLD = "import time\ntime.sleep({seconds})\n"


def python(code, *primitives, **short):
    """Run Python code in a fresh box, its output captured."""
    short.setdefault("timeout", SECONDS)
    argv = [sys.executable, "-I", "-S", "-c", code]
    return Sandbox(*primitives, **short).run(argv, capture_output=True)


def leaf_of(box):
    """The live box's leaf."""
    return box.session.made.leaf


def above(box, controller):
    """The directory that holds all leaves of this test run."""
    leaf = leaf_of(box)
    directory = leaf.directories[controller]
    while os.path.basename(directory) != os.environ["ISOLATE_CGROUP_PARENT"]:
        directory = os.path.dirname(directory)
    return directory


def put_first(box):
    """Before what else runs on this machine, so that only the limit is in its way."""
    v2 = leaf_of(box).version == 2
    name, most = ("cpu.weight", 10000) if v2 else ("cpu.shares", 262144)
    with open(f"{above(box, 'cpu')}/{name}", "w") as file:
        file.write(str(most))


def control(box, old, new):
    """The text of a control file: v1's name, v2's name of it."""
    leaf = leaf_of(box)
    return leaf.read(new if leaf.directory_of(new) and leaf.has(new) else old)
