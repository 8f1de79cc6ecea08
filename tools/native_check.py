# SPDX-License-Identifier: Apache-2.0
"""Check the C part: gcc's and clang's warnings, no call out of child code, and aarch64 builds."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = runpy.run_path(str(ROOT / "_native" / "build.py"))


def undefined(objects: list[Path]) -> set[str]:
    """Symbols that the objects need and don't have among themselves."""
    text = subprocess.run(
        ["nm", "-A", *map(str, objects)], check=True, capture_output=True, text=True
    ).stdout
    needed, defined = set(), set()
    for line in text.splitlines():
        *_, kind, name = line.split()
        (needed if kind == "U" else defined).add(name)
    return needed - defined


def compile_all(compiler: str, names: tuple[str, ...], flags: list[str], into: Path) -> list[Path]:
    """One object a source."""
    objects = []
    for name in names:
        target = into / f"{name}.{compiler}.o"
        source = str(ROOT / "_native" / name)
        subprocess.run([compiler, *flags, "-c", "-o", str(target), source], check=True)
        objects.append(target)
    return objects


SANITIZED = (
    "-g",
    "-O1",
    "-D_GNU_SOURCE",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)
# A child has no run-time of a sanitizer to call: what is undefined traps, and the test sees that.
TRAPPING = ("-g", "-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined")


# Each program of tests/native: its further sources, and whether it takes the seeds.
PROGRAMS = {
    "test_parent": ((), True),
    "test_notify": (("callers",), False),
    "test_ask": ((), False),
}


def run_sanitized(into: Path, warnings: list[str], child: list[str]) -> bool:
    """Build and run tests/native with what runs in the caller, under sanitizers."""
    flags = [*warnings, *(each for each in child if "distribute" not in each), *TRAPPING]
    folder = into / "sanitized"
    folder.mkdir()
    objects = compile_all("clang", BUILD["CHILD_SOURCES"], flags, folder)
    parent = compile_all("clang", BUILD["PARENT_SOURCES"], [*warnings, *SANITIZED], folder)
    seeds = sorted((ROOT / "tests" / "fuzz" / "seeds").glob("*.bin"))
    env = {"ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"}
    for name, (others, takes_seeds) in PROGRAMS.items():
        sources = [ROOT / "tests" / "native" / f"{each}.c" for each in (name, *others)]
        argv = ["clang", *warnings, *SANITIZED, "-o", folder / name, *sources, *parent]
        subprocess.run([str(each) for each in (*argv, *objects, "-lpthread")], check=True)
        argv = [folder / name, *(seeds if takes_seeds else ())]
        if subprocess.run([str(each) for each in argv], env=env, timeout=300).returncode:
            return False
    return True


def main() -> int:
    """0 if all is well."""
    warnings, child = list(BUILD["WARNINGS"]), list(BUILD["CHILD_FLAGS"])
    everything = (*BUILD["PARENT_SOURCES"], *BUILD["INIT_SOURCES"])
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder)
        objects = compile_all("gcc", BUILD["CHILD_SOURCES"], [*warnings, *child, "-O2"], into)
        loose = undefined(objects)
        if loose:
            print(f"child code calls out: {', '.join(sorted(loose))}")
            return 1
        if shutil.which("clang"):
            clang = [f for f in child if "distribute" not in f]
            compile_all("clang", everything, [*warnings, *clang, "-O2"], into)
            if not run_sanitized(into, warnings, child):
                print("the C part of the caller has failed under ASan and UBSan")
                return 1
        else:
            print("no clang: the C part of the caller was not run under ASan and UBSan")
        cross = "aarch64-linux-gnu-gcc"
        if shutil.which(cross):
            arm = [f for f in child if "cf-protection" not in f]
            compile_all(cross, everything, [*warnings, *arm, "-O2"], into)
            BUILD["build_init"](into / "init", compiler=cross, machine="aarch64")
        elif shutil.which("dpkg-query") and sys.platform == "linux":
            print("no aarch64 cross compiler: that half of the check did not run")
            return 1
    print("native: no warning, no symbol out of child code, aarch64 builds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
