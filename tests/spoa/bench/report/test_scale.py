from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.bench.report.scale import Scale, amounts, linear, logarithmic, nines, short

Kind = Callable[[Iterable[float]], Scale]

POSITIVE = st.floats(1e-300, 1e300)


@pytest.mark.parametrize("scale", [linear, logarithmic, amounts])
@given(values=st.lists(POSITIVE, min_size=1, max_size=20))
def test_every_value_has_its_place(scale: Kind, values: list[float]) -> None:
    """No value, huge or tiny, is outside of its scale; larger ones are never below smaller ones."""
    made = scale(values)
    places = [made.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    assert made.ticks
    assert all(-1e-6 <= made.place(value) <= 1 + 1e-6 for value, _ in made.ticks)


def test_linear_begins_at_zero_and_ends_round() -> None:
    """A bar or a line twice as high is twice as much."""
    made = linear([84_000.0, 12.0])
    assert [word for _, word in made.ticks] == [
        "0",
        "20,000",
        "40,000",
        "60,000",
        "80,000",
        "100,000",
    ]
    assert (made.place(0), made.place(50_000), made.place(100_000)) == (0, 0.5, 1)


@pytest.mark.parametrize("scale", [linear, logarithmic, amounts, nines])
def test_a_scale_of_nothing_is_one(scale: Kind) -> None:
    """An empty picture divides nothing by zero."""
    assert scale([]).ticks


def test_logarithmic_has_its_ticks_at_few_values() -> None:
    """What was measured can be read off; many values give way to decades."""
    assert [word for _, word in logarithmic([16, 1, 1000]).ticks] == ["1", "16", "1,000"]
    many = logarithmic([float(n) for n in range(1, 1001)])
    assert [word for _, word in many.ticks] == ["1", "10", "100", "1,000"]


def test_one_value_stands_in_the_middle() -> None:
    """A decade of no width is no division by zero."""
    assert logarithmic([7.0]).place(7.0) == 0.5


def test_amounts_are_logarithmic_where_the_small_would_vanish() -> None:
    """0.2 beside 30 is to be seen, 1 beside 10 is to be compared."""
    assert amounts([0.2, 30]).is_logarithmic
    assert not amounts([1, 10]).is_logarithmic
    assert not amounts([0, 0]).is_logarithmic


def test_each_nine_is_as_wide_as_the_next() -> None:
    """From 90 to 99 is as far as from 99 to 99.9."""
    made = nines([90, 99, 99.9])
    assert [made.place(p) for p in (90, 99, 99.9)] == pytest.approx([0, 0.5, 1])
    assert [word for _, word in made.ticks] == ["90", "99", "99.9"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.0412, "0.0412"),
        (7.6, "7.6"),
        (84_000.4, "84,000"),
        (2_333_000, "2,333,000"),
        (51_230_000, "51.2 M"),
        (12e9, "12 G"),
        (1e300, "1e+300"),
        (-3, "-3"),
    ],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    """A number has the digits that matter, and no more."""
    assert short(value) == shown
