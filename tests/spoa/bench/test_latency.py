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


@pytest.mark.parametrize(("count", "rank"), [(41_000, 40_959), (10_000, 9_990), (1_001, 1_000)])
def test_no_float_makes_a_rank_too_high(count: int, rank: int) -> None:
    """41,000 * 99.9 / 100 is above 40,959 as a float, and its percentile is still that sample."""
    assert percentile(range(1, count + 1), 99.9) == rank


def test_summarise_joins_the_samples_of_all_processes() -> None:
    """Percentiles are of all requests together, not means of each process's own, and in ms."""
    found = summarise([[0.004, 0.001], [0.002, 0.003]])
    assert (found["p50"], found["p75"], found["p99"], found["max"]) == (2.0, 3.0, 4.0, 4.0)


def test_there_are_enough_percentiles_for_a_curve() -> None:
    """Two for each nine, up to four nines, in order, and then the largest."""
    found = summarise([[n / 1000 for n in range(1, 20_001)]])
    names = "p50 p75 p90 p95 p99 p99.5 p99.9 p99.95 p99.99 max"
    assert " ".join(found) == names
    assert list(found.values()) == pytest.approx(
        [10_000, 15_000, 18_000, 19_000, 19_800, 19_900, 19_980, 19_990, 19_998, 20_000]
    )


def test_of_few_samples_the_last_percentile_is_the_largest() -> None:
    """Nothing is made up between samples: of 9,999 there is no p99.99 below the maximum."""
    few, enough = (summarise([[float(n) for n in range(count)]]) for count in (9_999, 10_000))
    assert few["p99.99"] == few["max"]
    assert enough["p99.99"] < enough["max"]


def test_summarise_of_nothing_is_empty() -> None:
    """A round without a right answer has no latency at all."""
    assert summarise([[], []]) == {}
