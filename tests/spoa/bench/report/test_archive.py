import json
from collections import Counter
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from spoa.bench.options import Options
from spoa.bench.report.archive import NotAnArchive, encode, read_all
from spoa.bench.result import Result, Round

RESULTS = [
    Result(
        "latency",
        "open <&\u00fc>",
        {"rate": 5000.0, "haproxy": "3.2"},
        [
            Round({"requests_per_s": 4999.5, "p99.9_ms": 3.25}, Counter()),
            Round({"requests_per_s": 5000.5, "agent_us": 1e-300}, Counter({"unanswered": 2})),
        ],
    ),
    Result("growth", "workers", {"workers": 2}, [Round({}, Counter())]),
]


def written(path: Path, facts: dict[str, str], results: list[Result]) -> Path:
    path.write_text(encode(facts, None, results), encoding="ascii")
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Every round, condition and fault comes back, and the facts."""
    path = written(tmp_path / "a.json", {"machine": "x"}, RESULTS)
    assert read_all([path]) == ({"machine": "x"}, RESULTS)


def test_medians_are_there_for_who_reads_json() -> None:
    """Nobody has to compute what the tables show."""
    first = json.loads(encode({}, None, RESULTS))["results"][0]
    assert first["median"]["requests_per_s"] == 5000
    assert first["wrong"] == {"unanswered": 2}


def test_what_is_no_number_is_left_out() -> None:
    """JSON has no nan: the file can be read by everybody."""
    strange = Result("capacity", "a", {}, [Round({"a": nan, "b": inf, "c": 1.0}, Counter())])
    text = encode({}, None, [strange])
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["results"][0]["rounds"][0]["figures"] == {"c": 1.0}


def test_options_are_told_without_places(tmp_path: Path) -> None:
    """A file that is passed on says how it was made, and nothing of somebody's disk."""
    options = replace(Options(), json=tmp_path / "out.json", html=tmp_path / "out.html")
    text = encode({}, options, [])
    assert json.loads(text)["options"]["rounds"] == 5
    assert str(tmp_path) not in text


def test_files_are_joined(tmp_path: Path) -> None:
    """Rounds of the same are put together, all else side by side; facts that differ are told."""
    more = Result("capacity", "consume", {}, [Round({"requests_per_s": 1.0}, Counter())])
    paths = [
        written(tmp_path / "a.json", {"machine": "x", "date": "1"}, RESULTS),
        written(tmp_path / "b.json", {"machine": "x", "date": "2"}, [*RESULTS, more]),
    ]
    facts, results = read_all(paths)
    assert facts == {"machine": "x", "date": "1; 2"}
    assert [(one.name, len(one.rounds)) for one in results] == [
        *((RESULTS[0].name, 4), ("workers", 2), ("consume", 1))
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"environment": {}}', '{"results": [1]}', "\x00"])
def test_another_file_is_named_in_a_sentence(tmp_path: Path, text: str) -> None:
    """Who gives the wrong file learns which one and why, in one line."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(NotAnArchive, match=r"other\.json holds no results: ") as raised:
        read_all([path])
    assert "\n" not in str(raised.value)
