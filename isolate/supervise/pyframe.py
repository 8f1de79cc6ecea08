# SPDX-License-Identifier: Apache-2.0
"""Which Python line makes a system call that waits: by its process' memory, read from outside.

Only for the interpreter that runs us (a call's worker, or `sys.executable`): where its structures
have what is found once, by looking at ourselves, so that no version's offsets are written here.
All that is read is the inside's word: bounded, decoded in Python, never followed for anything else.
From Python 3.11 on; where anything is not as it should be there is no line, and no error.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator
from functools import lru_cache

from attrs import frozen

__all__ = ["Layout", "layout", "line_of", "locate"]

Read = Callable[[int, int], bytes]

WORD = struct.Struct("=Q")
MAX_THREADS, MAX_FRAMES = 64, 48
MAX_NAME, MAX_TABLE = 1024, 1 << 16
SPAN = 1024  # how much of a structure is searched, bytes
FAR = 1 << 17  # of the large ones: the interpreter, the runtime
TAG = ~7 & (1 << 64) - 1  # low bits that newer interpreters keep in pointers


@frozen
class Layout:
    """Offsets, in bytes, in the structures of this interpreter.

    Attributes:
        file: (device, inode) as /proc/PID/maps has them, of what holds `_PyRuntime`.
        runtime, code_type: from that file's first mapping.
        interp: in the runtime; threads: in the interpreter; next_thread, native_id: in a thread.
        frame: the way from a thread to its innermost frame, one pointer after the other.
        code, previous, instruction: in a frame.
        name, table, first_line: in a code object; bytecode: where its instructions begin.
        text: where the characters of an ASCII string begin.
    """

    file: tuple[str, str]
    runtime: int
    code_type: int
    interp: int
    threads: int
    next_thread: int
    native_id: int
    frame: tuple[int, ...]
    code: int
    previous: int
    instruction: int
    name: int
    table: int
    first_line: int
    bytecode: int
    text: int


def words(data: bytes) -> tuple[int, ...]:
    """Pointers in memory."""
    return struct.unpack(f"={len(data) // 8}Q", data[: len(data) // 8 * 8])


def mapping_of(maps: str, address: int) -> tuple[str, str] | None:
    """The file that an address belongs to, or the one that is mapped before it (its .bss)."""
    found = None
    for line in maps.splitlines():
        parts = line.split()
        start = int(parts[0].partition("-")[0], 16)
        if start > address:
            break
        if len(parts) > 5 and parts[4] != "0":
            found = (parts[3], parts[4])
    return found


def base_of(maps: str, file: tuple[str, str]) -> int | None:
    """Where a file is mapped first."""
    for line in maps.splitlines():
        parts = line.split()
        if len(parts) > 5 and (parts[3], parts[4]) == file:
            return int(parts[0].partition("-")[0], 16)
    return None


def own_maps(pid: int | str = "self") -> str:
    """/proc/PID/maps, bounded."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        return file.read(1 << 20)


def ways(fd: int, thread: int, code: int) -> set[tuple[tuple[int, ...], int]]:
    """(offsets, frame): every way of two or three pointers from a thread to the code of the caller.

    Flat, so that the innermost frame is this function's own all the time.
    """
    found: set[tuple[tuple[int, ...], int]] = set()
    unpack, pread = struct.unpack, os.pread
    first = unpack("=48Q", pread(fd, 384, thread))
    for i, one in enumerate(first):
        if not 4096 < one < 1 << 47 or one % 8:
            continue
        try:
            second = unpack("=16Q", pread(fd, 128, one))
        except (OSError, struct.error):
            continue
        for j, two in enumerate(second):
            if two & TAG == code:
                found.add(((i * 8, j * 8), one))
            if not 4096 < two < 1 << 47 or two % 8 or j > 1:
                continue
            try:
                third = unpack("=16Q", pread(fd, 128, two))
            except (OSError, struct.error):
                continue
            for k, three in enumerate(third):
                if three & TAG == code:
                    found.add(((i * 8, j * 8, k * 8), two))
    return found


