import json
from collections import Counter
from pathlib import Path

import pytest

from spoa.bench.capacity import main, markdown, report
from spoa.bench.report.archive import encode
from spoa.bench.result import Figures, Result, Round


def result(part: str, name: str, figures: Figures, **at: float | str) -> Result:
    return Result(part, name, at, [Round(figures, Counter())])


SESSION = result("capacity", "session", {"agent_us": 8.0, "redis_us": 0.6})
CONSUME = result("capacity", "consume", {"agent_us": 12.0, "redis_us": 6.0})
THROUGH = [
    result("haproxy", "kat", {"haproxy_us": 11.0}, haproxy="2.6"),
    result("haproxy", "kat", {"haproxy_us": 30.0}, haproxy="3.2", rate=5000.0),
    result("haproxy", "kat", {"haproxy_us": 18.0}, haproxy="3.2"),
    result("haproxy", "kat session", {"haproxy_us": 16.0}, haproxy="3.2", threads=1),
    result("haproxy", "no filter", {"haproxy_us": 6.0}, haproxy="3.2"),
]
STORED = result("growth", "stored in Redis", {"redis_bytes": 310.0}, kind="token")
WRONG = Counter({"late": 3, "a guess: late": 9})
GROWN = result(
    "growth",
    "connections",
    {
        "requests_per_s": 90_000,
        "agent_us": 9,
        "redis_us": 0.7,
        "p50_ms": 3.5,
        "p99_ms": 6.1,
        "memory_mb": 36,
        "redis_memory_mb": 2,
    },
    connections=16,
)
DISTURBED = [
    result("disturbed", "flood", {"p50_ms": 0.25, "p99_ms": 1.0, "p99.9_ms": 2.0}, phase="calm"),
    Result(
        "disturbed",
        "flood",
        {"phase": "disturbed"},
        [
            Round(
                {"p50_ms": 0.5, "p99_ms": 2.5, "p99.9_ms": 4.0},
                WRONG,
            )
        ],
    ),
]
WATCHED = result(
    "disturbed",
    "memory",
    {
        "first_mb": 36,
        "last_mb": 36.5,
        "per_minute_mb": 0.01,
        "redis_first_mb": 9,
        "redis_last_mb": 9.1,
        "redis_per_minute_mb": -0.2,
    },
    minutes=10,
)


def test_a_table_is_markdown() -> None:
    """Text to the left, numbers to the right."""
    assert markdown(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_a_report_has_all_tables() -> None:
    """What one core does, what rates take, what is full first, what Redis stores."""
    text = report([SESSION, CONSUME, *THROUGH, STORED, GROWN, *DISTURBED, WATCHED])
    assert "| session | 8.0 | 0.6 | 16.0 | 125,000 | 1,670,000 | 62,500 |" in text
    assert "| session | 100,000 | 2 | 1 | 3 | haproxy |" in text
    assert "`consume`" in text
    assert "| token | 310 | 310 MB |" in text
    assert "| 16 | 90,000 | 9.0 | 0.7 | 3.50 | 6.10 | 36 | 2 | 0 |" in text
    assert "| flood | 0.25 | 1.00 | 2.00 | 0.50 | 2.50 | 4.00 | 2.5 | 3 |" in text
    assert "| 10 | 36.00 | 36.50 | 0.01 | 9.00 | 9.10 | -0.20 |" in text


def test_a_report_has_no_empty_tables() -> None:
    """What was not measured has no title, either."""
    assert report([STORED]).count("| --- |") == 1


def test_the_command_prints_what_a_file_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of the benchmark becomes the report."""
    path = tmp_path / "results.json"
    path.write_text(encode({}, None, [SESSION]))
    assert main([str(path)]) == 0
    assert capsys.readouterr().out == report([SESSION]) + "\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("no JSON", "holds no results"),
        (json.dumps({"environment": {}, "results": []}), "nothing of `kat bench"),
    ],
)
def test_what_is_no_report_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    """A missing file, another file and an empty one are told apart, without a traceback."""
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 1
    assert said in capsys.readouterr().err


def test_the_command_takes_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is answered with how to use it."""
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err
