"""What was measured: figures of rounds, and their medians. Pure; every part ends here.

Names of figures say their unit: `requests_per_s`, `agent_us` (CPU per request), `p99_ms`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import median

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round, and what was wrong in it."""

    figures: Figures
    wrong: Counter[str]


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one line: a part of the benchmark, who or what, and under which conditions."""

    part: str
    """`capacity`, `latency`, ...: the table it belongs to."""
    name: str
    at: Mapping[str, float | str] = field(default_factory=dict)
    """What was varied: rate, connections, ..."""
    rounds: list[Round] = field(default_factory=list)

    @property
    def median(self) -> Figures:
        """The median of each figure by itself."""
        return median_of([one.figures for one in self.rounds])

    @property
    def wrong(self) -> Counter[str]:
        """Everything that was wrong in any round, by what it was."""
        return sum((one.wrong for one in self.rounds), Counter[str]())


def median_of(rows: Sequence[Figures]) -> Figures:
    """Take the median of each figure by itself, of the rows that have it."""
    rows = [numbers_of(row) for row in rows]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: median(row[name] for row in rows if name in row) for name in names}


def numbers_of(figures: Figures) -> Figures:
    """Leave out what is no number: neither a median nor JSON nor a picture can hold it."""
    return {name: value for name, value in figures.items() if isfinite(value)}


def with_cores(figures: Figures) -> Figures:
    """Add what one core of the agent, or of Redis, would do if nothing else held it up."""
    spent_us = {f"per_{name}_core": figures.get(f"{name}_us") for name in ("agent", "redis")}
    return figures | {name: 1e6 / spent for name, spent in spent_us.items() if spent}
