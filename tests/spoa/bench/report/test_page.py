import json
import re
from base64 import b64decode
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from spoa.bench.report.page import draw_page
from spoa.bench.report.parts import PARTS
from spoa.bench.result import Result, Round

NASTY = "<b>&\"'</section>]]>"
FACTS = {"machine": "a machine", "limits": "KAT_LIMITS__DEADLINE_MS=20"}


def results() -> list[Result]:
    figures = {"requests_per_s": 84_000.0, "agent_us": 11.0, "p50_ms": 3.0, "p99_ms": 8.0}
    return [
        Result(part.name, f"{NASTY} {part.name}", {"rate": rate}, [Round(figures, Counter())])
        for part in PARTS
        for rate in (1e3, 5e3)
    ]


def text_of(page: str) -> str:
    return " ".join(ET.fromstring(page.partition("\n")[2]).itertext())


def test_the_page_has_a_section_for_each_part() -> None:
    """Title, sentences, table, and every result by name, though its name is markup."""
    told = text_of(draw_page(FACTS, results(), "{}"))
    for part in PARTS:
        assert part.title in told
        assert part.says in told
        assert part.says_not in told
        assert f"{NASTY} {part.name}" in told
    assert {"a machine", "KAT_LIMITS__DEADLINE_MS=20"} <= set(
        told.split("\n")
    ) or "a machine" in told


def test_the_page_needs_nothing_else() -> None:
    """No script, no image, no font, no link to anywhere: it can be sent by mail."""
    page = draw_page(FACTS, results(), "{}")
    root = ET.fromstring(page.partition("\n")[2])
    tags = {one.tag.rpartition("}")[2] for one in root.iter()}
    assert not tags & {"script", "link", "img", "iframe", "image", "object"}
    links = [value for one in root.iter() for name, value in one.attrib.items() if name == "href"]
    assert [link.partition(",")[0] for link in links] == ["data:application/json;base64"]
    styles = " ".join(one.text or "" for one in root.iter() if one.tag.endswith("style"))
    assert "@import" not in styles
    assert "url(" not in styles


def test_the_figures_can_be_saved_from_the_page() -> None:
    """What is linked is the archive itself."""
    archive = json.dumps({"results": [1, 2, "</script>"]})
    page = draw_page(FACTS, [], archive)
    link = re.search(r'base64,([^"]*)"', page)
    assert link
    assert b64decode(link[1]).decode() == archive


def test_names_in_a_page_are_unique() -> None:
    """Every picture refers to its own title and words."""
    found = re.findall(r' id="([^"]*)"', draw_page({}, results(), "{}"))
    assert found
    assert len(set(found)) == len(found)


def test_html_reads_it_as_xml_does() -> None:
    """Elements that HTML closes by itself, or never, are none of the page's."""
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, _attrs: object) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

        def handle_startendtag(self, tag: str, _attrs: object) -> None:
            assert tag in {"meta", "rect", "line", "path", "circle"}

    Reader().feed(draw_page(FACTS, results(), "{}"))
    assert open_tags == []


@pytest.mark.parametrize("facts", [{}, FACTS])
def test_nothing_measured_is_said(facts: dict[str, str]) -> None:
    """An empty page is well-formed and says that it is empty."""
    assert "Nothing was measured" in text_of(draw_page(facts, [], "{}"))


def test_faults_are_on_the_page() -> None:
    """What was wrong in one round of many is not hidden by a median."""
    wrong = Result("capacity", "consume", {}, [Round({}, Counter({"<lost>": 3}))])
    assert "consume: 3 x <lost>" in text_of(draw_page({}, [wrong], "{}"))
