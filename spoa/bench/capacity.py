"""Tables for docs/capacity.md: `python -m spoa.bench.capacity RESULTS.json ...` prints Markdown.

What the results hold is laid out as measured; what sizing.py makes of it says that it is computed.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from spoa.bench.flood import GUESSED
from spoa.bench.report.archive import NotAnArchive, read_all
from spoa.bench.result import Figures, Result
from spoa.bench.sizing import TARGETS, UTILISATION, Cost, costs, ladder, need, per_core

TITLES: Final = {
    "agent": "agent workers",
    "redis": "Redis shards",
    "haproxy": "HAProxy threads",
}
"""One worker, one Redis, one thread of HAProxy: each fills one core and no more."""

_GROWN: Final = {
    "requests_per_s": ("requests/s", "{:,.0f}"),
    "agent_us": ("agent us", "{:.1f}"),
    "redis_us": ("Redis us", "{:.1f}"),
    "p50_ms": ("p50 ms", "{:.2f}"),
    "p99_ms": ("p99 ms", "{:.2f}"),
    "memory_mb": ("worker MB", "{:.0f}"),
    "redis_memory_mb": ("Redis MB", "{:,.0f}"),
}
_FELT: Final = ("p50_ms", "p99_ms", "p99.9_ms")
_WATCHED: Final = {
    "first_mb": "first minute",
    "last_mb": "last minute",
    "per_minute_mb": "growth per minute",
}


class NotMeasured(Exception):
    """The results lack what is needed. The message says what."""


def report(results: Sequence[Result]) -> str:
    """Write all tables that the results have something for. Raises NotMeasured for none."""
    parts = list(_parts(results))
    if not parts:
        raise NotMeasured("nothing of `kat bench capacity haproxy growth disturbed` is in it")
    return "\n\n".join(f"{says}\n\n{table}" for says, table in parts)


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table; the first column is text, the others are numbers."""
    marks = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, marks, *rows))


def _parts(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    if known := costs(results):
        yield "CPU per request (measured), and what one core makes of it (computed):", _cores(known)
        yield f"At {UTILISATION:.0%} of each core (computed):", _needs(known)
    for cost in known:
        yield f"What is full first, `{cost.kind}` (computed):", _rungs(cost)
    grown = [one for one in results if one.part == "growth"]
    for name in dict.fromkeys(one.name for one in grown if "requests_per_s" in one.median):
        mine = [one for one in grown if one.name == name]
        yield f"What grows: {name} (measured):", _growth(mine)
    if sizes := [one for one in grown if "redis_bytes" in one.median]:
        yield "What Redis stores (measured), and a million of it (computed):", _sizes(sizes)
    disturbed = [one for one in results if one.part == "disturbed"]
    if pairs := list(_pairs(disturbed)):
        yield "Honest requests, calm and disturbed (measured):", _disturbances(pairs)
    if watched := [one for one in disturbed if "per_minute_mb" in one.median]:
        yield "Memory over time, in MB (measured):", _memories(watched)


def _cores(known: Sequence[Cost]) -> str:
    whose = list(known[0].us)
    titles = ["", *(f"{who} us" for who in whose), *(f"requests/s per {who} core" for who in whose)]
    return markdown(
        titles,
        (
            [
                cost.kind,
                *(f"{cost.us[who]:.1f}" for who in whose),
                *(_rounded(per_core(cost.us[who])) for who in whose),
            ]
            for cost in known
        ),
    )


def _needs(known: Sequence[Cost]) -> str:
    whose = list(known[0].us)
    titles = ["", "requests/s", *(TITLES[who] for who in whose), "most of the work"]
    needs = [need(cost, target) for cost in known for target in TARGETS]
    return markdown(
        titles,
        (
            [
                one.kind,
                f"{one.requests_per_s:,}",
                *(f"{one.units[who]:,}" for who in whose),
                one.bottleneck,
            ]
            for one in needs
        ),
    )


def _rungs(cost: Cost) -> str:
    titles = [*(TITLES[who] for who in cost.us), "requests/s", "full first"]
    return markdown(
        titles,
        (
            [*(str(count) for count in rung.units.values()), _rounded(rung.bears), rung.bottleneck]
            for rung in ladder(cost)
        ),
    )


def _growth(mine: Sequence[Result]) -> str:
    keys = list(mine[0].at)
    shown = {name: column for name, column in _GROWN.items() if name in mine[0].median}
    titles = [*(key.replace("_", " ") for key in keys), *(title for title, _ in shown.values())]
    titles.append("failed")
    return markdown(
        titles,
        (
            [
                *(_value(one.at[key]) for key in keys),
                *(form.format(one.median[name]) for name, (_, form) in shown.items()),
                f"{one.wrong.total():,}",
            ]
            for one in mine
        ),
    )


def _sizes(sizes: Sequence[Result]) -> str:
    found = {str(one.at["kind"]): one.median["redis_bytes"] for one in sizes}
    rows = ([kind, f"{size:,.0f}", f"{size:,.0f} MB"] for kind, size in found.items())
    return markdown(["", "bytes", "a million"], rows)


def _pairs(disturbed: Iterable[Result]) -> Iterator[tuple[str, Figures, Result]]:
    """Put each disturbance beside its calm."""
    phases: dict[str, Mapping[str, Result]] = {}
    for one in disturbed:
        phases[one.name] = {**phases.get(one.name, {}), str(one.at.get("phase")): one}
    for name, phase in phases.items():
        if "calm" in phase and "disturbed" in phase:
            yield name, phase["calm"].median, phase["disturbed"]


def _disturbances(pairs: Sequence[tuple[str, Figures, Result]]) -> str:
    shown = [name.replace("_", " ") for name in _FELT]
    titles = ["", *(f"calm {name}" for name in shown), *shown, "p99 ratio", "failed"]
    rows = []
    for name, calm, disturbed in pairs:
        felt = disturbed.median
        times = [f"{figures[key]:.2f}" for figures in (calm, felt) for key in _FELT]
        ratio = f"{felt['p99_ms'] / calm['p99_ms']:.1f}"
        failed = sum(n for what, n in disturbed.wrong.items() if not what.startswith(GUESSED))
        rows.append([name, *times, ratio, f"{failed:,}"])
    return markdown(titles, rows)


def _memories(watched: Sequence[Result]) -> str:
    titles = ["minutes", *(f"{who} {t}" for who in ("worker", "Redis") for t in _WATCHED.values())]
    names = [f"{who}{name}" for who in ("", "redis_") for name in _WATCHED]
    return markdown(
        titles,
        (
            [_value(one.at["minutes"]), *(f"{one.median[name]:.2f}" for name in names)]
            for one in watched
        ),
    )


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.12g}"


def _rounded(number: float) -> str:
    """Show three digits: no more were measured."""
    digits = max(len(f"{number:.0f}") - 3, 0)
    return f"{round(number, -digits):,.0f}"


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print("usage: python -m spoa.bench.capacity RESULTS.json ...", file=sys.stderr)
        return 2
    try:
        _, results = read_all([Path(argument) for argument in arguments])
        print(report(results))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except (NotAnArchive, NotMeasured) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
