"""The C machine of bpf_machine.c, compiled once for a test run."""

import atexit
import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Call(ctypes.Structure):
    """struct seccomp_data."""

    _fields_ = [
        ("nr", ctypes.c_uint32),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]


class Pool(ctypes.Structure):
    """What calls are made of; see bpf_machine.c."""

    _fields_ = [
        ("numbers", ctypes.POINTER(ctypes.c_uint32)),
        ("n_numbers", ctypes.c_uint32),
        ("arch", ctypes.c_uint32),
        ("values", ctypes.POINTER(ctypes.c_uint64)),
        ("n_values", ctypes.c_uint32),
        ("words32", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
    ]


def compiled(source, *flags):
    """A C file of this directory, built; the result goes with the process."""
    folder = tempfile.mkdtemp(prefix="machine-", dir="/var/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = Path(folder) / Path(source).stem
    argv = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", *flags]
    subprocess.run([*argv, "-o", str(target), str(HERE / source)], check=True)
    return target


@functools.cache
def library():
    """bpf_machine.c, its calls typed."""
    lib = ctypes.CDLL(str(compiled("bpf_machine.c", "-shared", "-fPIC")))
    program, word = ctypes.c_char_p, ctypes.c_uint32
    lib.machine_run.restype = word
    lib.machine_run.argtypes = [
        program, word, ctypes.POINTER(Call), ctypes.POINTER(word),
    ]  # fmt: skip
    lib.machine_call.restype = None
    lib.machine_call.argtypes = [ctypes.POINTER(Pool), ctypes.c_uint64, ctypes.POINTER(Call)]
    lib.machine_differ.restype = ctypes.c_uint64
    lib.machine_differ.argtypes = [
        program, word, program, word, ctypes.POINTER(Pool), ctypes.c_uint64, ctypes.c_uint64,
        ctypes.POINTER(ctypes.c_uint64),
    ]  # fmt: skip
    return lib


def run_in_c(program, call):
    """(value, steps); steps 0: it is no program."""
    steps = ctypes.c_uint32()
    value = library().machine_run(program, len(program) // 8, call, steps)
    return value, steps.value


class Calls:
    """Calls by index, of an architecture, from some numbers and values."""

    def __init__(self, arch, numbers, values, seed, words32=False):
        self.numbers = (ctypes.c_uint32 * max(1, len(numbers)))(*numbers)
        self.values = (ctypes.c_uint64 * len(values))(*values)
        self.pool = Pool(self.numbers, len(numbers), arch, self.values, len(values), words32, seed)

    def __getitem__(self, index):
        call = Call()
        library().machine_call(self.pool, index, call)
        return call

    def first_difference(self, one, two, first, last, steps=None):
        """The first index at which two programs differ; `last` if they don't."""
        steps = steps or (ctypes.c_uint64 * 2)()
        sizes = len(one) // 8, len(two) // 8
        return library().machine_differ(one, sizes[0], two, sizes[1], self.pool, first, last, steps)
