from collections import Counter
from math import nan

from spoa.bench.report.parts import PARTS, Part
from spoa.bench.report.tables import Table, faults_of, table_of_ratios, tables_of
from spoa.bench.result import Result, Round

CAPACITY, LATENCY = PARTS[:2]


def result(name: str, rate: float | None = None, /, **figures: float) -> Result:
    part, at = ("latency", {"rate": rate}) if rate else ("capacity", {})
    return Result(part, name, at, [Round(dict(figures), Counter())])


def test_columns_are_those_that_some_row_has() -> None:
    """A figure that nobody measured has no column, and one that a row lacks is a dash."""
    rows = [result("consume", requests_per_s=84_000, agent_us=10), result("x", requests_per_s=1)]
    (table,) = tables_of(CAPACITY, rows)
    assert table.head == ["", "requests/s", "per agent core", "agent us", "wrong"]
    assert table.rows == [
        ["consume", "84,000", "100,000", "10.00", "0"],
        ["x", "1", "-", "-", "0"],
    ]


def test_each_part_has_the_columns_that_tell_something() -> None:
    """A tail is shown where latency is the question, and not where it is that of a full queue."""
    tail = {"p50_ms": 1.0, "p99.99_ms": 9.0, "late_p99_ms": 0.1, "late_p50_ms": 0.1}
    (closed,) = tables_of(CAPACITY, [result("consume", requests_per_s=1, **tail)])
    (opened,) = tables_of(LATENCY, [result("open", 5e3, requests_per_s=1, **tail)])
    assert list(closed.head) == ["", "requests/s", "p50 ms", "wrong"]
    assert list(opened.head) == ["", "requests/s", "p50 ms", "p99.99 ms", "late p99 ms", "wrong"]


def test_news_is_shown_whoever_measured_it() -> None:
    """A figure that no part foresaw has a column, in a part that nobody described, too."""
    strange = Part("strange", "strange", "", "")
    (table,) = tables_of(strange, [result("a", flood_per_s=1234.0, requests_per_s=5)])
    assert (table.head, table.rows) == (["", "flood/s", "wrong"], [["a", "1,234", "0"]])


def test_a_fixed_rate_has_a_table_of_its_own() -> None:
    """Rows that have hardly a column in common do not share a table; all are shown."""
    rows = [result("a", requests_per_s=1.0), result("b", 5e3, p50_ms=1.0, requests_per_s=1.0)]
    rows += [result("c", redis_bytes=318.0)]
    shown = tables_of(CAPACITY, rows)
    assert [row[0] for table in shown for row in table.rows] == ["a", "b, 5,000/s", "c"]
    assert len(shown) == 3


def test_twins_are_both_shown() -> None:
    """Two results of one name are two rows."""
    (table,) = tables_of(CAPACITY, [result("a", p50_ms=1.0), result("a", p50_ms=2.0)])
    assert len(table.rows) == 2


def test_cells_stand_below_their_heads() -> None:
    """Names begin, and numbers end, in one column of the terminal; no line ends in spaces."""
    lines = str(Table(["", "requests/s"], [["consume", "84,000"], ["x", "1"]])).splitlines()
    assert lines == ["         requests/s", "consume      84,000", "x                 1"]


def test_what_is_no_number_is_a_dash() -> None:
    """No table says nan."""
    (table,) = tables_of(CAPACITY, [result("a", p50_ms=nan), result("b", p50_ms=1.0)])
    assert table.rows == [["a", "-", "0"], ["b", "1.00", "0"]]


def test_ratios_have_no_unit() -> None:
    """Twice as many is 2.00, whatever there are twice as many of."""
    table = table_of_ratios([("a / b", {"requests_per_s": 2.0}), ("c / d", {"p50_ms": 0.5})])
    assert table.head == ["", "requests/s", "p50 ms"]
    assert table.rows == [["a / b", "2.00", "-"], ["c / d", "-", "0.50"]]


def test_faults_of_all_rounds_are_told() -> None:
    """A median of zero hides no fault: each is listed with its number."""
    rounds = [Round({}, Counter(fault)) for fault in ([], [], ["unanswered"])]
    assert faults_of([Result("capacity", "consume", {}, rounds)]) == ["consume: 1 x unanswered"]
