"""Tables of medians: as many columns as there are figures to show, and a dash where one lacks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from spoa.bench.latency import SHOWN
from spoa.bench.report.labels import label, number_of, title_of
from spoa.bench.report.parts import Part
from spoa.bench.result import Figures, Result, with_cores

NOTHING: Final = "-"

_LATENCIES: Final = [*(f"p{percent:g}_ms" for percent in SHOWN), "max_ms"]
_USUAL: Final = frozenset(
    [
        *("requests", "elapsed_s", "wrong", "requests_per_s", "per_agent_core", "per_redis_core"),
        *("agent_us", "redis_us", "haproxy_us", "generator_us", *_LATENCIES),
        *(f"late_{name}" for name in _LATENCIES),
    ]
)
"""Figures of every round: each part shows those that tell something about it. Others are news."""


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows of cells, the first of each the row's name."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
            for line in lines
        )


def tables_of(part: Part, results: Sequence[Result]) -> list[Table]:
    """Lay out the medians of one part, by themselves what was asked as fast as it was answered.

    So is what is no request at all: the columns of one table are for all of its rows.
    """
    kinds: dict[tuple[bool, bool], list[Result]] = {}
    for one in results:
        kinds.setdefault(("rate" in one.at, "requests_per_s" in one.median), []).append(one)
    return [_table_of(part, kind) for kind in kinds.values()]


def table_of_ratios(rows: Sequence[tuple[str, Figures]]) -> Table:
    """Lay out ratios, which have no unit."""
    names = dict.fromkeys(name for _, figures in rows for name in figures)
    return _table(rows, list(names), lambda _, ratio: f"{ratio:.2f}")


def faults_of(results: Sequence[Result]) -> list[str]:
    """Name whatever was wrong in any round: a median of zero hides no fault."""
    return [f"{label(one)}: {n} x {what}" for one in results for what, n in one.wrong.items()]


def _table_of(part: Part, results: Sequence[Result]) -> Table:
    rows = [(label(one), {"wrong": 0.0} | with_cores(one.median)) for one in results]
    news = [name for _, figures in rows for name in figures if name not in _USUAL]
    wanted = dict.fromkeys([*part.figures, *news, "wrong"])
    names = [name for name in wanted if any(name in figures for _, figures in rows)]
    return _table(rows, names, number_of)


def _table(
    rows: Sequence[tuple[str, Figures]], names: Sequence[str], write: Callable[[str, float], str]
) -> Table:
    return Table(
        ["", *map(title_of, names)],
        [
            [head, *(write(name, f[name]) if name in f else NOTHING for name in names)]
            for head, f in rows
        ],
    )
