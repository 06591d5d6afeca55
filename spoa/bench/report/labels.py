"""How results and figures are called where people read them, and how their numbers are written."""

from collections.abc import Collection
from typing import Final

from spoa.bench.report.scale import short
from spoa.bench.result import Result

_UNITS: Final = {
    "_per_s": ("/s", "{:,.0f}"),
    "per_haproxy_core": ("per haproxy core", "{:.3g}"),  # a ratio; the others are rates
    "_core": (" core", "{:,.0f}"),
    "_us": (" us", "{:.2f}"),
    "_ms": (" ms", "{:.2f}"),
    "_mb": (" MB", "{:,.1f}"),
    "_s": (" s", "{:.2f}"),
    "_bytes": (" bytes", "{:,.0f}"),
}
"""The end of a figure's name: how it is read, and how exactly."""


def label(one: Result, without: Collection[str] = ()) -> str:
    """Name a result: who or what, and under which conditions, `without` some that are said above.

    What grows is not named twice.
    """
    said = conditions(one, without)
    is_said = bool(said) and is_named_by_condition(one)
    return ", ".join(filter(None, ["" if is_said else one.name, said]))


def conditions(one: Result, without: Collection[str] = ()) -> str:
    """Say under which conditions a result was measured."""
    return ", ".join(_condition(*item) for item in one.at.items() if item[0] not in without)


def is_named_by_condition(one: Result) -> bool:
    """Say whether a result is called like the condition that it is about: what grows."""
    return words(one.name) in map(words, one.at)


def words(name: str) -> str:
    """Turn a name of the program into words."""
    return name.replace("_", " ")


def title_of(figure: str) -> str:
    """Turn the name of a figure into the head of its column: `p99.9_ms` into `p99.9 ms`."""
    end = _end_of(figure)
    return words(figure.removesuffix(end)) + (_UNITS[end][0] if end else "")


def number_of(figure: str, value: float) -> str:
    """Write a figure as exactly as its unit deserves."""
    end = _end_of(figure)
    return _UNITS[end][1].format(value) if end else short(value)


def _condition(key: str, value: float | str) -> str:
    """Say one condition in words: `5,000/s`, `1 connection`, `HAProxy 3.2`."""
    if isinstance(value, str):
        return f"HAProxy {value}" if key == "haproxy" else value
    number = f"{value:,.12g}"
    if key == "rate":
        return f"{number}/s"
    return f"{number} {words(key.removesuffix('s') if value == 1 else key)}"


def _end_of(figure: str) -> str:
    return next((end for end in _UNITS if figure.endswith(end)), "")
