"""Durations as people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.config.duration import parse_duration, write_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("8h", 28_800),
        ("1d", 86_400),
        ("45", 45),
        (" 8h ", 28_800),
        ("0", 0),
        ("007s", 7),
        (45, 45),
        (0, 0),
    ],
)
def test_a_duration_is_read(text: str | int, seconds: int) -> None:
    """A unit is one letter; without one, a number means seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "h", "-1", "-1s", "1.5h", "8 h", "8H", "1w", "8hours", "1h30m", "+8h", "1_0s"),
        *("\u0663s", "9" * 19, "nan", -1, True, False),
    ],
)
def test_what_is_no_duration_is_refused_with_the_rule(text: str | int) -> None:
    """The refusal says how a duration is written, and does not repeat what was given."""
    sentence = "must be a whole number with a unit: 90s, 30m, 8h or 1d; without a unit, seconds"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_what_is_written_is_read_back(seconds: int) -> None:
    """Whatever we tell an operator can be copied into the configuration."""
    assert parse_duration(write_duration(seconds)) == seconds


def test_it_is_written_in_the_largest_unit_that_divides_it() -> None:
    """People read 2h, not 7200s; and 90m, not 1h30m, which nobody could write back."""
    written = [write_duration(seconds) for seconds in (0, 59, 7200, 5400, 172_800, 86_401)]
    assert written == ["0s", "59s", "2h", "90m", "2d", "86401s"]
