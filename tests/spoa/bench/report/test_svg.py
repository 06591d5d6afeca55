from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.bench.report.svg import Caption, circle, document, escaped, fitted, text, width_of

NASTY = "</svg><script>&\"'\x00\x1b\ud800]]>"


def test_a_document_says_what_it_shows() -> None:
    """Title and description are there for who cannot see, and are what names the picture."""
    root = ET.fromstring(document(Caption("a-b", "Title", "unit"), "In words.", 100, []))
    named = root.attrib["aria-labelledby"].split()
    found = {one.attrib["id"]: one.text for one in root if "id" in one.attrib}
    assert [found[name] for name in named] == ["Title", "In words."]
    assert root.attrib["role"] == "img"


def test_a_document_needs_nothing_else() -> None:
    """No script, no font, no link: the only address is the name of the format. Dark or light."""
    drawn = document(Caption("a", "b", "c"), "d", 100, [])
    assert drawn.count("http") == 1
    assert "prefers-color-scheme:dark" in drawn
    assert not any(word in drawn for word in ("<script", "<image", "@import", "url(", "href"))


@given(st.text())
def test_any_text_is_escaped(content: str) -> None:
    """Whatever a result is called, it stays text; what XML cannot hold is a question mark."""
    element = ET.fromstring(f'<g a="{escaped(content)}">{escaped(content)}</g>')
    assert (element.text is None) == (content == "")
    assert not list(element)


def test_markup_in_a_text_remains_text() -> None:
    """A name that closes the picture closes nothing."""
    caption = Caption("x", NASTY, NASTY)
    elements = [text(0, 0, NASTY, "ink"), circle((1, 2), "dot", NASTY)]
    root = ET.fromstring(document(caption, NASTY, 10, elements))
    assert "script" not in {one.tag.rpartition("}")[2] for one in root.iter()}


@pytest.mark.parametrize("content", ["", "a", "consume", "M" * 400, "ab cd " * 90])
def test_a_fitted_text_is_no_wider(content: str) -> None:
    """What is too long is shortened in its middle, and what fits is left alone."""
    shown = fitted(content, 100)
    assert width_of(shown) <= 100
    assert shown == content if width_of(content) <= 100 else "..." in shown
