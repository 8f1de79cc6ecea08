# SPDX-License-Identifier: Apache-2.0
"""The files that a program needs to start: itself, its interpreter, its libraries. Reads only."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from attrs import frozen

from isolate.errors import PolicyError

__all__ = ["needed_files"]

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 1, 5, 15, 29
CACHE = "/etc/ld.so.cache"
MOST = 512
USUAL = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")


@frozen
class Elf:
    """What of an ELF file says which others it needs."""

    interpreter: str
    libraries: tuple[str, ...]
    search: tuple[str, ...]


def text_at(data: bytes, offset: int) -> str:
    """The NUL-ended string there."""
    return os.fsdecode(data[offset : data.index(b"\0", offset)])


def parse_elf(data: bytes, where: str) -> Elf:
    """A 64-bit little-endian file's interpreter, libraries and search paths.

    Raises: PolicyError for another kind, or a broken file.
    """
    if data[4:6] != b"\2\1":
        raise PolicyError(f"{where} is no 64-bit little-endian program; name its files yourself")
    try:
        (offset,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        heads = [struct.unpack_from("<IIQQQQ", data, offset + i * size) for i in range(count)]
        interpreter = next((text_at(data, h[2]) for h in heads if h[0] == PT_INTERP), "")
        loads = [(h[3], h[2], h[5]) for h in heads if h[0] == PT_LOAD]
        dynamic = next(((h[2], h[5]) for h in heads if h[0] == PT_DYNAMIC), (0, 0))
        end = dynamic[0] + dynamic[1] // 16 * 16
        entries = list(struct.iter_unpack("<QQ", data[dynamic[0] : end]))
        return from_dynamic(data, interpreter, loads, entries, where)
    except (struct.error, ValueError, IndexError) as error:
        raise PolicyError(f"{where} is a broken ELF file: {error}") from error


def from_dynamic(
    data: bytes,
    interpreter: str,
    loads: list[tuple[int, int, int]],
    entries: list[tuple[int, int]],
    where: str,
) -> Elf:
    """The dynamic section's part."""
    address = next((value for tag, value in entries if tag == DT_STRTAB), None)
    if address is None:
        return Elf(interpreter, (), ())
    table = next(off + address - va for va, off, size in loads if va <= address < va + size)
    found: dict[int, list[str]] = {}
    for tag, value in entries:
        if tag == DT_NULL:
            break
        if tag in (DT_NEEDED, DT_RPATH, DT_RUNPATH):
            found.setdefault(tag, []).append(text_at(data, table + value))
    lists = found.get(DT_RPATH, []) + found.get(DT_RUNPATH, [])
    origin = os.path.dirname(os.path.realpath(where))
    search = [each for text in lists for each in text.split(":") if each]
    search = [re.sub(r"\$\{?ORIGIN\}?", lambda _: origin, each) for each in search]
    return Elf(interpreter, tuple(found.get(DT_NEEDED, ())), tuple(search))


def cached_libraries() -> dict[str, str]:
    """Path by name, from the loader's cache (glibc's format 1.1); empty where there is none."""
    try:
        data = Path(CACHE).read_bytes()
    except OSError:
        return {}
    start = data.find(b"glibc-ld.so.cache1.1")
    if start < 0:
        return {}
    (count,) = struct.unpack_from("<I", data, start + 20)
    found: dict[str, str] = {}
    for i in range(count):
        flags, key, value = struct.unpack_from("<iII", data, start + 48 + 24 * i)
        if flags & 0xFF00 in (0x300, 0xA00):  # x86-64, aarch64
            found.setdefault(text_at(data, start + key), text_at(data, start + value))
    return found


def found_library(name: str, elf: Elf, cache: dict[str, str], where: str) -> str:
    """Where the loader would find it. Raises: PolicyError."""
    if "/" in name:
        return name
    for folder in (*elf.search, *[os.path.dirname(cache[name])] * (name in cache), *USUAL):
        if os.path.exists(f"{folder}/{name}"):
            return f"{folder}/{name}"
    raise PolicyError(f"{where} needs {name}, which is in no place that the loader looks at")


def read_start(path: str) -> bytes:
    """A program's bytes. Raises: PolicyError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PolicyError(f"{path} can't be read to see what it needs: {error.strerror}") from error


def needed_files(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """All files that a program opens before its first own line, real paths, sorted.

    Raises: PolicyError, for what is neither an ELF file nor a script.
    """
    cache = cached_libraries()
    todo, found = [os.path.abspath(os.fspath(path))], {CACHE} if cache else set()
    seen: set[str] = set()
    while todo and len(seen) < MOST:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        data = read_start(here)
        found.add(os.path.realpath(here))  # a rule lies on the file, not on links to it
        if data[:2] == b"#!":
            line = data[2 : data.find(b"\n")].split()
            todo += [os.fsdecode(line[0])] if line else []
        elif data[:4] == b"\x7fELF":
            elf = parse_elf(data, here)
            todo += [elf.interpreter] if elf.interpreter else []
            todo += [found_library(name, elf, cache, here) for name in elf.libraries]
        else:
            raise PolicyError(f"{here} is neither an ELF program nor a script with '#!'")
    return tuple(sorted(found))
