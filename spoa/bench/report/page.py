"""One page with everything: circumstances, pictures, tables, and what they do not say.

It needs no other file, no script and no network. It is XML as well as HTML.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from spoa.bench.report.parts import Part, chosen, not_measured
from spoa.bench.report.pictures import Picture, pictures
from spoa.bench.report.ratios import ratios_of
from spoa.bench.report.svg import escaped
from spoa.bench.report.tables import Table, faults_of, table_of_ratios, tables_of
from spoa.bench.result import Result

_STYLE: Final = """\
:root{color-scheme:light dark;--paper:#fff;--ground:#f4f6f8;--ink:#1c2430;--soft:#5b6675;\
--line:#e1e5ea;--ours:#1f6fb2}
@media (prefers-color-scheme:dark){:root{--paper:#161b22;--ground:#0e1217;--ink:#e4e8ee;\
--soft:#9aa5b4;--line:#2b323d;--ours:#5aa9e6}}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 "Helvetica Neue",Helvetica,\
Arial,"Liberation Sans",system-ui,sans-serif}
main{max-width:82rem;margin:auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.75rem;margin:0 0 1rem}h2{font-size:1.3rem;margin:3rem 0 .25rem}
h3{font-size:1rem;margin:1.5rem 0 .25rem}
p{max-width:46rem;margin:.25rem 0 1rem}.soft{color:var(--soft)}a{color:var(--ours)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1.25rem;margin:0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.pictures{columns:2 30rem;column-gap:1rem;margin:1rem 0}
.pictures svg,.table,dl{background:var(--paper);border:1px solid var(--line);border-radius:8px}
.pictures svg{display:block;width:100%;max-width:42rem;height:auto;box-sizing:border-box;\
break-inside:avoid;margin:0 0 1rem}
.table{overflow-x:auto;width:fit-content;max-width:100%;margin:0 0 1rem}
dl,.table{padding:.75rem 1rem;box-sizing:border-box}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .75rem;white-space:nowrap}
th:first-child{text-align:left;font-weight:400;padding-left:0}
summary{cursor:pointer;color:var(--ours);margin:0 0 1rem}
thead th{color:var(--soft);font-weight:400}tbody tr{border-top:1px solid var(--line)}"""

_LONG: Final = 30
"""So many rows hide what comes after them: they are folded."""


def draw_page(facts: Mapping[str, str], results: Sequence[Result], archive: str) -> str:
    """Draw the page. `archive` is what there is to be saved from it, as JSON."""
    drawn = pictures(results)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml">\n<head>',
            '<meta charset="utf-8"/>',
            '<meta name="viewport" content="width=device-width,initial-scale=1"/>',
            f"<title>kat: how fast it is</title>\n<style>{_STYLE}</style>\n</head>",
            "<body>\n<main>\n<h1>How fast the agent is</h1>",
            *_circumstances(facts),
            *(piece for part, mine in chosen(results) for piece in _section(part, mine, drawn)),
            *_faults(results),
            *_end(results, archive),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _circumstances(facts: Mapping[str, str]) -> Iterator[str]:
    if facts:
        yield "<dl>"
        for name, fact in facts.items():
            yield f"<dt>{escaped(name)}</dt><dd>{escaped(fact)}</dd>"
        yield "</dl>"


def _section(part: Part, results: Sequence[Result], drawn: Sequence[Picture]) -> Iterator[str]:
    yield f"<section>\n<h2>{escaped(part.title)}</h2>"
    yield f"<p>{escaped(part.says)}</p>"
    mine = [picture.svg for picture in drawn if picture.part == part.name]
    if mine:
        yield '<div class="pictures">'
        yield from mine
        yield "</div>"
    for table in tables_of(part, results):
        yield from _table(table)
    if ratios := ratios_of(part, results):
        yield "<h3>Ratios: the median of those of each round</h3>"
        yield from _table(table_of_ratios(ratios))
    yield f'<p class="soft">{escaped(part.says_not)}</p>\n</section>'


def _table(table: Table) -> Iterator[str]:
    if len(table.rows) > _LONG:
        yield f"<details>\n<summary>{len(table.rows)} rows</summary>"
    yield '<div class="table"><table>\n<thead><tr>'
    yield "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in table.head)
    yield "</tr></thead>\n<tbody>"
    for name, *cells in table.rows:
        row = "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
        yield f'<tr><th scope="row">{escaped(name)}</th>{row}</tr>'
    yield "</tbody>\n</table></div>"
    if len(table.rows) > _LONG:
        yield "</details>"


def _faults(results: Sequence[Result]) -> Iterator[str]:
    if faults := faults_of(results):
        yield "<section>\n<h2>Wrong</h2>\n<ul>"
        yield from (f"<li>{escaped(fault)}</li>" for fault in faults)
        yield "</ul>\n</section>"


def _end(results: Sequence[Result], archive: str) -> Iterator[str]:
    yield "<section>\n<h2>What this does not say</h2>"
    yield f"<p>{escaped(not_measured(results) if results else 'Nothing was measured.')}</p>"
    if results:
        yield "<p>A percentile is drawn where at least one request of a round lies beyond it.</p>"
    encoded = b64encode(archive.encode()).decode()
    link = f'<a download="kat-bench.json" href="data:application/json;base64,{encoded}">'
    yield f"<p>{link}All figures of all rounds, as JSON</a></p>\n</section>"