def deeper(fd: int, thread: int, code: int, depth: int) -> set[tuple[tuple[int, ...], int]]:
    """The same, from a number of calls further in."""
    return ways(fd, thread, code) if depth == 0 else deeper(fd, thread, code, depth - 1)


def find(data: bytes, value: int, size: int = 8) -> int:
    """Where a number is. Raises: LookupError."""
    for at in range(0, len(data) - size + 1, size):
        if int.from_bytes(data[at : at + size], sys.byteorder) == value:
            return at
    raise LookupError(hex(value))


def of_frames(fd: int, thread: int) -> tuple[tuple[int, ...], int, int, int]:
    """(way to the frame, its code, its previous, its instruction) as offsets."""
    code = id(ways.__code__)
    shallow, deep = deeper(fd, thread, code, 3), deeper(fd, thread, code, 40)
    both = {way for way, _ in shallow} & {way for way, _ in deep}
    way = min(both, key=len)

    def caller() -> bytes:
        """Its own frame's memory, while it runs."""
        at = thread
        for offset in way[:-1]:
            at = WORD.unpack(os.pread(fd, 8, at + offset))[0]
        return os.pread(fd, 128, at)

    def outer() -> tuple[bytes, int]:
        """The same of one that is called from here, and where our own frame is."""
        at = thread
        for offset in way[:-1]:
            at = WORD.unpack(os.pread(fd, 8, at + offset))[0]
        return caller(), at

    mine, above = outer()
    previous = find(mine, above)
    begin = id(caller.__code__) + types.CodeType.__basicsize__
    end = begin + len(caller.__code__.co_code)
    places = [at * 8 for at, word in enumerate(words(mine)) if begin <= word < end]
    return way[:-1], way[-1], previous, places[0]


def of_code() -> tuple[int, int, int, int]:
    """(file name, table of lines, first line) in a code object, and the text of a string."""
    code = of_code.__code__.replace(co_firstlineno=0x12345678, co_filename="/a-name-of-ours")
    data = ctypes.string_at(id(code), types.CodeType.__basicsize__)
    name = code.co_filename
    text = ctypes.string_at(id(name), name.__sizeof__()).index(name.encode())
    return find(data, id(name)), find(data, id(code.co_linetable)), find(data, 0x12345678, 4), text


@lru_cache(maxsize=1)
def layout() -> Layout | None:
    """Of this interpreter; None if it is not as it should be. Call it from a second thread."""
    if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
        return None
    api = ctypes.PyDLL(None)
    for function in ("PyInterpreterState_Main", "PyInterpreterState_ThreadHead"):
        getattr(api, function).restype = ctypes.c_void_p
    api.PyThreadState_Get.restype = ctypes.c_void_p
    api.PyThreadState_Next.restype = ctypes.c_void_p
    fd = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        runtime = ctypes.addressof(ctypes.c_char.in_dll(api, "_PyRuntime"))
        interp, mine = api.PyInterpreterState_Main(), api.PyThreadState_Get()
        head = api.PyInterpreterState_ThreadHead(ctypes.c_void_p(interp))
        following = api.PyThreadState_Next(ctypes.c_void_p(head))
        maps = own_maps()
        file = mapping_of(maps, runtime)
        base = None if file is None else base_of(maps, file)
        if file is None or base is None or not following:
            return None
        frame, code, previous, instruction = of_frames(fd, mine)
        name, table, first_line, text = of_code()
        return Layout(
            file=file,
            runtime=runtime - base,
            code_type=id(types.CodeType) - base,
            interp=find(os.pread(fd, FAR, runtime), interp),
            threads=find(os.pread(fd, FAR, interp), head),
            next_thread=find(os.pread(fd, SPAN, head), following),
            native_id=find(os.pread(fd, 384, mine), threading.get_native_id()),
            frame=frame,
            code=code,
            previous=previous,
            instruction=instruction,
            name=name,
            table=table,
            first_line=first_line,
            bytecode=types.CodeType.__basicsize__,
            text=text,
        )
    except (LookupError, OSError, ValueError, AttributeError):
        return None  # another build: then there are no lines
    finally:
        os.close(fd)


