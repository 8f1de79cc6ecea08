# SPDX-License-Identifier: Apache-2.0
"""Named settings with their reasons."""

from __future__ import annotations

from isolate.policy.rlimit import Rlimit

__all__ = ["SANDBOX_PIDS", "SANDBOX_RLIMITS", "THREAD_VARIABLES"]

# Enough for a compiler, a test runner or a thread pool; too few for a fork bomb to be felt.
SANDBOX_PIDS = 256

# HARDENING 15: no core dumps (they would go to the host's handler), no real-time priority, no
# locked memory beyond what libraries want, no message queues.
SANDBOX_RLIMITS = Rlimit(
    core=0, memlock="1M", msgqueue=0, rtprio=0, nice=0, nofile=(1024, 4096), sigpending=1024
)

# Numeric libraries start a thread a processor unless told; inside, the limit is what counts.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
