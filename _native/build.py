# SPDX-License-Identifier: Apache-2.0
"""How the C part is built: the cffi extension, and the static isolate-init. One list of sources."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

CHILD_SOURCES = (
    "child.c",
    "child_fd.c",
    "child_fs.c",
    "child_id.c",
    "child_limit.c",
    "child_lsm.c",
    "child_mount.c",
    "child_ns.c",
    "child_notify.c",
    "child_overlay.c",
    "child_pty.c",
    "child_root.c",
    "child_steward.c",
)
PARENT_SOURCES = (
    "plan.c",
    "ask.c",
    "spawn.c",
    "stock.c",
    "enter.c",
    "notify.c",
    "notify_ask.c",
    "notify_bpf.c",
)
INIT_SOURCES = (
    "init.c",
    "init_entry.c",
    "init_msg.c",
    "init_reap.c",
    "init_tree.c",
    "plan.c",
    *CHILD_SOURCES,
)

WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wno-unused-parameter")
# Child code runs where no libc may be called: no canary, no loop turned into memcpy.
CHILD_FLAGS = (
    "-ffreestanding",
    "-fno-builtin",
    "-fno-stack-protector",
    "-fno-tree-loop-distribute-patterns",
    "-fcf-protection=none",
)
INIT_FLAGS = (
    *WARNINGS,
    *CHILD_FLAGS,
    "-Os",
    "-static",
    "-nostdlib",
    "-no-pie",
    "-fno-pie",
    "-fno-asynchronous-unwind-tables",
    "-ffunction-sections",
    "-Wl,--gc-sections,--build-id=none,-z,noexecstack,-z,norelro,-s",
)
INIT_PATH = "isolate/_libexec/isolate-init"


def flags_for(machine: str) -> tuple[str, ...]:
    """INIT_FLAGS for a machine: control-flow protection is an x86 option."""
    return tuple(f for f in INIT_FLAGS if machine == "x86_64" or not f.startswith("-fcf"))


def build_init(target: Path, compiler: str | None = None, machine: str | None = None) -> Path:
    """Compile the static init to `target`, and return that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sources = [str(HERE / name) for name in INIT_SOURCES]
    cc = (compiler or os.environ.get("CC") or "cc").split()
    flags = flags_for(machine or os.uname().machine)
    subprocess.run([*cc, *flags, "-o", str(target), *sources], check=True)
    target.chmod(0o755)
    return target


ffibuilder = FFI()
ffibuilder.cdef((HERE / "isolate.cdef.h").read_text())
ffibuilder.set_source(
    "isolate._native",
    '#include "plan.h"',
    sources=[f"_native/{name}" for name in (*PARENT_SOURCES, *CHILD_SOURCES)],
    include_dirs=["_native"],
    extra_compile_args=[
        "-std=gnu11",
        "-O2",
        "-fno-stack-protector",
        "-fno-tree-loop-distribute-patterns",
        "-fno-builtin",
    ],
    py_limited_api=True,
)

if __name__ == "__main__":
    build_init(ROOT / INIT_PATH)
    os.chdir(ROOT)
    ffibuilder.compile(verbose=False)
