import json
from collections import Counter
from pathlib import Path

from spoa.bench.options import parse_options
from spoa.bench.report import environment, header, tables, write_json
from spoa.bench.result import Result, Round
from spoa.bench.scenario import Scenario

FIGURES = {"requests": 9.0, "wrong": 0.0, "requests_per_s": 80_000.4, "agent_us": 10.0}


def result(scenario: Scenario, rate: float | None, *wrong: str) -> Result:
    rounds = [Round({**FIGURES, "wrong": float(len(wrong))}, Counter(wrong))]
    at = {"rate": rate} if rate else {}
    return Result("latency" if rate else "capacity", scenario, at, rounds)


def test_median_is_of_each_figure_by_itself() -> None:
    """One bad round of three moves no figure, and a figure that a round lacks is no zero."""
    rounds = [Round({"a": a, **more}, Counter()) for a, more in ((1, {}), (9, {"b": 5}), (2, {}))]
    assert Result("capacity", "consume", rounds=rounds).median == {"a": 2, "b": 5}


def test_wrong_answers_of_all_rounds_are_shown() -> None:
    """A median of zero hides no fault: each is listed with its number."""
    rounds = [Round(FIGURES, Counter(fault)) for fault in ([], [], ["unanswered"])]
    shown = tables([Result("capacity", "consume", rounds=rounds)])
    assert "consume: 1 x unanswered" in shown


def test_tables_align() -> None:
    """Closed and open loops have a table each; a figure that is missing is a dash."""
    shown = tables([result(Scenario.CONSUME, None), result(Scenario.OPEN, 5000.0)])
    lines = shown.splitlines()
    (consume,) = (line for line in lines if line.startswith("consume"))
    (opened,) = (line for line in lines if line.startswith("5,000/s"))
    assert consume.split() == ["consume", "80,000", "100,000", "10.00", "-", "-", "-", "-", "0"]
    assert opened.split()[:4] == ["5,000/s", "80,000", "10.00", "-"]
    assert "Wrong" not in shown
    assert "Not measured" in shown


def rounds_of(scenario: Scenario, *agent_us: float) -> Result:
    rounds = [Round({"requests_per_s": 3e5 / us, "agent_us": us}, Counter()) for us in agent_us]
    return Result("capacity", scenario, rounds=rounds)


def test_ratios_are_of_rounds_side_by_side() -> None:
    """A machine that slows down does so for both: each pair counts, and their median is shown."""
    shown = tables(
        [rounds_of(Scenario.CONSUME, 10, 20, 44), rounds_of(Scenario.SESSION, 5, 10, 11)]
    )
    (line,) = (line for line in shown.splitlines() if line.startswith("session / consume"))
    assert line.split()[3:] == ["2.00", "2.00", "-"]


def test_what_was_not_measured_has_no_ratio() -> None:
    """One scenario alone is compared with nothing."""
    assert "Ratios" not in tables([rounds_of(Scenario.SESSION, 5.0)])


def test_the_header_tells_the_circumstances() -> None:
    """Figures come with machine, versions, commit and load shape, or they mean nothing."""
    shown = header(environment(), parse_options(["--pin"]))
    names = "date commit machine busy system python redis packages load"
    for name in names.split():
        assert name in shown
    assert "16 connections x 20 in flight" in shown


def test_json_holds_every_round(tmp_path: Path) -> None:
    """The file has all that the table has, and the rounds behind its medians."""
    path = tmp_path / "out.json"
    options = parse_options(["--json", str(path)])
    write_json(path, {"commit": "abc"}, options, [result(Scenario.OPEN, 5000.0, "unanswered")])
    written = json.loads(path.read_text())
    (only,) = written["results"]
    assert written["environment"] == {"commit": "abc"}
    assert (only["name"], only["at"]) == ("open", {"rate": 5000})
    assert only["median"]["per_agent_core"] == 100_000
    assert (len(only["rounds"]), only["wrong"]) == (1, {"unanswered": 1})
