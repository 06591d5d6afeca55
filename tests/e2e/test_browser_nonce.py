"""The way to the portal and back, and the browser's own cookie, to which a token may be bound."""

import re
from collections.abc import Iterator
from hashlib import sha256
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.scene import Agent, Gate, Stage, staged
from tests.e2e.visiting import (
    BROWSER,
    COOKIE,
    LINK,
    MISSING,
    NO_BODY,
    OPENS,
    PROGRAM,
    STANDS,
    browsed,
    cookie_of,
)
from tests.support.haproxy import Answer
from tests.support.stub_agent import acknowledging, refuse

PORTAL = "https://portal.example/enter"
KEY = "bm90IGEgc2VjcmV0LCBhIHRlc3Qncw=="
SETTINGS = {"KAT_PORTAL": PORTAL, "KAT_NONCE_KEY": KEY}
NONCE = f"__Host-kat={BROWSER}"
DIGEST = sha256(BROWSER.encode()).hexdigest()

NO_COOKIES = [
    *(
        BROWSER[:-1],
        f"{BROWSER}0",
        BROWSER.upper(),
        f'"{BROWSER}"',
        "",
        "x" * 64,
        f"{BROWSER[:-1]}g",
    ),
    *(f"{BROWSER[:-1]}%30", f"{BROWSER}=", f" {BROWSER[:-1]}", DIGEST[:32], "0" * 8000),
]

HOSTILE = [
    *(
        '/"><script>alert(1)</script>',
        "/'onclick='x",
        "/?a=\"'<>`",
        "/&quot;&amp;&lt;",
        "/?return=x",
    ),
    *(
        "//evil.example/",
        "/\\evil.example",
        "/@evil.example",
        "/?a=1&nonce=x",
        "/?a=b%26c",
        "/%zz%",
    ),
    *("/%0d%0aX:y", "/?a=%[path]", "/?" + "%00" * 3, "/" + "<" * 1400, "/..;/x", "/?a=+b"),
]


