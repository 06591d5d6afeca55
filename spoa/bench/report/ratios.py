"""Ratios: of rounds that were played one after the other, so that a slow machine is slow to both.

The median of a figure's ratios is not the ratio of its medians, and it is what is shown.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from spoa.bench.options import THIS
from spoa.bench.report.labels import conditions, label
from spoa.bench.report.parts import Part
from spoa.bench.result import Figures, Result, median_of, numbers_of, with_cores

_ECHO: Final = "echo agent"

_NAMES: Final = {
    "capacity": (
        *(
            (name, "consume")
            for name in ("bound", "ip+token", "grant", "session", "session-cold", "session-idle")
        ),
        *(
            (name, "consume")
            for name in ("session-open", "replay", "unknown", "wrong-acl", "malformed", "mixed")
        ),
        ("consume", "unaudited"),
    ),
    "haproxy": ((_ECHO, "no filter"), ("kat", "lua")),
}
"""What is compared with what, under the same conditions."""

_CONDITIONS: Final = {
    "placement": ("redis", "unix"),
    "disturbed": ("phase", "calm"),
}
"""What is compared with itself under another condition: which, and what is usual."""

_OURS: Final = re.compile(r"kat\b")
_SHAPE: Final = ("connections", "in_flight")
"""How an agent is connected is its own affair: each peer has the most that it stands under."""


def ratios_of(part: Part, results: Sequence[Result]) -> list[tuple[str, Figures]]:
    """Compare what belongs together in one part; nothing where one of two was not measured."""
    compared = [
        (name, _ratios(part, one, other))
        for name, one, other in [*_pairs(part, results), *_builds(results)]
    ]
    return [(name, figures) for name, figures in compared if figures]


def _pairs(part: Part, results: Sequence[Result]) -> Iterator[tuple[str, Result, Result]]:
    names = _NAMES.get(part.name, ())
    closed = [one for one in results if "rate" not in one.at]
    for above, below in names:
        for one in closed:
            for other in closed:
                if (one.name, other.name) == (above, below) and one.at == other.at:
                    yield _titled(f"{above} / {below}", conditions(one)), one, other
    if part.name == "peers":
        yield from _peers(results)
    if part.name in _CONDITIONS:
        yield from _varied(results, *_CONDITIONS[part.name])


def _peers(results: Sequence[Result]) -> Iterator[tuple[str, Result, Result]]:
    """Compare each of ours with each of theirs under full load."""
    closed = [one for one in results if "rate" not in one.at]
    for one in closed:
        for other in closed:
            if _OURS.match(one.name) and not _OURS.match(other.name) and other.name != _ECHO:
                yield f"{label(one, _SHAPE)} / {label(other, _SHAPE)}", one, other


def _builds(results: Sequence[Result]) -> Iterator[tuple[str, Result, Result]]:
    """Compare builds with this one: where none is called so, the first."""
    builds = [str(one.at["build"]) for one in results if "build" in one.at]
    if builds:
        yield from _varied(results, "build", THIS if THIS in builds else builds[0])


def _varied(
    results: Sequence[Result], key: str, usual: str
) -> Iterator[tuple[str, Result, Result]]:
    for other in results:
        if other.at.get(key) != usual:
            continue
        for one in results:
            if one is not other and key in one.at and _beside(one, key) == _beside(other, key):
                yield f"{label(one, [key])}: {one.at[key]} / {usual}", one, other


def _beside(one: Result, key: str) -> tuple[str, dict[str, float | str]]:
    return one.name, {name: value for name, value in one.at.items() if name != key}


def _titled(name: str, said: str) -> str:
    return f"{name}, {said}" if said else name


def _ratios(part: Part, one: Result, other: Result) -> Figures:
    """Compare round by round, as many as both have."""
    rounds = zip(
        *([with_cores(numbers_of(r.figures)) for r in result.rounds] for result in (one, other)),
        strict=False,
    )
    return median_of(
        [{k: a[k] / b[k] for k in part.compared if k in a and b.get(k)} for a, b in rounds]
    )
