"""Percentiles of exact samples: a round has some 100,000 of them, no histogram is needed."""

from collections.abc import Iterable, Sequence
from math import ceil

SHOWN = (50.0, 99.0, 99.9)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest sample that `percent` of all do not exceed (nearest rank).

    Raises ValueError when there is no sample.
    """
    if not ordered:
        raise ValueError("no sample, no percentile")
    return ordered[max(ceil(len(ordered) * percent / 100), 1) - 1]


def summarise(samples: Iterable[list[float]]) -> dict[str, float]:
    """Return p50, p99, p99.9 and the maximum in milliseconds; nothing for no samples."""
    ordered = sorted(sample for chunk in samples for sample in chunk)
    if not ordered:
        return {}
    shown = {f"p{percent:g}": percentile(ordered, percent) for percent in SHOWN}
    return {name: 1000 * value for name, value in (shown | {"max": ordered[-1]}).items()}