@pytest.fixture(scope="module")
def _stage(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(haproxy_binary, tmp_path_factory.mktemp("nonce"), settings=SETTINGS) as stage:
        yield stage


@pytest.fixture(scope="module")
def bound(
    haproxy_binary: Path, browsers_agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp("bound")
    with browsed(haproxy_binary, folder, browsers_agent, SETTINGS) as gate:
        yield gate


def _way(answer: Answer) -> dict[str, str]:
    """Return what the page's only link tells the portal."""
    (link,) = re.findall(r'<a\b[^>]* href="([^"]*)"', answer.body)
    parts = urlsplit(unescape(link))
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == PORTAL
    told = parse_qs(parts.query, keep_blank_values=True, strict_parsing=True)
    assert all(len(values) == 1 for values in told.values())
    return {name: values[0] for name, values in told.items()}


def _browser(answer: Answer) -> str | None:
    """Return the browser's cookie that an answer sets, and nothing else may it set."""
    header = answer.header("Set-Cookie")
    if header is None:
        return None
    cookie = re.fullmatch(
        r"__Host-kat=([0-9a-f]{64}); Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=[0-9]+", header
    )
    assert cookie, header
    return cookie[1]


# -- The way back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/page?a=1&b=2", *HOSTILE])
def test_the_page_leads_to_the_portal_and_back(watched: Stage, target: str) -> None:
    """Its link leads to KAT_PORTAL alone, with this very page as the way back, byte for byte."""
    watched.agent.script = acknowledging(MISSING)
    answer = watched.ask(target=target)
    assert answer.status == 403
    assert _way(answer)["return"] == f"http://localhost{target}"
    assert answer.body.count("<") == watched.ask().body.count("<")


def test_the_way_back_has_no_token(watched: Stage) -> None:
    """Whatever the answer, the link's token has left the query that the portal gets."""
    for script in (MISSING, refuse(b"denied", b"replayed"), refuse(b"broken", b"overloaded")):
        watched.agent.script = acknowledging(script)
        answer = watched.ask(f"Cookie: {NONCE}", target=f"/page?a=1&{LINK}&b=2")
        assert _way(answer)["return"] == "http://localhost/page?a=1&b=2"


def test_the_way_back_names_the_port(watched: Stage) -> None:
    """Host is told as the browser said it, so that the same page is reached again."""
    watched.agent.script = acknowledging(MISSING)
    assert _way(watched.ask(host="localhost:8443"))["return"] == "http://localhost:8443/"


def test_a_very_long_way_back_ends_at_the_front_page(watched: Stage) -> None:
    """1500 bytes are kept, of more none: the page must fit into HAProxy's buffer."""
    watched.agent.script = acknowledging(MISSING)
    assert _way(watched.ask(target="/" + "a" * 1499))["return"] == "http://localhost/" + "a" * 1499
    assert _way(watched.ask(target="/" + "a" * 1500))["return"] == "http://localhost/"


# -- The browser's cookie -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [MISSING, refuse(b"denied", b"unknown")],
    ids=["missing", "denied"],
)
def test_a_browser_gets_a_cookie_and_the_portal_its_digest(watched: Stage, script: bytes) -> None:
    """With the pages that send people there: 256 bits, of which the portal sees a SHA-256."""
    watched.agent.script = acknowledging(script)
    answer = watched.ask(f"Cookie: {COOKIE}", target=f"/?{LINK}")
    browser = _browser(answer)
    assert browser
    assert _way(answer)["nonce"] == sha256(browser.encode()).hexdigest()
    assert browser not in answer.body
    assert [args[b"nonce"] for args in watched.asked()] == [None]


def test_no_two_browsers_get_the_same(watched: Stage) -> None:
    """A hundred cookies are a hundred, and no half of one is another's."""
    watched.agent.script = acknowledging(MISSING)
    cookies = [_browser(watched.ask()) or "" for _ in range(100)]
    assert len({half for cookie in cookies for half in (cookie[:32], cookie[32:])}) == 200


def test_a_browser_keeps_its_cookie(watched: Stage) -> None:
    """A well-formed one is not replaced; the agent and the portal get its digest."""
    watched.agent.script = acknowledging(MISSING)
    answer = watched.ask(f"Cookie: a=b; {NONCE}; c=d")
    assert _browser(answer) is None
    assert _way(answer)["nonce"] == DIGEST
    assert [args[b"nonce"] for args in watched.asked()] == [DIGEST.encode()]


@pytest.mark.parametrize("cookie", NO_COOKIES, ids=range(len(NO_COOKIES)))
def test_what_is_no_cookie_of_ours_is_replaced(watched: Stage, cookie: str) -> None:
    """Of any other shape it is no nonce to the agent, and the browser gets a new one."""
    watched.agent.script = acknowledging(MISSING)
    answer = watched.ask(f"Cookie: __Host-kat={cookie}")
    assert _browser(answer) not in {None, cookie}
    assert _way(answer)["nonce"] == sha256((_browser(answer) or "").encode()).hexdigest()
    assert [args[b"nonce"] for args in watched.asked()] == [None]


@pytest.mark.parametrize("target", ["/", f"/?{LINK}"])
def test_the_agent_hears_of_the_browser(watched: Stage, target: str) -> None:
    """With a link and with a session it gets the digest, and the application gets nothing."""
    watched.agent.script = acknowledging(STANDS)
    watched.ask(f"Cookie: {COOKIE}; {NONCE}", target=target)
    assert [args[b"nonce"] for args in watched.asked()] == [DIGEST.encode()]


@pytest.mark.parametrize(
    ("method", "header"),
    [
        *(("GET", PROGRAM), ("HEAD", "Accept: */*"), ("POST", NO_BODY), ("DELETE", NO_BODY)),
        *(("GET", "Sec-Fetch-Dest: image"), ("GET", "Sec-Fetch-Dest: iframe")),
        *(("GET", "Sec-Fetch-Dest: empty"), ("GET", "Sec-Fetch-Dest: script")),
    ],
)
def test_what_shows_no_page_gives_no_cookie(watched: Stage, method: str, header: str) -> None:
    """A program, a form or a picture must not change the cookie of the page that is shown."""
    watched.agent.script = acknowledging(MISSING)
    assert _browser(watched.ask(header, method=method)) is None


@pytest.mark.parametrize(
    "script",
    [STANDS, OPENS, refuse(b"broken", b"overloaded"), b""],
    ids=["a session", "a new session", "broken", "no answer"],
)
def test_who_needs_no_token_gets_no_cookie(watched: Stage, script: bytes) -> None:
    """Only who has to come back with one: not who is let in, nor anybody while nobody can be."""
    watched.agent.script = acknowledging(script)
    for target in ("/", f"/?{LINK}"):
        answer = watched.ask(target=target)
        assert "__Host-kat=" not in (answer.header("Set-Cookie") or "")
        assert "nonce=" not in answer.body


def test_of_two_browsers_none_counts(watched: Stage) -> None:
    """With two such cookies the agent gets no nonce: neither may be the one that asked."""
    watched.agent.script = acknowledging(MISSING)
    watched.ask(f"Cookie: {NONCE}; a=b; __Host-kat={'0' * 64}")
    assert [args[b"nonce"] for args in watched.asked()] == [None]


def test_only_the_browser_that_asked_can_redeem(bound: Gate) -> None:
    """The real agent: a bound token stays whole for anybody else, and opens for its browser."""
    page = bound.ask(target="/page")
    cookie = f"Cookie: __Host-kat={_browser(page)}"
    token = bound.issue(nonce=_way(page)["nonce"])
    before = bound.value(token)
    stranger = f"Cookie: __Host-kat={_browser(bound.ask())}"
    digest = f"Cookie: __Host-kat={_way(page)['nonce']}"
    for headers in ([], [stranger], [digest], [f"{cookie}; __Host-kat={'0' * 64}"]):
        answer = bound.ask(*headers, target=f"/page?kat={token}")
        assert answer.status == 403
        assert "__Host-kat-demo" not in (answer.header("Set-Cookie") or "")
    assert bound.value(token) == before
    session = cookie_of(bound, token, cookie)
    assert bound.is_consumed(token)
    assert bound.ask(f"{cookie}; {session}").status == 200
