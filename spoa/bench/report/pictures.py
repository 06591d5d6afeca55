"""Which pictures show which results."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from statistics import median
from typing import Final

from spoa.bench.options import THIS
from spoa.bench.report.chart import Axes, Bar, Line, bars, lines
from spoa.bench.report.labels import conditions, is_named_by_condition, label, words
from spoa.bench.report.parts import Part, chosen
from spoa.bench.report.scale import amounts, linear, logarithmic, nines
from spoa.bench.report.svg import Caption
from spoa.bench.result import Result, numbers_of

_PERCENTILE: Final = re.compile(r"p(\d+(?:\.\d+)?)_ms")
_OURS: Final = re.compile(r"kat\b")
_YARDSTICK: Final = "ceiling"
_WEAKEST: Final = 0.4
_ENOUGH: Final = 1 - 1e-9
_MS: Final = "ms"
_US: Final = "us of CPU per request"

_COMPARED: Final = {
    "latency": "rate",
    "placement": "redis",
    "disturbed": "phase",
}
"""What the lines of a picture of percentiles differ in; elsewhere it is the name."""

_TAIL: Final = {"p50": "p50_ms", "p99": "p99_ms", "p99.9": "p99.9_ms"}
_COST: Final = {"agent": "agent_us", "redis": "redis_us", "haproxy": "haproxy_us"}
_FRONT: Final = ("haproxy", "threads")
_SHAPE: Final = ("connections", "in_flight")
_NOT_OURS: Final = ("redis", "haproxy")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, and the part that it belongs to."""

    part: str
    name: str
    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class _Sketch:
    """A picture that has no name of its own yet. `said`: what all of it has in common."""

    kind: str
    title: str
    unit: str
    draw: Callable[[Caption], str]
    said: str = ""


def pictures(results: Sequence[Result]) -> list[Picture]:
    """Draw all pictures that these results make."""
    drawn: dict[str, Picture] = {}
    for part, mine in chosen(results):
        for sketch in _sketches(part, mine):
            name = _free(f"{part.name} {sketch.kind} {sketch.said}", drawn)
            title = ", ".join(filter(None, [sketch.title, sketch.said]))
            svg = sketch.draw(Caption(name, title, sketch.unit))
            drawn[name] = Picture(part.name, name, title, svg)
    return list(drawn.values())


def _sketches(part: Part, results: Sequence[Result]) -> Iterator[_Sketch]:
    if part.name == "growth":
        yield from _growth(results)
        yield from _sizes(results)
        return
    is_timed = part.name in ("latency", "disturbed")
    timed = [one for one in results if is_timed or "rate" in one.at]
    yield from _throughput([one for one in results if one not in timed])
    if part.name == "haproxy":
        yield from _answers_against_load(timed)
        timed = _at_middle_rate(timed)
    yield from _percentiles(timed, _COMPARED.get(part.name, "name"))
    if part.name == "latency":
        yield from _against_load(timed)


def _throughput(results: Sequence[Result]) -> Iterator[_Sketch]:
    """Compare requests/s; a group for each HAProxy."""
    groups: dict[str, list[Bar]] = {}
    for one in results:
        if bar := _bar(one, "requests_per_s", [*_FRONT, *_SHAPE]):
            head = conditions(one, set(one.at) - set(_FRONT))
            groups.setdefault(head, []).append(bar)
    if groups:
        unit = "median of the rounds; the thin line goes from the slowest round to the fastest"
        yield _Sketch("throughput", "Requests per second", unit, partial(bars, groups=groups))


def _sizes(results: Sequence[Result]) -> Iterator[_Sketch]:
    """Compare what one of each kind takes in Redis."""
    group = [bar for one in results if (bar := _bar(one, "redis_bytes", ["name"]))]
    if group:
        draw = partial(bars, groups={"": group})
        yield _Sketch("redis", "What one of a kind takes in Redis", "bytes", draw)


def _bar(one: Result, figure: str, without: Sequence[str]) -> Bar | None:
    values = [row[figure] for row in _rounds(one) if figure in row]
    if not values:
        return None
    return Bar(
        label=conditions(one) if "name" in without else label(one, without),
        value=median(values),
        low=min(values),
        high=max(values),
        is_ours=_is_ours(one),
        is_yardstick=one.name == _YARDSTICK,
    )


def _percentiles(results: Sequence[Result], key: str) -> Iterator[_Sketch]:
    """Follow latency from the usual request to the rare one."""
    for said, group in _grouped(results, key).items():
        drawn = [
            Line(conditions(one, set(one.at) - {key}) or one.name, points, is_ours=_is_ours(one))
            for one in group
            if (points := _curve(one))
        ]
        axes = Axes(nines, amounts, "percentile of all requests")
        shaded = drawn if key == "name" else _shaded(drawn)
        yield from _plot("percentiles", "Latency by percentile", _MS, said, axes, shaded)


def _against_load(results: Sequence[Result]) -> Iterator[_Sketch]:
    """Follow what a request takes and costs from an idle machine to a busy one."""
    axes = Axes(linear, amounts, "requests/s")
    for said, group in _grouped(results, "rate").items():
        if len(group) > 1:
            taken, spent = (_followed(group, "rate", figures) for figures in (_TAIL, _COST))
            yield from _plot("load", "Latency against load", _MS, said, axes, _shaded(taken))
            cost = replace(axes, y=linear)
            yield from _plot("cost", "Cost of a request against load", _US, said, cost, spent)


