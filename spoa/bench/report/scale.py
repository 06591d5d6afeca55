"""Scales: where a value stands between 0 and 1, and at which values there are ticks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final

_MOST_TICKS: Final = 5
_FEW: Final = 8
_WIDE: Final = 30
"""From so large a quotient of largest and smallest on, a linear scale hides the small ones."""

_FEW_DECADES: Final = 3

_LESS: Final = 1 - 1e-9
"""Floats that should be equal are, but for this."""

_LEAST: Final = 1e-300

_NINES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale. Ticks have a value and the words for it."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]
    is_logarithmic: bool = False


def linear(values: Iterable[float]) -> Scale:
    """Start at zero, and end at a round number that none exceeds."""
    largest = max(_seen(values), default=1.0)
    step = _round_up(largest / _MOST_TICKS)
    count = ceil(round(largest / step, 9))
    top = count * step
    return Scale(lambda v: v / top, [(n * step, short(n * step)) for n in range(count + 1)])


def logarithmic(values: Iterable[float]) -> Scale:
    """Each decade as wide as the next one. Ticks are at the values if they are few."""
    positive = sorted(set(_seen(values))) or [1.0]
    at = positive if len(positive) <= _FEW else list(_decades(positive[0], positive[-1]))
    return _logarithmic(positive[0], positive[-1], at)


def amounts(values: Iterable[float]) -> Scale:
    """Choose a linear scale, or one by decades where it would hide the small ones."""
    known = list(values)
    positive = _seen(known)
    if not positive or max(positive) / min(positive) <= _WIDE:
        return linear(known)
    low, high = _round_down(min(positive)), _round_up(max(positive))
    return _logarithmic(low, high, list(_decades(low, high)))


def nines(percents: Iterable[float]) -> Scale:
    """Give each nine of a percentile the same width: 90, 99, 99.9."""
    known = list(percents) or [50.0]
    first, last = _nines(min(known)), _nines(max(known))
    width = (last - first) or 1.0
    ticks = [(p, f"{p:g}") for p in _NINES if min(known) <= p <= max(known)]
    return Scale(lambda p: (_nines(p) - first) / width, ticks)


def short(value: float) -> str:
    """Write a number with at most three digits behind those that matter: 84,000, 7.6, 0.41."""
    if value == 0:
        return "0"
    size = abs(value)
    for unit, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= 10 * unit:
            return f"{value / unit:,.3g} {sign}" if size < 1e15 else f"{value:.2g}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _seen(values: Iterable[float]) -> list[float]:
    """Leave out zeros, and what has no decade: floats that are all but zero."""
    return [value for value in values if value >= _LEAST]


def _logarithmic(low: float, high: float, ticks: Sequence[float]) -> Scale:
    first, decades = log10(low), log10(high) - log10(low)

    def place(value: float) -> float:
        return (log10(max(value, low)) - first) / decades if decades else 0.5

    return Scale(place, [(at, short(at)) for at in ticks], is_logarithmic=True)


def _nines(percent: float) -> float:
    return -log10(1 - percent / 100)


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(value))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= value * _LESS)


def _round_down(value: float) -> float:
    power = 10.0 ** floor(log10(value))
    return next(m * power for m in (5, 2, 1, 0.5) if m * power <= value / _LESS)


def _decades(low: float, high: float) -> Iterator[float]:
    """Name the powers of ten between two numbers; if they are few, 2 and 5 times them, too."""
    powers = [10.0**n for n in range(floor(log10(low)), ceil(log10(high)) + 1)]
    several = [p for p in powers if low * _LESS <= p <= high / _LESS]
    if len(several) >= _FEW_DECADES:
        yield from several
    else:
        finer = [m * p for p in powers for m in (1, 2, 5)]
        yield from (p for p in finer if low * _LESS <= p <= high / _LESS)
