# SPDX-License-Identifier: Apache-2.0
"""Write the fuzzers' seeds: real plans, encoded. `PYTHONPATH=. python tools/fuzz_seeds.py`."""

from __future__ import annotations

from pathlib import Path

from isolate import Namespace, Policy, Sandbox
from isolate.plan.compile import compile_box, compile_program
from isolate.plan.encode import encode
from isolate.policy.command import Command
from tests import hosts

SEEDS = Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "seeds"


def main() -> None:
    """One file a plan and half."""
    policies = {
        "sandbox": Sandbox(mem="64M", seccomp=False, allow=[allow_all()]).policy,
        "bare": Policy(Namespace(user=True, uts=True, hostname="x")),
    }
    SEEDS.mkdir(parents=True, exist_ok=True)
    for name, policy in policies.items():
        setup = compile_box(policy, hosts.ROOT_V1).setup
        program = compile_program(policy, Command(["true", "x"]), hosts.ROOT_V1).ops
        for half, ops in (("setup", setup), ("program", program)):
            (SEEDS / f"{name}-{half}.bin").write_bytes(encode(ops).blob)


def allow_all() -> object:
    """The filter is opaque bytes to the checker: left out, to keep the seeds small."""
    from isolate import allow

    return allow.SystemCalls()


if __name__ == "__main__":
    main()