def varint(data: Iterator[int]) -> int:
    """Six bits a byte, the lowest first. Raises: StopIteration; ValueError."""
    value = shift = 0
    while True:
        byte = next(data)
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            return value
        if shift > 60:
            raise ValueError("too long a number")


def signed(data: Iterator[int]) -> int:
    """The sign is the lowest bit."""
    value = varint(data)
    return -(value >> 1) if value & 1 else value >> 1


def line_of(table: bytes, first: int, at: int) -> int | None:
    """The line of the instruction at byte `at`; of CPython's Objects/locations.md. Pure."""
    line, end, data = first, 0, iter(table)
    for head in data:
        if not head & 128:
            return None
        kind = head >> 3 & 15
        try:
            if kind == 14:
                line += signed(data)
                for _ in range(3):
                    varint(data)
            elif kind == 13:
                line += signed(data)
            elif kind >= 10 and kind < 13:
                line += kind - 10
                next(data), next(data)
            elif kind < 10:
                next(data)
        except (StopIteration, ValueError):
            return None
        end += 2 * ((head & 7) + 1)
        if at < end:
            return None if kind == 15 or not 0 < line < 1 << 31 else line
    return None


def word(read: Read, address: int) -> int:
    """One pointer. Raises: OSError."""
    data = read(address, 8)
    if len(data) != 8:
        raise OSError("not there")
    return int(WORD.unpack(data)[0])


def thread_of(at: Layout, read: Read, base: int, tid: int) -> int | None:
    """The thread state of a thread, by its number inside; or the only one."""
    thread = word(read, word(read, base + at.runtime + at.interp) + at.threads)
    found: list[int] = []
    while thread and len(found) < MAX_THREADS:
        if word(read, thread + at.native_id) == tid:
            return thread
        found.append(thread)
        thread = word(read, thread + at.next_thread)
    return found[0] if len(found) == 1 else None


def place(at: Layout, read: Read, code: int, instruction: int) -> tuple[str, int] | None:
    """(file, line) of a code object."""
    name = word(read, code + at.name)
    size = word(read, name + 16)
    table = word(read, code + at.table)
    length = word(read, table + 16)
    if not 0 < size <= MAX_NAME or not 0 < length <= MAX_TABLE:
        return None
    text = read(name + at.text, size)
    first = int.from_bytes(read(code + at.first_line, 4), sys.byteorder)
    line = line_of(read(table + 32, length), first, instruction - code - at.bytecode)
    if line is None or not text.isascii() or not text.decode("ascii").isprintable():
        return None
    return text.decode("ascii"), line


def frames(at: Layout, read: Read, base: int, tid: int) -> Iterator[tuple[str, int]]:
    """(file, line) of each Python frame of a thread, the innermost first. Raises: OSError."""
    frame = thread_of(at, read, base, tid) or 0
    for offset in at.frame if frame else ():
        frame = word(read, frame + offset)
    for _ in range(MAX_FRAMES):
        if frame == 0:
            return
        code = word(read, frame + at.code) & TAG
        if code and word(read, code + 8) == base + at.code_type:
            found = place(at, read, code, word(read, frame + at.instruction))
            if found is not None:
                yield found
        frame = word(read, frame + at.previous)


def locate(pid: int, tid: int, read: Read) -> str | None:
    """ "file.py:12" of the innermost frame that is not the standard library's, or of the innermost.

    Args:
        pid: as we see it; tid: the thread's number inside.
        read: (address, size) -> bytes of its memory; raises OSError.
    """
    at = layout()
    if at is None:
        return None
    library = sysconfig.get_path("stdlib")
    first = None

    def bounded(address: int, size: int) -> bytes:
        return read(address % (1 << 64), size)  # sums of what the inside gave

    try:
        base = base_of(own_maps(pid), at.file)
        if base is None:
            return None
        for name, line in frames(at, bounded, base, tid):
            told = f"{name}:{line}"
            first = first or told
            foreign = name.startswith(("<frozen", library + "/"))
            if not foreign or "/site-packages/" in name:
                return told
    except OSError:
        return first
    return first
