from collections import Counter
from math import inf, nan

from spoa.bench.result import Result, Round, median_of, numbers_of, with_cores


def test_median_is_of_each_figure_by_itself() -> None:
    """One bad round of three moves no figure, and a figure that a round lacks is no zero."""
    rounds = [Round({"a": a, **more}, Counter()) for a, more in ((1, {}), (9, {"b": 5}), (2, {}))]
    assert Result("capacity", "consume", rounds=rounds).median == {"a": 2, "b": 5}


def test_what_is_no_number_has_no_median() -> None:
    """A round of no length spoils nothing: neither the median nor the file."""
    assert median_of([{"a": nan}, {"a": 3.0, "b": inf}, {"a": 1.0}]) == {"a": 2.0}
    assert numbers_of({"a": nan, "b": 0.0, "c": -inf}) == {"b": 0.0}


def test_a_core_that_spends_nothing_has_no_worth() -> None:
    """Where Redis is not asked, a core of it is not worth infinitely many requests."""
    found = with_cores({"agent_us": 10.0, "redis_us": 0.0})
    assert found == {"agent_us": 10.0, "redis_us": 0.0, "per_agent_core": 100_000.0}


def test_wrong_is_summed_over_rounds() -> None:
    """What was wrong once is not forgotten by rounds that were right."""
    rounds = [Round({}, Counter(wrong)) for wrong in (["late"], [], ["late", "lost"])]
    assert Result("capacity", "consume", rounds=rounds).wrong == {"late": 2, "lost": 1}
