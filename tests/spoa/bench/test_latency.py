import pytest

from spoa.bench.latency import percentile, summarise


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50), (99, 99), (99.9, 100), (100, 100), (1, 1), (0.1, 1)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    """The smallest sample that so many percent of all do not exceed, never one in between."""
    assert percentile(range(1, 101), percent) == expected


def test_percentile_of_one_sample_is_that_sample() -> None:
    """One request has the same p50 and p99.9."""
    assert {percentile([7.0], percent) for percent in (0.1, 50, 99.9, 100)} == {7.0}


def test_percentile_of_nothing_is_refused() -> None:
    """No sample has no percentile; a zero would read like a very fast agent."""
    with pytest.raises(ValueError, match="no sample"):
        percentile([], 50)


def test_summarise_joins_the_samples_of_all_processes() -> None:
    """Percentiles are of all requests together, not means of each process's own, and in ms."""
    assert summarise([[0.004, 0.001], [0.002, 0.003]]) == {
        "p50": 2.0,
        "p99": 4.0,
        "p99.9": 4.0,
        "max": 4.0,
    }


def test_summarise_of_nothing_is_empty() -> None:
    """A round without a right answer has no latency at all."""
    assert summarise([[], []]) == {}
