# SPDX-License-Identifier: Apache-2.0
"""Medians, quantiles, and ratios with a bootstrap interval. Pure.

Samples come in rounds: every contender gives one block a round, in turns, so that what the machine
does meanwhile hits all alike. The bootstrap draws whole rounds, which keeps the pairs together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from attrs import frozen

__all__ = ["Ratio", "Summary", "quantile", "ratio", "summary"]

RESAMPLES = 1000
SEED = 20261124


@frozen(kw_only=True)
class Summary:
    """One contender's samples; seconds.

    Attributes:
        cpu: processor time of one, of the caller and all that was reaped; None if not told.
    """

    count: int
    median: float
    p10: float
    p99: float
    cpu: float | None = None


@frozen(kw_only=True)
class Ratio:
    """How many times the other's median, with a 95 % interval.

    Attributes:
        quiet: the ratio of the tenth percentiles: of launches that nothing else disturbed.
    """

    value: float
    low: float
    high: float
    quiet: float = float("nan")


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by linear interpolation. Raises: ValueError if there is none."""
    if not values:
        raise ValueError("no samples")
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"a quantile is between 0 and 1, not {q}")
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    """All samples of all rounds."""
    return [value for block in rounds for value in block]


def summary(rounds: Sequence[Sequence[float]], cpu: float | None = None) -> Summary:
    """What the table shows of one contender. `cpu`: processor seconds of all together."""
    values = flat(rounds)
    return Summary(
        count=len(values),
        median=quantile(values, 0.5),
        p10=quantile(values, 0.1),
        p99=quantile(values, 0.99),
        cpu=None if cpu is None else cpu / len(values),
    )


def ratio(
    over: Sequence[Sequence[float]],
    under: Sequence[Sequence[float]],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Ratio:
    """The ratio of two medians; the interval holds 95 % of what resampled rounds give.

    Raises: ValueError, if the two have not the same rounds, or none.
    """
    if len(over) != len(under) or not over:
        raise ValueError(f"{len(over)} rounds against {len(under)}")
    value = quantile(flat(over), 0.5) / quantile(flat(under), 0.5)
    pick = random.Random(seed)
    found = []
    for _ in range(resamples):
        drawn = [pick.randrange(len(over)) for _ in over]
        a = quantile(flat([over[i] for i in drawn]), 0.5)
        b = quantile(flat([under[i] for i in drawn]), 0.5)
        found.append(a / b)
    quiet = quantile(flat(over), 0.1) / quantile(flat(under), 0.1)
    return Ratio(value=value, low=quantile(found, 0.025), high=quantile(found, 0.975), quiet=quiet)
