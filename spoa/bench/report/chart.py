"""Charts: bars to compare, lines to follow. Pure: from numbers to an SVG document.

One colour is the agent's, everybody else is grey. Numbers stand at the bars and names at the ends
of the lines: there is no legend to look things up in, and no texts that overlap.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from spoa.bench.report.scale import Scale, short
from spoa.bench.report.svg import (
    BOLD_PX,
    MARGIN,
    TEXT_PX,
    WIDTH,
    Caption,
    block,
    circle,
    document,
    fitted,
    path,
    rule,
    text,
    tip,
    width_of,
)

_TOP: Final = 76
_BAR: Final = 18
_BAR_STEP: Final = 26
_HEAD_STEP: Final = 20
_GROUP_GAP: Final = 8
_PAD: Final = 10
_WIDEST_LABEL: Final = 240
_FAR: Final = 1.5
"""A yardstick that is so many times longer than all else is cut, so that all else can be seen."""

_PLOT: Final = 260
_LABEL_STEP: Final = 17
_GAP: Final = 14
_TICK_GAP: Final = 8


Place = tuple[float, float]
"""Of a point in the picture."""

Ticks = Sequence[tuple[float, str]]
"""Where ticks are in the picture, and their words."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a median, and between which values it lay in all rounds."""

    label: str
    value: float
    low: float
    high: float
    is_ours: bool = False
    is_yardstick: bool = False
    """Drawn to compare with; it may be cut."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: points in the order of x. `strength` tells the lines of one colour apart."""

    name: str
    points: Sequence[tuple[float, float]]
    is_ours: bool = True
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Axes:
    """How both scales are made of the values on them, and what x is."""

    x: Callable[[Iterable[float]], Scale]
    y: Callable[[Iterable[float]], Scale]
    x_title: str


def bars(caption: Caption, groups: Mapping[str, Sequence[Bar]]) -> str:
    """Draw horizontal bars, one below the other, under a head for each group that has a name."""
    ground = _ground([bar for group in groups.values() for bar in group])
    elements: list[str] = []
    y = float(_TOP)
    for head, group in groups.items():
        if head:
            elements.append(text(MARGIN, y + 10, fitted(head, WIDTH - 2 * MARGIN), "soft"))
            y += _HEAD_STEP
        for bar in group:
            elements += _bar(bar, ground, y)
            y += _BAR_STEP
        y += _GROUP_GAP
    return document(caption, _bars_in_words(caption, groups), y + _GROUP_GAP, elements)


@dataclass(frozen=True, slots=True)
class _Ground:
    """Where bars begin and how far they may go, the longest of them, and whose they are."""

    left: float
    right: float
    room: float
    longest: float
    is_mixed: bool

    def end_of(self, value: float) -> float:
        return self.left + value / self.longest * self.room


def _ground(every: Sequence[Bar]) -> _Ground:
    labels = max((width_of(bar.label, BOLD_PX) for bar in every), default=0)
    numbers = max((width_of(short(bar.value)) for bar in every), default=0)
    left = MARGIN + ceil(min(labels, _WIDEST_LABEL)) + _PAD
    right = WIDTH - MARGIN - numbers - _PAD
    longest = max((max(bar.value, bar.high) for bar in every), default=0) or 1
    end = max((max(bar.value, bar.high) for bar in every if not bar.is_yardstick), default=0)
    room = right - left
    if 0 < _FAR * end < longest:
        longest, room = end, room - _BAR_STEP
    return _Ground(left, right, room, longest, any(_is_anothers(bar) for bar in every))


def _is_anothers(bar: Bar) -> bool:
    return not bar.is_ours and not bar.is_yardstick


def _bar(bar: Bar, ground: _Ground, y: float) -> Iterator[str]:
    left, right, middle = ground.left, ground.right, y + _BAR / 2
    stop = min(ground.end_of(bar.value), right)
    is_cut = ground.end_of(bar.value) > right + 1
    label = fitted(bar.label, left - MARGIN - _PAD, BOLD_PX)
    emphasis = "ink strong" if bar.is_ours and ground.is_mixed else "ink"
    said = f"{bar.label}: {short(bar.value)} ({short(bar.low)} to {short(bar.high)})"
    yield f"<g>{tip(said)}"
    yield text(left - _PAD, middle + 4, label, emphasis, "end")
    yield block(left, y, stop - left, _BAR, "ours" if bar.is_ours else "other")
    if is_cut:
        yield rule(stop - 20, y + _BAR + 3, stop - 12, y - 3, "cut")
    elif bar.high > bar.low:
        low, high = (min(ground.end_of(value), right) for value in (bar.low, bar.high))
        stop = max(stop, high)
        yield rule(low, middle, high, middle, "range")
        yield from (rule(x, middle - 3, x, middle + 3, "range") for x in (low, high))
    yield text(stop + 8, middle + 4, short(bar.value), emphasis)
    yield "</g>"


