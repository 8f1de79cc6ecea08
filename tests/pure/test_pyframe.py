"""Reading a Python line out of another process: tables of lines, and hostile memory."""

import os
import sys
import threading
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isolate import sandbox
from isolate.supervise import pyframe
from isolate.supervise.pyframe import base_of, layout, line_of, locate, mapping_of

modern = pytest.mark.skipif(sys.version_info < (3, 11), reason="tables of lines are other ones")


def in_a_thread(function):
    """As the supervisor does it: beside the main thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def codes(module):
    todo = [each.__code__ for each in vars(module).values() if isinstance(each, types.FunctionType)]
    while todo:
        code = todo.pop()
        yield code
        todo += [each for each in code.co_consts if isinstance(each, types.CodeType)]


@modern
@pytest.mark.parametrize("module", [pyframe, sandbox, os, threading, types])
def test_lines_are_those_that_python_finds(module):
    count = 0
    for code in codes(module):
        for start, end, line in code.co_lines():
            for at in range(start, end, 2):
                found = line_of(code.co_linetable, code.co_firstlineno, at)
                assert found == (line if line else None), (code, at)
                count += 1
    assert count > 50


@given(st.binary(max_size=200), st.integers(0, 1 << 32), st.integers(-10, 500))
def test_any_table_has_a_line_or_none(table, first, at):
    found = line_of(table, first, at)
    assert found is None or 0 < found < 1 << 31


MAPS = """\
00400000-00401000 r--p 00000000 fe:00 77 /usr/bin/python
00401000-00402000 rw-p 00001000 fe:00 77 /usr/bin/python
00402000-00403000 rw-p 00000000 00:00 0
7f0000000000-7f0000001000 r--p 00000000 fe:00 88 /lib/libc.so.6 (deleted)
"""


def test_a_file_is_known_by_its_inode_wherever_it_is_mapped():
    assert mapping_of(MAPS, 0x402100) == ("fe:00", "77")
    assert mapping_of(MAPS, 0x7F0000000800) == ("fe:00", "88")
    assert mapping_of(MAPS, 0x1000) is None
    assert base_of(MAPS, ("fe:00", "77")) == 0x400000
    assert base_of(MAPS, ("fe:00", "99")) is None


def own_memory():
    fd = os.open("/proc/self/mem", os.O_RDONLY)

    def read(address, size):
        if address >= 1 << 63:
            raise OSError("not an address")
        return os.pread(fd, size, address)  # the innermost frame is this line

    return fd, read


@modern
def test_the_layout_of_this_interpreter_is_found():
    assert in_a_thread(layout) is not None


@modern
def test_the_innermost_line_of_a_thread_is_found():
    in_a_thread(layout)
    fd, read = own_memory()
    try:
        where = locate(os.getpid(), threading.get_native_id(), read)
    finally:
        os.close(fd)
    name, _, line = where.rpartition(":")
    assert name == __file__
    assert "os.pread" in open(__file__).read().splitlines()[int(line) - 1]


@modern
@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_memory_of_any_content_gives_a_line_or_none_and_ends(random):
    in_a_thread(layout)
    reads = []

    def read(address, size):
        reads.append(address)
        assert 0 <= address < 1 << 64
        assert size <= 1 << 16
        if random.random() < 0.01:
            raise OSError("not there")
        return random.randbytes(size if random.random() < 0.99 else random.randrange(size + 1))

    found = locate(os.getpid(), 5, read)
    assert found is None or "\n" not in found
    assert len(reads) < 2000


@modern
def test_a_loop_of_threads_or_frames_ends():
    in_a_thread(layout)
    reads = []

    def read(address, size):
        reads.append(address)
        return b"\x08\x00\x00\x00\x00\x00\x00\x00" * (size // 8 + 1)

    assert locate(os.getpid(), 5, lambda address, size: read(address, size)[:size]) is None
    assert len(reads) < 2000


def test_another_interpreter_has_no_lines(monkeypatch):
    monkeypatch.setattr(pyframe, "layout", lambda: None)
    assert locate(os.getpid(), 1, lambda *_: b"") is None
    assert locate(2**22 + 1, 1, lambda *_: b"") is None
