import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from spoa.bench.options import Options
from spoa.bench.report import (
    environment,
    header,
    read_json,
    tables,
    write_html,
    write_json,
    write_pictures,
)
from spoa.bench.result import Result, Round

FACTS = {"machine": "a machine", "commit": "abc"}
TAIL = {"p50_ms": 0.2, "p99_ms": 1.0, "p99.9_ms": 4.0}


def result(part: str, name: str, rate: float | None = None) -> Result:
    figures = {"requests_per_s": 80_000.4, "agent_us": 10.0, **TAIL}
    return Result(part, name, {"rate": rate} if rate else {}, [Round(figures, Counter())])


RESULTS = [
    result("capacity", "consume"),
    result("capacity", "session"),
    result("latency", "open", 5000.0),
    result("strange", "caf\u00e9 <&>"),
]


def test_every_part_has_a_table() -> None:
    """Each is headed by what it says; ratios follow their part."""
    shown = tables(RESULTS)
    lines = shown.splitlines()
    begins = [
        "Capacity. Closed loop",
        "consume ",
        "session ",
        "Ratios: ",
        "session / consume ",
        "Latency. Open loop",
        "open, 5,000/s ",
        "strange",
        "caf\u00e9 <&> ",
        "Not measured: ",
    ]
    places = [next(n for n, line in enumerate(lines) if line.startswith(b)) for b in begins]
    assert places == sorted(places)
    assert "Wrong" not in shown


def test_faults_are_below_the_tables() -> None:
    """A median of zero hides no fault: each is listed with its number."""
    rounds = [Round({"wrong": float(bool(fault))}, Counter(fault)) for fault in ([], [], ["lost"])]
    assert "Wrong:\n  consume: 1 x lost" in tables([Result("capacity", "consume", {}, rounds)])


def test_nothing_measured_is_said() -> None:
    """No table is no silence."""
    assert tables([]) == "Nothing was measured."


def test_the_header_tells_the_circumstances() -> None:
    """Figures come with machine, versions, commit and load shape, or they mean nothing."""
    shown = header(environment(), Options())
    names = "date kat commit machine busy system python packages redis limits load"
    assert [line.split()[0] for line in shown.splitlines()] == names.split()
    assert "16 connections x 20 in flight" in shown
    assert "agent over unix, Redis over unix" in shown


def test_a_page_can_be_drawn_again_from_json(tmp_path: Path) -> None:
    """The file holds all that the page shows, the load and its faults as well."""
    first, again, archive = (tmp_path / name for name in ("a.html", "b.html", "a.json"))
    write_html(first, FACTS, Options(), RESULTS)
    write_json(archive, FACTS, Options(), RESULTS)
    facts, results = read_json(archive)
    assert results == RESULTS
    write_html(again, facts, None, results)
    assert _seen(again) == _seen(first)
    assert "16 connections x 20 in flight" in _seen(again)


def test_json_holds_facts_options_and_medians(tmp_path: Path) -> None:
    """Who reads it without us finds everything by name."""
    path = tmp_path / "out.json"
    write_json(path, FACTS, Options(), RESULTS)
    written = json.loads(path.read_text("ascii"))
    assert written["environment"]["commit"] == "abc"
    assert written["options"]["connections"] == 16
    assert written["results"][0]["median"]["per_agent_core"] == 100_000


def test_several_files_make_one_page(tmp_path: Path) -> None:
    """What was measured on several days, or by several commands, is shown together."""
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, half in zip(paths, (RESULTS[:2], RESULTS[2:]), strict=True):
        write_json(path, FACTS, None, half)
    assert read_json(*paths) == (FACTS, RESULTS)


def test_pictures_are_files(tmp_path: Path) -> None:
    """Each is an SVG document of its own, in ASCII, in a directory that is made for them."""
    written = write_pictures(tmp_path / "new", RESULTS)
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    assert [path.name for path in written] == [
        "capacity-throughput.svg",
        "latency-percentiles-open.svg",
        "strange-throughput.svg",
    ]
    for path in written:
        assert path.read_bytes().isascii()
        assert ET.parse(path).getroot().tag.endswith("svg")
    assert "caf\u00e9 <&>" in "".join(ET.parse(written[-1]).getroot().itertext())


def _seen(page: Path) -> str:
    """Return the page but for the archive in it, which knows the options only the first time."""
    text = page.read_bytes()
    assert text.isascii()
    return text.decode().partition("base64,")[0]
