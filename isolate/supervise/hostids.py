# SPDX-License-Identifier: Apache-2.0
"""Host ids that no other live box has: reserved by an abstract socket name, which the kernel frees
when this process ends, however it ends. Nothing is left on disk (docs/adr/0002)."""

from __future__ import annotations

import random
import socket

from attrs import define

from isolate.errors import HostLacks

__all__ = ["HostIds", "reserve_ids"]

TRIES = 64


@define
class HostIds:
    """`count` ids from `base` on, ours until `close`."""

    base: int
    guard: socket.socket

    def close(self) -> None:
        """Give them back."""
        self.guard.close()


def reserve_ids(count: int, first: int, last: int) -> HostIds:
    """Reserve consecutive host ids of a range; the same numbers serve as uids and gids.

    Raises: HostLacks, if no free range was found.
    """
    pick = random.SystemRandom()
    guard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        for _ in range(TRIES):
            base = pick.randrange(first, last - count, 16)
            try:
                guard.bind(f"\0isolate/ids/{base}")
            except OSError:
                continue  # taken by another box: another number
            return HostIds(base, guard)
    except BaseException:
        guard.close()
        raise
    guard.close()
    raise HostLacks("user", f"no free range of {count} host ids after {TRIES} tries")
