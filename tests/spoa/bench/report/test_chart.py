from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, pairwise
from math import inf
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoa.bench.report.chart import Axes, Bar, Line, bars, lines, spread
from spoa.bench.report.scale import Scale, amounts, linear, logarithmic, nines
from spoa.bench.report.svg import BOLD_PX, TEXT_PX, TITLE_PX, WIDTH, Caption, width_of

CAPTION = Caption("a-picture", "A picture", "ms")
SVG = "{http://www.w3.org/2000/svg}"

Kind = Callable[[Iterable[float]], Scale]
Box = tuple[float, float, float, float]

NAMES = st.text(min_size=1, max_size=60)
AMOUNTS = st.floats(0, 1e12) | st.sampled_from([0.0, 5e-324, 1e300])
BARS = st.builds(
    lambda name, value, is_ours, is_yardstick: Bar(
        name, value, value / 2, value * 1.1, is_ours, is_yardstick
    ),
    NAMES,
    AMOUNTS,
    st.booleans(),
    st.booleans(),
)
LINES = st.builds(
    lambda name, points, is_ours: Line(name, sorted(points), is_ours),
    NAMES,
    st.lists(st.tuples(st.floats(1, 1e6), AMOUNTS), max_size=12),
    st.booleans(),
)


def bar(label: str, value: float, *, is_yardstick: bool = False) -> Bar:
    return Bar(label, value, value, value, is_ours=True, is_yardstick=is_yardstick)


def boxes(drawn: str) -> Iterator[tuple[str, Box]]:
    """Estimate where each text stands."""
    for one in ET.fromstring(drawn).iter(f"{SVG}text"):
        words, kind = one.text or "", one.attrib["class"]
        px = TITLE_PX if kind == "title" else BOLD_PX if "strong" in kind else TEXT_PX
        width, x, y = width_of(words, px), float(one.attrib["x"]), float(one.attrib["y"])
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[one.attrib["text-anchor"]]
        yield words, (left, y - 0.75 * px, left + width, y + 0.25 * px)


def assert_readable(drawn: str) -> None:
    """No text touches another one or is cut at the edge, and nothing is no number."""
    found = list(boxes(drawn))
    for (one, a), (other, b) in combinations(found, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} and {other!r}"
    height = float(ET.fromstring(drawn).attrib["height"])
    for words, (left, top, right, bottom) in found:
        assert 0 <= left < right + 1 <= WIDTH + 1, words
        assert 0 <= top < bottom <= height, words
    numbers = [value for one in ET.fromstring(drawn).iter() for value in one.attrib.values()]
    assert not {"nan", "inf", "-inf"}.intersection(" ".join(numbers).lower().split())


@settings(max_examples=40)
@given(st.dictionaries(NAMES | st.just(""), st.lists(BARS, max_size=6), max_size=4))
def test_bars_are_readable(groups: dict[str, list[Bar]]) -> None:
    """Whatever is compared, its names and numbers stand beside each other."""
    assert_readable(bars(CAPTION, groups))


@settings(max_examples=40)
@given(
    st.lists(LINES, max_size=12),
    st.sampled_from([linear, logarithmic]),
    st.sampled_from([linear, amounts]),
)
def test_lines_are_readable(drawn: list[Line], x: Kind, y: Kind) -> None:
    """Lines that end at one point have their names one below the other."""
    assert_readable(lines(CAPTION, Axes(x, y, "connections"), drawn))


def test_close_rates_and_percentiles_are_readable() -> None:
    """Hard cases: ticks that are close, and twelve lines that end at the same value."""
    crowd = [Line(f"{n},000/s", [(50, 0.2), (99, 1), (99.99, 7)]) for n in range(1, 13)]
    assert_readable(lines(CAPTION, Axes(nines, amounts, "percentile"), crowd))
    more = [Line(f"{n}", [(50, n)]) for n in range(40)]
    assert_readable(lines(CAPTION, Axes(nines, linear, "percentile"), more))
    assert_readable(bars(CAPTION, {"W" * 200: [bar("W" * 200, 1e300)]}))
    close = [Line("agent", [(1.0, 9.0), (1000, 10), (1001, 11), (1002, 8)])]
    assert_readable(lines(CAPTION, Axes(logarithmic, linear, "connections"), close))


