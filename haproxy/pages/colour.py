"""One colour makes two schemes in which everything can be read."""

import re
from typing import NamedTuple, Self

MIN_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3 (AA): text and what is behind it."""

_MAX = 255
_STEPS = 100


class Colour(NamedTuple):
    """An sRGB colour, of 0 to 255 each."""

    red: int
    green: int
    blue: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read #rrggbb. Raises ValueError."""
        if not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
            raise ValueError(f"{text[:20]!a} is no colour like #2456c9")
        return cls(*bytes.fromhex(text[1:]))

    def __str__(self) -> str:
        return "#" + bytes(self).hex()

    def mixed(self, other: "Colour", share: float) -> "Colour":
        """Return this colour with a share (0 to 1) of another one in it."""
        return Colour(*(round(a + (b - a) * share) for a, b in zip(self, other, strict=True)))

    def luminance(self) -> float:
        """Return what WCAG 2.2 calls relative luminance: 0 is black, 1 is white."""
        red, green, blue = map(_linear, self)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: int) -> float:
    value = part / _MAX
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4  # noqa: PLR2004


def contrast(one: Colour, other: Colour) -> float:
    """Return WCAG's contrast ratio: 1 is none, 21 is black on white."""
    dark, light = sorted((one.luminance(), other.luminance()))
    return (light + 0.05) / (dark + 0.05)


BLACK = Colour(0, 0, 0)
WHITE = Colour(_MAX, _MAX, _MAX)

_INK = Colour(0x1A, 0x1C, 0x22)
_NIGHT = Colour(0x17, 0x18, 0x1C)

# More than the least: at 4.5 a saturated blue or violet still glares on black.
_DARK_CONTRAST = 6.5

# Of the accent in what should only remind of it. With more of it in the dark card, the colour that
# can be read there would have to be so light that nobody recognised it.
_HINT = 0.06
_TINT = 0.12


def read_accent(text: str) -> Colour:
    """Read the colour that is to be the accent. Raises ValueError, also if it is too light."""
    accent = Colour.parse(text)
    ratio = contrast(accent, WHITE)
    if ratio < MIN_CONTRAST:
        raise ValueError(
            f"{accent} on white has a contrast of {_rounded_down(ratio)}:1, the limit is "
            f"{MIN_CONTRAST}:1: take a darker one"
        )
    return accent


def _rounded_down(ratio: float) -> float:
    return int(ratio * 100) / 100  # 4.499 is not 4.5


def light(accent: Colour) -> dict[str, Colour]:
    """Return the colours of the light scheme, by the names they have in page.html."""
    return {
        "accent": accent,
        "card": WHITE,
        "ground": WHITE.mixed(accent, _HINT),
        "tint": WHITE.mixed(accent, _TINT),
        "line": WHITE.mixed(_INK, 0.12),
        "shade": WHITE.mixed(accent, 0.3),
        "text": _INK,
        "soft": _INK.mixed(WHITE, 0.2),
    }


def dark(accent: Colour) -> dict[str, Colour]:
    """Return the colours of the dark scheme: its accent is as much lighter as it must be."""
    card = _NIGHT.mixed(accent, _HINT)
    lighter = _readable(accent, card)
    return {
        "accent": lighter,
        "card": card,
        "ground": card.mixed(BLACK, 0.4),
        "tint": card.mixed(lighter, _TINT),
        "line": card.mixed(WHITE, 0.14),
        "shade": BLACK,
        "text": WHITE.mixed(_NIGHT, 0.08),
        "soft": WHITE.mixed(_NIGHT, 0.25),
    }


def _readable(accent: Colour, ground: Colour) -> Colour:
    shades = (accent.mixed(WHITE, step / _STEPS) for step in range(_STEPS + 1))
    return next(shade for shade in shades if contrast(shade, ground) >= _DARK_CONTRAST)
