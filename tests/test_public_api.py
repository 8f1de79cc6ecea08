# SPDX-License-Identifier: Apache-2.0
"""The export snapshot: a change here is a change for every user."""

import subprocess

import isolate

PUBLIC = """
    Action
    Answer
    AppArmorProfile
    Arg
    Box
    CapabilitySet
    CgroupLimit
    Chroot
    Completed
    CpuTimeLimitExceeded
    Errno
    Exited
    FileSizeLimitExceeded
    Guarantee
    HostLacks
    INFINITY
    INHERIT
    IdMap
    IsolateError
    Killed
    Landlock
    LaunchError
    LimitExceeded
    LimitHit
    MemoryLimitExceeded
    Mount
    Namespace
    Network
    Notified
    OutputLimitExceeded
    PidsLimitExceeded
    Policy
    PolicyConflict
    PolicyError
    Popen
    RemoteError
    ReplyError
    Rlimit
    Rule
    Sandbox
    SandboxViolation
    SeccompFilter
    Stats
    SupervisorError
    TimeLimitExceeded
    TimedOut
    Timing
    Undecided
    Unsandboxed
    Usage
    Violated
    Violation
    allow
    call
    confine
    doctor
    outside
    run
    stock
"""


def test_the_public_names_are_these():
    assert sorted(isolate.__all__) == sorted(PUBLIC.split())
    assert all(hasattr(isolate, name) for name in PUBLIC.split())


def test_verbs_are_where_the_design_has_them():
    for verb in ("run", "popen", "call"):
        assert callable(getattr(isolate.Sandbox, verb))
        assert callable(getattr(isolate.Box, verb))
    assert issubclass(isolate.Popen, subprocess.Popen)
    assert issubclass(isolate.Completed, subprocess.CompletedProcess)


def test_errors_are_the_built_in_ones_too():
    assert issubclass(isolate.PolicyError, ValueError)
    assert issubclass(isolate.MemoryLimitExceeded, MemoryError)
    assert issubclass(isolate.TimeLimitExceeded, TimeoutError)
    assert issubclass(isolate.PolicyConflict, isolate.PolicyError)
    for name in isolate.__all__:
        each = getattr(isolate, name)
        if isinstance(each, type) and issubclass(each, Exception) and name != "IsolateError":
            assert issubclass(each, isolate.IsolateError), name
