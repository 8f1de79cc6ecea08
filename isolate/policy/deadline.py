# SPDX-License-Identifier: Apache-2.0
"""`Deadline`: what the supervisor watches while a program runs."""

from __future__ import annotations

from attrs import field, frozen

from isolate.policy.base import Primitive
from isolate.policy.fields import at_least, ceiling, parse_bytes, parse_seconds, tighter

__all__ = ["Deadline"]


def seconds(value: float | str | None) -> float | None:
    """A duration, or None."""
    return None if value is None else parse_seconds(value)


@frozen(kw_only=True)
class Deadline(Primitive):
    """Limits in time and output; at the first that is crossed everything is killed.

    Attributes:
        wall, cpu_time: seconds or "500ms".
        output: bytes of stdout and stderr together.
        files_size: bytes of any one file (RLIMIT_FSIZE).
    """

    wall: float | None = field(default=None, converter=seconds, validator=at_least(0.0))
    cpu_time: float | None = field(default=None, converter=seconds, validator=at_least(0.0))
    output: int | None = ceiling(least=0, convert=parse_bytes)
    files_size: int | None = ceiling(least=0, convert=parse_bytes)

    def narrow(self, inner: Deadline) -> Deadline:
        """The smaller of the two, field by field."""
        return Deadline(
            wall=tighter(self.wall, inner.wall),
            cpu_time=tighter(self.cpu_time, inner.cpu_time),
            output=tighter(self.output, inner.output),
            files_size=tighter(self.files_size, inner.files_size),
        )
