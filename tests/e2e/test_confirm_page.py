"""With KAT_CONFIRM a link shows a page first: what the page may do, and what stands in it."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN, Agent, Gate, Stage, staged
from tests.e2e.visiting import (
    COOKIE,
    LINK,
    NO_BODY,
    OPENS,
    OPENS_ONCE,
    OURS,
    STANDS,
    browsed,
    post,
)
from tests.support.haproxy import Answer
from tests.support.stub_agent import acknowledging

SETTINGS = {"KAT_CONFIRM": "on", "KAT_PORTAL": "https://portal.example/"}


@pytest.fixture(scope="module")
def _stage(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(haproxy_binary, tmp_path_factory.mktemp("confirm"), settings=SETTINGS) as stage:
        yield stage


@pytest.fixture(scope="module")
def asking(
    haproxy_binary: Path, browsers_agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp("asking")
    with browsed(haproxy_binary, folder, browsers_agent, SETTINGS) as gate:
        yield gate


class _Page(HTMLParser):
    """Reads a page as a browser would: its tags and their attributes, unescaped."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        assert answer.status == 200
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(answer.body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def only(self, tag: str) -> dict[str, str]:
        (attributes,) = [attributes for name, attributes in self.tags if name == tag]
        return attributes


HOSTILE = [
    *('a="><script>alert(1)</script>', "a='><img/src=x/onerror=1>", 'a="onfocus="x"/b="', "a=`x`"),
    *("a=&lt;&gt;&quot;&amp;", "a=&quot&lt", "a=%22%3Cb%3E&b=%zz", "a=%[path]"),
    *("a=\\\"x\\'", "javascript:x", "//evil.example", "a=%0d%0aSet-Cookie:x=y", "a=%00", "a=1;b=2"),
    *("&&&", "a={}|^~[]", "a=?&b=??", "kat=5", "%%", "$HOME${KAT_ACL}"),
]


@pytest.mark.parametrize("header", ["Accept: */*", "Sec-Fetch-Site: none", f"Cookie: {COOKIE}"])
def test_a_link_only_shows_a_page(watched: Stage, header: str) -> None:
    """A GET, of a mail scanner or a person, with a session or without: nobody is asked at all."""
    watched.agent.script = acknowledging(OPENS)
    answer = watched.ask(header, target=f"/page?{LINK}")
    assert (answer.status, answer.header("Set-Cookie")) == (200, None)
    assert (watched.asked(), watched.application.received) == ([], [])


def test_the_page_has_one_form_with_the_token(watched: Stage) -> None:
    """It posts one field to the page's own path: no other one is sent, none to another host."""
    page = _Page(watched.ask(target=f"/page?a=1&{LINK}&b=2"))
    assert page.only("form")["method"] == "post"
    assert page.only("form")["action"] == "?kat=kat_form&a=1&b=2"
    assert page.only("input") == {"type": "hidden", "name": "kat", "value": TOKEN}
    assert "name" not in page.only("button")


def test_the_page_may_post_to_this_site_alone(watched: Stage) -> None:
    """And say where it comes from when it does; keep, frame or script it nobody can."""
    answer = watched.ask(target=f"/page?{LINK}")
    policy = (answer.header("Content-Security-Policy") or "").split("; ")
    assert {"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"} < set(policy)
    assert "base-uri 'none'" in policy
    assert answer.header("Referrer-Policy") == "strict-origin"
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("query", HOSTILE)
def test_no_query_leaves_the_forms_action(watched: Stage, query: str) -> None:
    """Whatever a link has in its query: the page has the same tags, and nothing new in them."""
    plain = _Page(watched.ask(target=f"/page?{LINK}&a=1"))
    page = _Page(watched.ask(target=f"/page?{LINK}&{query}"))
    assert [(tag, set(attributes)) for tag, attributes in page.tags] == [
        (tag, set(attributes)) for tag, attributes in plain.tags
    ]
    action = page.only("form")["action"]
    assert action.startswith("?kat=kat_form&")
    for char, escaped in (("%22", '"'), ("%3C", "<"), ("%3E", ">")):
        action, query = action.replace(char, escaped), query.replace(char, escaped)
    assert action.removeprefix("?kat=kat_form&") == query


@pytest.mark.parametrize(
    "path", ['/"><script>', "/'onload='x", "//evil.example/", "/\\evil.example"]
)
def test_no_path_stands_in_the_page(watched: Stage, path: str) -> None:
    """The form's action is relative, and the link leads to the portal alone."""
    page = _Page(watched.ask(target=f"{path}?{LINK}"))
    assert page.only("form")["action"] == "?kat=kat_form"
    assert page.only("a")["href"] == SETTINGS["KAT_PORTAL"]


@pytest.mark.parametrize("char", ["a", "&", '"', "<"])
def test_a_long_query_gets_the_whole_page_or_none(watched: Stage, char: str) -> None:
    """Up to 1000 bytes are kept, however long they become; more are a 414, and nobody is asked."""
    answer = watched.ask(target=f"/page?{LINK}&{char * 999}")
    assert answer.status == 200
    assert answer.body.endswith("</html>\n")
    assert watched.ask(target=f"/page?{LINK}&{char * 1100}").status == 414
    assert watched.asked() == []


def test_a_link_that_is_no_visit_gets_no_page(watched: Stage) -> None:
    """What is fetched ahead, or by a page for a picture, is refused as without KAT_CONFIRM."""
    for header in ("Sec-Purpose: prefetch", "Sec-Fetch-Dest: iframe", "Purpose: prefetch"):
        assert watched.ask(header, target=f"/?{LINK}").status == 403
    assert watched.ask(NO_BODY, OURS, method="POST", target=f"/?{LINK}").status == 403
    assert watched.asked() == []


def test_no_link_leads_to_the_logout(watched: Stage) -> None:
    """A page that offers to log in must not have a button that logs out: to the front page."""
    answer = watched.ask(f"Cookie: {COOKIE}", target=f"/.kat/logout?{LINK}")
    assert (answer.status, answer.header("Location")) == (303, "/")
    assert answer.header("Set-Cookie") is None
    assert watched.asked() == []


@pytest.mark.parametrize("query", ["kat=kat_x", f"{LINK}&{LINK}", f"{LINK}x"])
def test_what_is_no_token_gets_no_page(watched: Stage, query: str) -> None:
    """A token of a wrong shape, or two of them, is judged at once, and so counted as a guess."""
    watched.agent.script = acknowledging(OPENS_ONCE)
    assert "<form" not in watched.ask(target=f"/?{query}").body
    assert [args[b"token"] for args in watched.asked()] == [b"misshapen"]


def test_the_forms_address_leads_to_the_page(watched: Stage) -> None:
    """Who opens it by hand has no token: 303 to the page itself, and nobody is asked."""
    answer = watched.ask(target="/page?kat=kat_form&a=1")
    assert (answer.status, answer.header("Location")) == (303, "/./page?a=1")
    assert (watched.asked(), watched.application.received) == ([], [])


def test_a_programs_token_needs_no_page(watched: Stage) -> None:
    """A token in a header is judged at once."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"X-KAT: {TOKEN}").status == 200


def test_only_the_button_consumes_the_token(asking: Gate) -> None:
    """The real agent: after any number of GETs it is whole; the form opens a session, and once."""
    token = asking.issue()
    target = f"/page?kat={token}&a=1"
    before = asking.value(token)
    for _ in range(3):
        page = _Page(asking.ask(target=target))
    assert asking.value(token) == before
    body = f"kat={page.only('input')['value']}"
    action = f"/page{page.only('form')['action']}"
    first, second = (post(asking.haproxy, action, OURS, body=body) for _ in range(2))
    assert (first.status, first.header("Location")) == (303, "/./page?a=1")
    cookie = (first.header("Set-Cookie") or "").partition(";")[0]
    assert asking.is_consumed(token)
    assert asking.ask(f"Cookie: {cookie}").status == 200
    assert (second.status, second.header("Set-Cookie")) == (403, None)
