"""libseccomp, by ctypes: the same rules through another compiler."""

import contextlib
import ctypes
import errno
import functools
import os

from isolate.abi.syscalls import numbers
from isolate.plan.bpf.assemble import RETURNS
from isolate.policy.rules import Compare

OPS = {  # enum scmp_compare, seccomp.h
    Compare.NE: 1,
    Compare.LT: 2,
    Compare.LE: 3,
    Compare.EQ: 4,
    Compare.GE: 5,
    Compare.GT: 6,
    Compare.MASKED_EQ: 7,
}
TOKENS = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
BAD_ARCH, OPTIMIZE = 2, 8  # SCMP_FLTATR_ACT_BADARCH, _CTL_OPTIMIZE
LINEAR, TREE = 1, 2
UNKNOWN = -1  # __NR_SCMP_ERROR


class ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


@functools.cache
def library():
    """libseccomp.so.2, its calls typed."""
    lib = ctypes.CDLL("libseccomp.so.2")
    context, word = ctypes.c_void_p, ctypes.c_uint32
    lib.seccomp_init.restype = context
    lib.seccomp_init.argtypes = [word]
    lib.seccomp_release.argtypes = [context]
    lib.seccomp_rule_add_array.argtypes = [
        context, word, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(ArgCmp),
    ]  # fmt: skip
    lib.seccomp_export_bpf.argtypes = [context, ctypes.c_int]
    lib.seccomp_attr_set.argtypes = [context, ctypes.c_int, word]
    lib.seccomp_arch_add.argtypes = [context, word]
    lib.seccomp_arch_remove.argtypes = [context, word]
    lib.seccomp_merge.argtypes = [context, context]
    lib.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return lib


def value_of(action):
    """SCMP_ACT_*, which are the kernel's numbers."""
    return RETURNS[action.name] | action.data


def number_of(name, arch):
    """As libseccomp wants it on this machine: for another ABI its own, maybe negative, number."""
    if arch == os.uname().machine:
        return numbers(arch)[name]
    return library().seccomp_syscall_resolve_name(name.encode())


def tests_of(rule):
    """struct scmp_arg_cmp[]."""
    tests = (ArgCmp * max(1, len(rule.conditions)))()
    for at, test in enumerate(rule.conditions):
        masked = test.compare is Compare.MASKED_EQ
        a, b = (test.mask, test.value) if masked else (test.value, 0)
        tests[at] = ArgCmp(test.index, OPS[test.compare], a, b)
    return tests


def filled(layer, arch, optimize):
    """A context with a layer's rules for one architecture, that is to be released."""
    lib = library()
    context = lib.seccomp_init(value_of(layer.default))
    assert context
    assert lib.seccomp_attr_set(context, OPTIMIZE, optimize) == 0
    assert lib.seccomp_attr_set(context, BAD_ARCH, RETURNS["kill_process"]) == 0
    if arch != os.uname().machine:
        assert lib.seccomp_arch_remove(context, 0) == 0  # the native one
        assert lib.seccomp_arch_add(context, TOKENS[arch]) == 0
    for rule in layer.rules:
        if rule.syscall not in numbers(arch):
            continue
        number = number_of(rule.syscall, arch)
        if number == UNKNOWN:
            continue
        done = lib.seccomp_rule_add_array(
            context, value_of(rule.action), number, len(rule.conditions), tests_of(rule)
        )
        assert done in (0, -errno.EEXIST), (done, rule)
    return context


def theirs(layer, optimize=TREE, arches=None):
    """The program that libseccomp makes of a layer, for this machine's or more architectures."""
    lib = library()
    first, *others = arches or (os.uname().machine,)
    context = filled(layer, first, optimize)
    try:
        for each in others:
            assert lib.seccomp_merge(context, filled(layer, each, optimize)) == 0
        fd = os.memfd_create("isolate-oracle")
        with contextlib.closing(os.fdopen(fd, "rb")):
            assert lib.seccomp_export_bpf(context, fd) == 0
            return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        lib.seccomp_release(context)
