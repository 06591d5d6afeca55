"""What is printed and what is written: figures, and everything needed to read them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill

from spoa.bench.load.corpus import MANY_USERS
from spoa.bench.options import Options
from spoa.bench.report.archive import NotAnArchive, encode, read_all
from spoa.bench.report.facts import environment
from spoa.bench.report.page import draw_page
from spoa.bench.report.parts import chosen, not_measured
from spoa.bench.report.pictures import pictures
from spoa.bench.report.ratios import ratios_of
from spoa.bench.report.tables import faults_of, table_of_ratios, tables_of
from spoa.bench.result import Result

__all__ = [
    "NotAnArchive",
    "environment",
    "header",
    "read_json",
    "tables",
    "write_html",
    "write_json",
    "write_pictures",
]

_WIDTH = 98


def header(facts: Mapping[str, str], options: Options | None) -> str:
    """Head the tables with the circumstances, without which their numbers mean nothing."""
    return "\n".join(f"{name:<9} {text}" for name, text in _told(facts, options).items())


def tables(results: Sequence[Result]) -> str:
    """Lay out medians and ratios of each part, then whatever was wrong."""
    return "\n".join(_lines(results))


def _lines(results: Sequence[Result]) -> Iterator[str]:
    for part, mine in chosen(results):
        yield fill(f"{part.title}. {part.says}", _WIDTH)
        yield from (f"{table}\n" for table in tables_of(part, mine))
        if ratios := ratios_of(part, mine):
            yield "Ratios: the median of those of each round."
            yield f"{table_of_ratios(ratios)}\n"
    if faults := faults_of(results):
        yield "Wrong:"
        yield from (f"  {fault}" for fault in faults)
        yield ""
    yield fill(not_measured(results) if results else "Nothing was measured.", _WIDTH)


def write_json(
    path: Path, facts: Mapping[str, str], options: Options | None, results: Sequence[Result]
) -> None:
    """Write every figure of every round."""
    path.write_text(encode(_told(facts, options), options, results), encoding="ascii")


def read_json(*paths: Path) -> tuple[dict[str, str], list[Result]]:
    """Read what `write_json` wrote, several files as one. Raises NotAnArchive."""
    return read_all(paths)


def write_html(
    path: Path, facts: Mapping[str, str], options: Options | None, results: Sequence[Result]
) -> None:
    """Write one page that needs nothing else. Facts that were read know the options already."""
    told = _told(facts, options)
    page = draw_page(told, results, encode(told, options, results))
    path.write_text(page, encoding="ascii", errors="xmlcharrefreplace")


def write_pictures(directory: Path, results: Sequence[Result]) -> list[Path]:
    """Write every picture of these results as an SVG file of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in pictures(results):
        written.append(directory / f"{picture.name}.svg")
        written[-1].write_text(picture.svg, encoding="ascii", errors="xmlcharrefreplace")
    return written


def _told(facts: Mapping[str, str], options: Options | None) -> dict[str, str]:
    return {**facts, "load": _load(options)} if options else dict(facts)


def _load(options: Options) -> str:
    users = "a user per token" if options.users >= MANY_USERS else f"{options.users} users"
    return (
        f"{options.connections} connections x {options.in_flight} in flight, {users}, "
        f"{options.generators} generator, {options.workers} worker, "
        f"agent over {options.transport}, Redis over {options.redis}, "
        f"{options.rounds} x {options.seconds:g} s, {'pinned' if options.pin else 'not pinned'}"
    )
