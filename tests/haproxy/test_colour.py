import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from haproxy.pages.colour import (
    BLACK,
    MIN_CONTRAST,
    WHITE,
    Colour,
    contrast,
    dark,
    light,
    read_accent,
)

# WCAG 2.2, 1.4.11: what must be seen, but not read.
MIN_CONTRAST_OF_A_SIGN = 3

COLOURS = st.builds(Colour, *[st.integers(0, 255)] * 3)


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#777777", "#ffffff", 4.48),  # the well-known grey that just fails,
        ("#767676", "#ffffff", 4.54),  # and the one that just passes
        ("#ff0000", "#ffffff", 4.00),
        ("#0000ff", "#000000", 2.44),
        ("#123456", "#123456", 1.0),
    ],
)
def test_contrast_is_that_of_the_standard(one: str, other: str, ratio: float) -> None:
    """The ratio is WCAG's, whichever of the two is named first."""
    first, second = Colour.parse(one), Colour.parse(other)
    assert contrast(first, second) == contrast(second, first) == pytest.approx(ratio, abs=0.005)


@given(COLOURS)
def test_a_colour_is_written_as_it_is_read(colour: Colour) -> None:
    """Parsing what was written gives the colour back."""
    assert Colour.parse(str(colour)) == colour


@pytest.mark.parametrize("text", ["", "blue", "#fff", "#12345g", "123456", "#1234567", "#123456\n"])
def test_only_six_digits_are_a_colour(text: str) -> None:
    """CSS knows more ways to write a colour; one is enough, and none of them reaches the page."""
    with pytest.raises(ValueError, match="is no colour"):
        Colour.parse(text)


def test_a_pale_accent_is_refused_with_ratio_and_limit() -> None:
    """The sentence has the contrast, rounded down, and the least that there must be."""
    with pytest.raises(ValueError, match=r"#777777 on white .* 4\.47:1, the limit is 4\.5:1"):
        read_accent("#777777")
    assert read_accent("#767676") == Colour.parse("#767676")


@given(COLOURS)
def test_whatever_accent_is_taken_all_can_be_read(accent: Colour) -> None:
    """In both schemes texts have the contrast of AA, and signs and lines to act upon theirs."""
    assume(contrast(accent, WHITE) >= MIN_CONTRAST)
    for scheme in (light(accent), dark(accent)):
        for text in ("text", "soft", "accent"):
            assert contrast(scheme[text], scheme["card"]) >= MIN_CONTRAST
        assert contrast(scheme["accent"], scheme["tint"]) >= MIN_CONTRAST_OF_A_SIGN


@given(COLOURS)
def test_the_schemes_are_what_they_are_called(accent: Colour) -> None:
    """Light is dark on light, dark is light on dark."""
    assume(contrast(accent, WHITE) >= MIN_CONTRAST)
    by_day, by_night = light(accent), dark(accent)
    assert by_day["text"].luminance() < by_day["card"].luminance()
    assert by_night["text"].luminance() > by_night["card"].luminance()


def test_mixing_ends_at_its_ends() -> None:
    """A share of 0 is the one colour, a share of 1 the other."""
    assert BLACK.mixed(WHITE, 0) == BLACK
    assert BLACK.mixed(WHITE, 1) == WHITE
