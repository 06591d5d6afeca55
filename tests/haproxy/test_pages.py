"""The pages as files; test_pages_served.py has them as HAProxy sends them."""

import json
import re
from html.parser import HTMLParser

import pytest

from haproxy import FILES
from haproxy.pages import SHIPPED, PagesError, read, render
from haproxy.pages.render import MAX_BYTES

ERRORS = FILES / "errors"
PAGES = [
    "401.html",
    "403-missing.html",
    "403.html",
    "429.html",
    "503.html",
    "confirm.html",
    "logout.html",
]
ANSWERS = ["401.json", "403.json", "429.json", "503.json"]
PORTAL, ACTION, TOKEN = (f"%[var(txn.gate.{name})]" for name in ("portal", "action", "token"))

Attributes = dict[str, str | None]


class Document(HTMLParser):
    """A page, taken apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.elements if name == tag]


def mistakes_of(document: str) -> str:
    with pytest.raises(PagesError) as caught:
        render(read(document))
    return "\n".join(caught.value.mistakes)


def test_the_committed_pages_are_those_of_the_shipped_texts() -> None:
    """haproxy/errors holds what `kat pages haproxy/errors` writes, and nothing else."""
    assert {file.name: file.read_text() for file in ERRORS.iterdir()} == render(read())


def test_there_is_a_page_for_each_answer() -> None:
    """The names are those that haproxy.cfg gives to HAProxy."""
    assert sorted(render(read())) == sorted([*PAGES, *ANSWERS])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_bones_that_readers_need(name: str) -> None:
    """Language, title, one main, one h1; one link to the portal, which learns of no referrer."""
    page = Document(render(read())[name])
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("title", "main", "h1", "a")] == [1, 1, 1, 1]
    [link] = page.all("a")
    assert (link["href"], link["rel"]) == (PORTAL, "noreferrer")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_nothing_from_elsewhere(name: str) -> None:
    """A page loads nothing, runs nothing, and only the confirm page repeats what was sent."""
    text = render(read())[name]
    assert not re.search(r"<(script|img|link|iframe)|url\(|@import|//|\son\w+=", text)
    filled_in = set(re.findall(r"%\[.*?\]", text))
    assert filled_in == ({PORTAL, ACTION, TOKEN} if name == "confirm.html" else {PORTAL})


def test_the_confirm_page_posts_the_token_and_nothing_else() -> None:
    """One form, one field, one button without a name."""
    page = Document(render(read())["confirm.html"])
    assert page.all("form") == [{"method": "post", "action": ACTION, "autocomplete": "off"}]
    assert page.all("input") == [{"type": "hidden", "name": "kat", "value": TOKEN}]
    assert page.all("button") == [{}]


@pytest.mark.parametrize("name", ANSWERS)
def test_programs_get_a_code_that_no_text_changes(name: str) -> None:
    """The message is the operator's, as a JSON string; the code is ours."""
    status = name.removesuffix(".json")
    own = render(read(f'[json]\n{status} = """100% "no"\nn\u00f6"""'))[name]
    shipped = render(read())[name]
    assert json.loads(own)["message"] == '100% "no"\nn\u00f6'
    assert json.loads(own)["error"] == json.loads(shipped)["error"]
    assert (own + shipped).isascii()


def test_what_is_not_changed_stays_as_shipped() -> None:
    """One key of one page changes that page alone; a colour changes all pages."""
    shipped = render(read())
    one = render(read('[page.401]\ntitle = "Hello"'))
    assert {name for name in shipped if shipped[name] != one[name]} == {"401.html"}
    assert "<h1>Hello</h1>" in one["401.html"]
    green = render(read('accent = "#0f766e"'))
    assert {name for name in shipped if shipped[name] != green[name]} == set(PAGES)


def test_the_shipped_texts_are_a_file_to_begin_with() -> None:
    """Laid over themselves they change nothing."""
    assert read(SHIPPED) == read()


def test_a_blank_line_begins_a_paragraph() -> None:
    """Other line ends do not."""
    page = render(read('[page.401]\ntext = """\none\ntwo\n \nthree\n"""'))["401.html"]
    assert "<p>one\ntwo</p>\n  <p>three</p>" in page


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        ("accent = ", "is no TOML: "),
        ("accent = " + "9" * 5000, "is no TOML: "),
        ('acent = "#000000"', "acent: unknown key; do you mean accent?"),
        ('[page.404]\ntitle = "x"', "page.404.title: unknown key; do you mean page.40"),
        ('"\u00fc\\u001b" = "x"', r"\xfc\x1b: unknown key"),
        ("x" * 10000 + " = 1", f"{'x' * 80}: unknown key"),
        (f"accent = 0x{'f' * 10000}", "accent: is no text"),
        ('page = "x"', "page: unknown key"),
        ("[page.401.title]\na = 1", "page.401.title.a: unknown key"),
        ("[page.401]\ntitle = 401", "page.401.title: is no text: write it in quotes"),
        ('[page.401]\ntext = ["a", "b"]', "page.401.text: is no text"),
        ('[page.401]\nlink = " \\n"', "page.401.link: is empty"),
        ('[page.401]\nlink = "a\\u0000b"', "page.401.link: holds a control character"),
        ('language = "English, please"', "language: English, please is no language tag"),
        ('language = "en\\" onload=\\""', 'language: en" onload=" is no language tag'),
        ('accent = "teal"', "accent: 'teal' is no colour like #2456c9"),
        (
            'accent = "#ffcc00"',
            "accent: #ffcc00 on white has a contrast of 1.51:1, the limit is 4.5",
        ),
    ],
)
def test_what_makes_no_page_is_named(document: str, mistake: str) -> None:
    """Each mistake is one sentence with the key, the value and what is allowed."""
    assert mistakes_of(document).startswith(mistake)


def test_all_mistakes_are_named_at_once() -> None:
    """Nobody runs the command once per mistake."""
    mistakes = mistakes_of('accent = "red"\nlanguage = ""\n[page.503]\ntitel = "x"')
    assert len(mistakes.splitlines()) == 3


def test_a_page_takes_half_of_the_buffer_and_not_a_byte_more() -> None:
    """The limit counts bytes, not letters."""
    room = MAX_BYTES - len(render(read('[page.401]\ntext = "x"'))["401.html"].encode()) + 1
    full = render(read(f'[page.401]\ntext = "{"x" * room}"'))["401.html"]
    assert len(full.encode()) == MAX_BYTES
    mistakes = mistakes_of(f'[page.401]\ntext = "{"x" * (room - 1)}\u00fc"')
    assert mistakes == "401.html would have 8193 bytes, the limit is 8192: shorten its texts"
