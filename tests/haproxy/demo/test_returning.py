"""The way back: to one of our applications, or nowhere."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haproxy.demo.people import Application
from haproxy.demo.returning import Way, read_way

WIKI = Application("wiki", "Wiki", "https://wiki.example:8443/", frozenset({"staff"}))
BLOG = Application("blog", "Blog", "https://blog.example/", frozenset({"staff"}))
OURS = (WIKI, BLOG)
NONCE = "0123456789abcdef" * 4
TOKEN = "kat_" + "a" * 38


def way(url: str, nonce: str = "") -> Way | None:
    return read_way(url, nonce, OURS)


@pytest.mark.parametrize(
    ("url", "application"),
    [
        ("https://wiki.example:8443/", WIKI),
        ("https://wiki.example:8443/a/b?c=d&e=%20f", WIKI),
        ("https://wiki.example:8443/?next=//evil.example/", WIKI),
        ("https://wiki.example:8443/a;b/@c:d", WIKI),
        ("https://blog.example/", BLOG),
    ],
)
def test_ours_is_honoured(url: str, application: Application) -> None:
    """A URL of an application leads there, letter by letter as it came."""
    found = way(url)
    assert found
    assert (found.application, found.url) == (application, url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "/notes",
        "//wiki.example:8443/",
        "wiki.example:8443/",
        "https://wiki.example:8443",  # no path: more of a host might follow
        "https://wiki.example:8443.evil.example/",
        "https://wiki.example:84430/",
        "https://wiki.example:844/",
        "https://wiki.example/",
        "https://wiki.example:443/",
        "http://wiki.example:8443/",
        "https://blog.example:443/",
        "https://blog.example.evil.example/",
        "https://evil.example/https://blog.example/",
        "https://evil.example/?https://blog.example/",
        "https://evilblog.example/",
        "https://blog.example@evil.example/",
        "https://user@blog.example/",
        "https://user:pass@blog.example/",
        "https://blog.example:@evil.example/",
        "https://blog.example\\@evil.example/",
        "https:\\\\blog.example/",
        "https:/blog.example/",
        "https:blog.example/",
        "https:///blog.example/",
        "HTTPS://blog.example/",
        "https://BLOG.example/",
        "https://blog.example./",
        "https://blog%2eexample/",
        "https://blog.example%2f@evil.example/",
        "https://blog.example//evil.example/",
        "https://blog.example///evil.example/",
        "https://blog.example/\\evil.example/",
        "https://blog.example/a\\b",
        " https://blog.example/",
        "https://blog.example/ ",
        "\thttps://blog.example/",
        "ht\ttps://blog.example/",
        "https://blog.example/\r\nSet-Cookie: a=b",
        "https://blog.example/\n",
        "https://blog.example/\x00",
        "https://blog.example/\x7f",
        "https://blog.example/\u00e4",
        "https://bl\u043eg.example/",
        "https://blog.example\uff0f@evil.example/",
        "https://blog.example/#there",
        "javascript:alert(1)//https://blog.example/",
        "data:text/html,https://blog.example/",
        "blob:https://blog.example/",
        "https://[::1]/",
        "https://blog.example/" + "a" * 4096,
    ],
    ids=lambda url: repr(url[:60]),
)
def test_all_else_is_no_way(url: str) -> None:
    """Whatever is not, as text, one of our origins with one slash behind it is ignored."""
    assert way(url) is None


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_leads_elsewhere(before: str, after: str) -> None:
    """Whatever stands around one of our URLs: a way that is found has our very origin."""
    found = way(f"{before}https://blog.example{after}")
    if found:
        parts = urlsplit(found.with_token(TOKEN))
        assert (parts.scheme, parts.netloc) == ("https", "blog.example")
        assert parts.query.split("&")[-1] == f"kat={TOKEN}"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("?kat=kat_x", ""),
        ("?kat=", "?kat="),
        ("?kat", "?kat"),
        ("?%6bat=kat_x", ""),
        ("?k%61%74=%6bat_x", ""),
        ("?a=1&kat=kat_x&b=2", "?a=1&b=2"),
        ("?kat=kat_x&kat=kat_y&a", "?a"),
        ("?", ""),
        ("?&&", ""),
        ("?kat=5&%6bat=6&kate=1&xkat=2&KAT=3", "?kat=5&%6bat=6&kate=1&xkat=2&KAT=3"),
    ],
)
def test_a_token_in_it_is_dropped(query: str, left: str) -> None:
    """What a gate would take for a token goes, however it is encoded, and nothing else does."""
    found = way(f"https://blog.example/a{query}")
    assert found
    assert found.url == f"https://blog.example/a{left}"


@pytest.mark.parametrize(
    "rest", [f";kat={TOKEN}", f"?a;kat={TOKEN}", f"%6bat_{TOKEN[4:]}", f"?b={TOKEN}"]
)
def test_a_token_in_disguise_leads_nowhere(rest: str) -> None:
    """The gate would refuse the whole URL, and the new token would stay in the address bar."""
    assert way(f"https://blog.example/a{rest}") is None


@pytest.mark.parametrize(("query", "joint"), [("", "?"), ("?a=1", "&")])
def test_the_token_is_one_more_field(query: str, joint: str) -> None:
    """The token stands behind the query that there is, or begins one."""
    found = way(f"https://blog.example/a{query}")
    assert found
    assert found.with_token(TOKEN) == f"https://blog.example/a{query}{joint}kat={TOKEN}"


@pytest.mark.parametrize(
    ("nonce", "taken"),
    [
        (NONCE, NONCE),
        ("", None),
        (NONCE[:-1], None),
        (NONCE + "0", None),
        (NONCE.upper(), None),
        (NONCE[:-1] + "\n", None),
        ("\u0661" * 64, None),
    ],
)
def test_a_nonce_is_a_digest(nonce: str, taken: str | None) -> None:
    """Only 64 lowercase hex digits bind a token; what else comes binds none."""
    found = way("https://blog.example/", nonce)
    assert found
    assert found.nonce == taken
