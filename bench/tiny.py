# SPDX-License-Identifier: Apache-2.0
"""A module of next to nothing: what is called inside imports its module there, each time anew."""

from __future__ import annotations

__all__ = ["double"]


def double(number: int) -> int:
    """The job."""
    return number * 2