def test_a_bar_is_as_long_as_its_value() -> None:
    """Half of the value is half of the length."""
    root = ET.fromstring(bars(CAPTION, {"": [bar("a", 100), bar("b", 50)]}))
    first, second = (
        float(one.attrib["width"]) for one in root.iter(f"{SVG}rect") if one.get("class") == "ours"
    )
    assert second == pytest.approx(first / 2, abs=0.2)


def lengths(drawn: str) -> list[float]:
    root = ET.fromstring(drawn)
    blocks = [one for one in root.iter(f"{SVG}rect") if one.get("class") in ("ours", "other")]
    return [float(one.attrib["width"]) for one in blocks]


def test_only_a_yardstick_is_cut() -> None:
    """A ceiling far above is cut, visibly, so that the rest can be seen; a result never is."""
    ceiling = bar("ceiling", 1000, is_yardstick=True)
    cut = bars(CAPTION, {"": [ceiling, bar("a", 100), bar("b", 50)]})
    first, second, third = lengths(cut)
    assert first > second == pytest.approx(2 * third, abs=0.2)
    assert first < 2 * second
    assert 'class="cut"' in cut
    honest = bars(CAPTION, {"": [bar("a", 1000), bar("b", 50)]})
    first, second = lengths(honest)
    assert first == pytest.approx(20 * second, abs=2)
    assert 'class="cut"' not in honest


def test_every_name_and_number_is_there() -> None:
    """Numbers stand on the bars and at the ends of the lines, and all of them in the words."""
    names = ["token", "grant", "kat", "consume", "session-cold", "a"]
    for name in names:  # each alone, so that each is the widest once
        drawn = bars(CAPTION, {"HAProxy 3.2": [bar(name, 56_000)]})
        assert {"HAProxy 3.2", name, "56,000"} <= {said for said, _ in boxes(drawn)}
    followed = lines(CAPTION, Axes(linear, linear, "requests/s"), [Line("p99", [(1, 2), (3, 4)])])
    assert "p99  4" in [said for said, _ in boxes(followed)]
    about = ET.fromstring(followed).findtext(f"{SVG}desc") or ""
    assert "2 at 1, 4 at 3" in about


def test_a_logarithmic_scale_is_said() -> None:
    """Who reads a steep line knows whether each step is ten times the one before."""
    wide, narrow = ([Line("p99", [(50, 0.1), (99, top)])] for top in (90, 0.2))
    axes = Axes(nines, amounts, "percentile")
    assert "ms, logarithmic" in lines(CAPTION, axes, wide)
    assert "logarithmic" not in lines(CAPTION, axes, narrow)


def test_nothing_is_a_picture_too() -> None:
    """No bar and no line still make a well-formed picture."""
    assert_readable(bars(CAPTION, {}))
    assert_readable(lines(CAPTION, Axes(linear, linear, "x"), []))


@given(st.lists(st.floats(0, 300), max_size=10))
def test_spread_keeps_order_and_distance(wanted: list[float]) -> None:
    """No two labels are nearer than a step, none changes places with another, all are inside."""
    found = spread(wanted, 17, 0, 300)
    assert len(found) == len(wanted)
    by_wish = [found[n] for n in sorted(range(len(wanted)), key=wanted.__getitem__)]
    assert all(b - a >= 17 - 1e-6 for a, b in pairwise(by_wish))
    assert all(-1e-6 <= y <= 300 + 1e-6 for y in found)


def test_spread_leaves_alone_what_is_apart() -> None:
    """A label stands at the end of its line where nothing is in its way."""
    assert spread([100, 10, 50], 17, 0, 300) == [100, 10, 50]
    assert spread([-inf, inf], 17, 0, 300) == [0, 300]
