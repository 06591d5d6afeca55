from collections.abc import Mapping

import pytest

from spoa.bench.report.labels import conditions, label, number_of, title_of
from spoa.bench.result import Result


@pytest.mark.parametrize(
    ("part", "name", "at", "said"),
    [
        ("capacity", "consume", {}, "consume"),
        ("capacity", "consume", {"build": "this"}, "consume, this"),
        ("latency", "open", {"rate": 5000.0}, "open, 5,000/s"),
        ("haproxy", "kat", {"haproxy": "3.2", "threads": 1}, "kat, HAProxy 3.2, 1 thread"),
        ("growth", "connections", {"connections": 1}, "1 connection"),
        ("growth", "stored tokens", {"stored_tokens": 1_000_000}, "1,000,000 stored tokens"),
        ("growth", "in flight", {"in_flight": 1}, "1 in flight"),
        ("growth", "workers", {"workers": 2, "scenario": "session"}, "2 workers, session"),
        ("disturbed", "flood", {"phase": "calm"}, "flood, calm"),
        ("disturbed", "memory", {"minutes": 2.5}, "memory, 2.5 minutes"),
        ("placement", "open", {"redis": "+5 ms", "rate": 1e3}, "open, +5 ms, 1,000/s"),
    ],
)
def test_a_result_is_called_by_what_it_is(
    part: str, name: str, at: Mapping[str, float | str], said: str
) -> None:
    """A name and the conditions in words; what grows is said once."""
    assert label(Result(part, name, at)) == said


def test_what_is_said_above_is_left_out() -> None:
    """Below a head the rows do not repeat it, and none is left without a name."""
    one = Result("haproxy", "kat", {"haproxy": "3.2", "rate": 100.0})
    assert label(one, ["haproxy"]) == "kat, 100/s"
    assert conditions(one, ["rate"]) == "HAProxy 3.2"
    grown = Result("growth", "connections", {"connections": 3})
    assert label(grown, ["connections"]) == "connections"


@pytest.mark.parametrize(
    ("figure", "value", "title", "number"),
    [
        ("requests_per_s", 84_000.4, "requests/s", "84,000"),
        ("per_agent_core", 89_800.0, "per agent core", "89,800"),
        ("p99.9_ms", 3.456, "p99.9 ms", "3.46"),
        ("agent_us", 11.1, "agent us", "11.10"),
        ("memory_mb", 1042.66, "memory MB", "1,042.7"),
        ("redis_bytes", 318.74, "redis bytes", "319"),
        ("of_echo", 0.98366, "of echo", "0.984"),
        ("wrong", 0.0, "wrong", "0"),
        ("flood", 1_234_567.0, "flood", "1,234,567"),
    ],
)
def test_a_figure_is_titled_and_written_by_its_unit(
    figure: str, value: float, title: str, number: str
) -> None:
    """A figure that nobody foresaw has a title and a fitting number, too."""
    assert (title_of(figure), number_of(figure, value)) == (title, number)