def _answers_against_load(results: Sequence[Result]) -> Iterator[_Sketch]:
    """Follow the latency of everybody who answers HAProxy, from an idle machine to a busy one."""
    axes = Axes(linear, amounts, "requests/s")
    behind: dict[str, dict[str, list[Result]]] = {}
    for one in results:
        behind.setdefault(conditions(one, ["rate"]), {}).setdefault(one.name, []).append(one)
    for said, group in behind.items():
        for name, figure in {"p50": "p50_ms", "p99": "p99_ms"}.items():
            drawn = [
                replace(line, name=who, is_ours=_is_ours(at_rates[0]))
                for who, at_rates in group.items()
                if len(at_rates) > 1
                for line in _followed(at_rates, "rate", {name: figure})
            ]
            yield from _plot(f"load {name}", f"{name} against load", _MS, said, axes, drawn)


def _at_middle_rate(results: Sequence[Result]) -> list[Result]:
    """Leave one rate: neither idle nor full. A picture for each of them is too many."""
    rates = sorted({float(one.at.get("rate", 0)) for one in results})
    return [one for one in results if one.at.get("rate", 0) == rates[len(rates) // 2]]


def _growth(results: Sequence[Result]) -> Iterator[_Sketch]:
    """Follow what a request costs and what is held, as one thing becomes more."""
    for key in dict.fromkeys(map(_growing, results)):
        axes = Axes(logarithmic, linear, words(key))
        grown = [one for one in results if _growing(one) == key]
        for said, group in _grouped(grown, key).items():
            spent, rate, held = (
                _followed(group, key, figures)
                for figures in (_COST, {"kat": "requests_per_s"}, {"kat": "memory_mb"})
            )
            by = ", ".join(filter(None, [f"by {words(key)}", said]))
            yield from _plot("cost", "Cost of a request", _US, by, axes, spent)
            yield from _plot("throughput", "Requests per second", "requests/s", by, axes, rate)
            yield from _plot("memory", "Memory", "MB", by, axes, held)


def _plot(  # noqa: PLR0917 - in the order of the picture, from its head to its lines
    kind: str, title: str, unit: str, said: str, axes: Axes, drawn: Sequence[Line]
) -> Iterator[_Sketch]:
    """Draw lines, if there are any."""
    if drawn:
        yield _Sketch(kind, title, unit, partial(lines, axes=axes, drawn=drawn), said)


def _shaded(drawn: Sequence[Line]) -> list[Line]:
    """Let the lines of the agent become stronger from the first to the last."""
    ours = [line for line in drawn if line.is_ours]
    strengths = {
        line.name: 1 - (1 - _WEAKEST) * later / len(ours)
        for later, line in enumerate(reversed(ours))
    }
    return [replace(line, strength=strengths.get(line.name, 1.0)) for line in drawn]


def _followed(group: Sequence[Result], key: str, figures: Mapping[str, str]) -> list[Line]:
    """Make a line of each figure that was measured, by what `key` says."""
    drawn = []
    for name, figure in figures.items():
        points = sorted(
            (float(one.at.get(key, 0)), one.median[figure]) for one in group if figure in one.median
        )
        if points:
            drawn.append(Line(name, points, is_ours=name not in _NOT_OURS))
    return drawn


def _curve(one: Result) -> list[tuple[float, float]]:
    """Read percentiles out of the figures, as far as a request of a round lies beyond them."""
    figures = one.median
    requests = figures.get("requests", inf)
    found = [(float(m[1]), v) for name, v in figures.items() if (m := _PERCENTILE.fullmatch(name))]
    return sorted((p, v) for p, v in found if p < 100 and requests * (1 - p / 100) >= _ENOUGH)


def _rounds(one: Result) -> Iterator[Mapping[str, float]]:
    return (numbers_of(round_.figures) for round_ in one.rounds)


def _grouped(results: Sequence[Result], key: str) -> dict[str, list[Result]]:
    """Put together what differs in `key` alone, by what it has in common."""
    groups: dict[str, list[Result]] = {}
    for one in results:
        # What grows with it, the requests in flight with the connections, makes no other line.
        without = [
            k
            for k, v in one.at.items()
            if k == key or (one.part == "growth" and not isinstance(v, str))
        ]
        is_said = key == "name" or is_named_by_condition(one)
        said = ", ".join(filter(None, ["" if is_said else one.name, conditions(one, without)]))
        groups.setdefault(said, []).append(one)
    return groups


def _growing(one: Result) -> str:
    """Say which condition it is that grows: the one of that name, or the first number."""
    numbers = [key for key, value in one.at.items() if not isinstance(value, str)]
    named = [key for key in numbers if words(key) == words(one.name)]
    return [*named, *numbers, "size"][0]


def _is_ours(one: Result) -> bool:
    """Say whether it is the agent that is seen: this one, and with all that is asked of it."""
    if one.part in ("haproxy", "peers") and not _OURS.match(one.name):
        return False
    usual = one.name != _YARDSTICK and one.at.get("phase") != "calm"
    return usual and one.at.get("build", THIS) == THIS


def _free(said: str, taken: Mapping[str, Picture]) -> str:
    """Make a name that a file may have, and that no other picture has."""
    name = re.sub(r"[^a-z0-9.]+", "-", said.lower()).strip("-.")[:80]
    if name not in taken:
        return name
    return next(free for n in range(2, len(taken) + 3) if (free := f"{name}-{n}") not in taken)
