# SPDX-License-Identifier: Apache-2.0
"""Gives `SeccompFilter`, a floor below, its verbs about programs."""

from __future__ import annotations

from isolate.plan.bpf.compare import compare
from isolate.plan.bpf.disassemble import disassemble
from isolate.plan.bpf.lint import lint
from isolate.policy import ambient

__all__ = ["bind"]


def bind() -> None:
    """Once, when the library is imported."""
    ambient.bind_verbs(compare_filters=compare, disassemble=disassemble, lint=lint)