def _bars_in_words(caption: Caption, groups: Mapping[str, Sequence[Bar]]) -> str:
    said = [
        f"{head}: {listed}" if head else listed
        for head, group in groups.items()
        for listed in [", ".join(f"{bar.label} {short(bar.value)}" for bar in group)]
    ]
    return f"{caption.unit}. {'; '.join(said)}."


def lines(caption: Caption, axes: Axes, drawn: Sequence[Line]) -> str:
    """Draw lines with a dot at each measured point, and the last value beside each line's name."""
    drawn = [line for line in drawn if line.points]
    points = [point for line in drawn for point in line.points]
    x_scale, y_scale = axes.x(x for x, _ in points), axes.y(y for _, y in points)
    height = max(_PLOT, _LABEL_STEP * len(drawn))
    names = [fitted(_named(line), _WIDEST_LABEL, BOLD_PX) for line in drawn]
    left = MARGIN + max((width_of(word) for _, word in y_scale.ticks), default=0) + _PAD
    widest = max((width_of(name, BOLD_PX) for name in names), default=0)
    right = WIDTH - MARGIN - widest - 2 * _GAP
    bottom = _TOP + height

    def at(point: Place) -> Place:
        x = left + _GAP + x_scale.place(point[0]) * (right - left - _GAP)
        return x, bottom - y_scale.place(point[1]) * height

    places = [[at(point) for point in line.points] for line in drawn]
    x_ticks = [(at((value, 0))[0], word) for value, word in x_scale.ticks]
    y_ticks = [(at((0, value))[1], word) for value, word in y_scale.ticks]
    elements = [*_grid(x_ticks, y_ticks, left, right, bottom)]
    elements.append(text((left + right) / 2, bottom + 38, axes.x_title, "soft", "middle"))
    label_ys = spread([place[-1][1] for place in places], _LABEL_STEP, _TOP, bottom)
    is_mixed = any(not line.is_ours for line in drawn)
    for number, line in enumerate(drawn):
        label_at = right + 2 * _GAP, label_ys[number]
        elements += _line(line, places[number])
        elements += _label(names[number], line.is_ours and is_mixed, places[number][-1], label_at)
    if y_scale.is_logarithmic:
        caption = replace(caption, unit=f"{caption.unit}, logarithmic")
    return document(caption, _lines_in_words(caption, axes, drawn), bottom + 52, elements)


def spread(wanted: Sequence[float], step: float, first: float, last: float) -> list[float]:
    """Move places apart until they are `step` from each other, as near as may be to the wanted.

    They keep their order. All between `first` and `last`, as long as there is room for them.
    """
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    found = [0.0] * len(wanted)
    least = first
    for n in order:
        found[n] = least = max(wanted[n], least)
        least += step
    most = max(last, first + step * (len(wanted) - 1))
    for n in reversed(order):
        found[n] = most = min(found[n], most)
        most -= step
    return found


def _grid(
    x_ticks: Ticks, y_ticks: Ticks, left: float, right: float, bottom: float
) -> Iterator[str]:
    for y, word in _apart(y_ticks, lambda _: TEXT_PX):
        yield rule(left, y, right, y, "grid")
        yield text(left - _PAD, y + 4, word, "soft", "end")
    yield rule(left, bottom, right, bottom, "axis")
    for x, word in _apart(x_ticks, width_of):
        yield rule(x, bottom, x, bottom + 4, "axis")
        yield text(x, bottom + 19, word, "soft", "middle")


def _apart(ticks: Ticks, size_of: Callable[[str], float]) -> list[tuple[float, str]]:
    """Leave out ticks whose words would touch. The last one stays: it says how far it goes."""
    kept: list[tuple[float, str]] = []
    for where, word in reversed(ticks):
        if all(
            abs(where - other) >= (size_of(word) + size_of(said)) / 2 + _TICK_GAP
            for other, said in kept
        ):
            kept.append((where, word))
    return kept


def _line(line: Line, places: Sequence[Place]) -> Iterator[str]:
    kind, dot = ("our-line", "ours") if line.is_ours else ("other-line", "other-dot")
    yield f'<g opacity="{line.strength:.2f}">'
    yield path(places, f"line {kind}")
    for place, (x, y) in zip(places, line.points, strict=True):
        yield circle(place, f"dot {dot}", f"{line.name}: {short(y)} at {short(x)}")
    yield "</g>"


def _label(name: str, is_strong: bool, end: Place, at: Place) -> Iterator[str]:  # noqa: FBT001
    """Write a name where there is room, and lead to it from the end of its line."""
    yield path([(end[0] + 7, end[1]), (at[0] - 5, at[1])], "lead")
    yield text(at[0], at[1] + 4, name, "ink strong" if is_strong else "ink")


def _named(line: Line) -> str:
    return f"{line.name}  {short(line.points[-1][1])}"


def _lines_in_words(caption: Caption, axes: Axes, drawn: Sequence[Line]) -> str:
    said = [
        f"{line.name}: {', '.join(f'{short(y)} at {short(x)}' for x, y in line.points)}"
        for line in drawn
    ]
    return f"{caption.unit}, by {axes.x_title}. {'; '.join(said)}."
