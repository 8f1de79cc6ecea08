# SPDX-License-Identifier: Apache-2.0
"""seccomp's compiler, evaluator, disassembler and verifier: pure."""
