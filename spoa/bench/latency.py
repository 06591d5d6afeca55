"""Percentiles of exact samples: a round has some 100,000 of them, no histogram is needed.

A percentile is of all samples of a round, and is one of them. Of fewer than 10,000 samples p99.99
is the largest: who shows it says so, or leaves it out.
"""

from collections.abc import Iterable, Sequence
from math import ceil

SHOWN = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)
"""Enough for a curve."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest sample that `percent` of all do not exceed (nearest rank).

    Raises ValueError when there is no sample.
    """
    if not ordered:
        raise ValueError("no sample, no percentile")
    # As floats 41,000 * 99.9 / 100 is a hair above 40,959: that is not the next rank.
    return ordered[max(ceil(round(len(ordered) * percent / 100, 6)), 1) - 1]


def summarise(samples: Iterable[list[float]]) -> dict[str, float]:
    """Return `p50`, `p99.9`, ... and `max`, in milliseconds; nothing for no samples."""
    ordered = sorted(sample for chunk in samples for sample in chunk)
    if not ordered:
        return {}
    shown = {f"p{percent:g}": percentile(ordered, percent) for percent in SHOWN}
    return {name: 1000 * value for name, value in (shown | {"max": ordered[-1]}).items()}
