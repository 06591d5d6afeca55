from collections import Counter

import pytest

from spoa.bench.options import Part as Chosen
from spoa.bench.report.parts import PARTS, chosen, not_measured
from spoa.bench.result import Result, Round


def result(part: str, **figures: float) -> Result:
    return Result(part, "a", {}, [Round(dict(figures), Counter())])


def test_every_part_is_described() -> None:
    """Whatever may be measured has a title, and says what it does and does not say."""
    assert [part.name for part in PARTS] == [*Chosen, "peers"]
    assert all(part.title and part.says and part.says_not and part.figures for part in PARTS)


def test_parts_come_in_one_order_and_strange_ones_last() -> None:
    """Files may be joined in any order, and what nobody described is shown, too."""
    results = [result(part) for part in ("strange", "growth", "capacity", "growth")]
    found = [(part.name, len(mine)) for part, mine in chosen(results)]
    assert found == [("capacity", 1), ("growth", 2), ("strange", 1)]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("haproxy", "HAProxy"),
        ("placement", "ways to Redis"),
        ("growth", "growth"),
        ("disturbed", "disturbances"),
        ("latency", "fixed rate"),
    ],
)
def test_what_was_measured_is_not_said_to_be_missing(part: str, words: str) -> None:
    """The sentence about what is not measured is true of the parts that were."""
    assert words in not_measured([result("capacity")])
    assert words not in not_measured([result("capacity"), result(part)])


def test_memory_is_missing_until_a_figure_tells_it() -> None:
    """Who measured memory, in whatever part, does not say that it was not measured."""
    assert "memory" in not_measured([result("capacity")])
    assert "memory" not in not_measured([result("peers", memory_mb=40.0)])
