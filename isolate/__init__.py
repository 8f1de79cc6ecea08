# SPDX-License-Identifier: Apache-2.0
"""Run untrusted Python callables and programs in Linux sandboxes."""

from __future__ import annotations

from isolate import guard, learning
from isolate.checkup import doctor
from isolate.completed import Completed
from isolate.confine import confine
from isolate.errors import (
    CpuTimeLimitExceeded,
    FileSizeLimitExceeded,
    HostLacks,
    IsolateError,
    LaunchError,
    LimitExceeded,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    PidsLimitExceeded,
    PolicyConflict,
    PolicyError,
    RemoteError,
    ReplyError,
    SandboxViolation,
    SupervisorError,
    TimeLimitExceeded,
    Undecided,
    Unsandboxed,
)
from isolate.plan.bpf import verbs
from isolate.plan.model import Guarantee
from isolate.policy import allow
from isolate.policy.ambient import outside
from isolate.policy.apparmor import AppArmorProfile
from isolate.policy.capabilities import CapabilitySet
from isolate.policy.cgroup import CgroupLimit
from isolate.policy.chroot import Chroot
from isolate.policy.handlers import Answer
from isolate.policy.landlock import Landlock
from isolate.policy.mount import Mount
from isolate.policy.namespace import IdMap, Namespace
from isolate.policy.network import Network
from isolate.policy.policy import Policy
from isolate.policy.rlimit import INFINITY, INHERIT, Rlimit
from isolate.policy.rules import Action, Arg, Errno, Rule
from isolate.policy.seccomp import SeccompFilter
from isolate.popen import Popen
from isolate.sandbox import Box, Sandbox, call, run
from isolate.supervise.handlers import Notified
from isolate.supervise.outcome import Exited, Killed, LimitHit, TimedOut, Violated
from isolate.supervise.stats import Stats
from isolate.supervise.stock import stock
from isolate.supervise.timing import Timing
from isolate.supervise.usage import Usage
from isolate.supervise.violations import Violation

guard.install()
learning.bind()
verbs.bind()

__all__ = [
    "INFINITY",
    "INHERIT",
    "Action",
    "AppArmorProfile",
    "Answer",
    "Arg",
    "Box",
    "CapabilitySet",
    "CgroupLimit",
    "Chroot",
    "Completed",
    "CpuTimeLimitExceeded",
    "Errno",
    "Exited",
    "FileSizeLimitExceeded",
    "Guarantee",
    "HostLacks",
    "IdMap",
    "IsolateError",
    "Killed",
    "Landlock",
    "LaunchError",
    "LimitExceeded",
    "LimitHit",
    "MemoryLimitExceeded",
    "Mount",
    "Namespace",
    "Network",
    "Notified",
    "OutputLimitExceeded",
    "PidsLimitExceeded",
    "Policy",
    "PolicyConflict",
    "PolicyError",
    "Popen",
    "RemoteError",
    "ReplyError",
    "Rlimit",
    "Rule",
    "Sandbox",
    "SandboxViolation",
    "SupervisorError",
    "SeccompFilter",
    "Stats",
    "TimeLimitExceeded",
    "TimedOut",
    "Undecided",
    "Unsandboxed",
    "Timing",
    "Usage",
    "Violated",
    "Violation",
    "allow",
    "call",
    "confine",
    "doctor",
    "outside",
    "run",
    "stock",
]
