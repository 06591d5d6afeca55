"""A token in a link: how it leaves the query, and where the answer leads."""

import pytest

from tests.e2e.scene import TOKEN, Stage
from tests.e2e.visiting import LINK, OPENS, OPENS_ONCE, SET_COOKIE, STANDS, exchange, lines
from tests.support.stub_agent import acknowledging

QUERIES = {
    LINK: "",
    f"{LINK}&a=1": "a=1",
    f"a=1&{LINK}": "a=1",
    f"a=1&{LINK}&b=2": "a=1&b=2",
    f"{LINK}&": "",
    f"&{LINK}": "",
    f"{LINK}&&x": "&x",
    f"a&&{LINK}": "a&",
    f"a=%zz&{LINK}&b=%": "a=%zz&b=%",
    f"a=%0d%0aX:%20y&{LINK}": "a=%0d%0aX:%20y",
    f"a='\"<>\\^`{{|}}&{LINK}": "a='\"<>\\^`{|}",
    f"{LINK}&kat=5": "kat=5",
    f"kat=5&{LINK}": "kat=5",
    f"kat=&{LINK}&kats={'kat_' + 'x' * 37}": f"kat=&kats={'kat_' + 'x' * 37}",
    f"a=?&{LINK}&b=/?": "a=?&b=/?",
    f"u=https://other.example/?x=1&{LINK}": "u=https://other.example/?x=1",
    f"+=+&{LINK}&;": "+=+&;",
}
"""With the token, and without."""

NO_TOKENS = ["kat=5", "kat=", "kat", "KAT=kat_", "kat=Kat_x", "xkat=kat_", "kat%3dkat_", "a=kat_"]

NO_SHAPES = [
    *(
        "kat_",
        "kat_x",
        TOKEN[:-1],
        f"{TOKEN}x",
        f"{TOKEN}%20",
        f"{TOKEN}=",
        f"{TOKEN};a",
        "kat_%zz",
    ),
    f"{TOKEN}%00",
]

PATHS = [
    *("//evil.example", "//evil.example/%2e%2e", "/\\evil.example", "/\\\\evil.example", "///evil"),
    *(
        "/%0d%0aX:y",
        "/%0d%0a%0d%0a<script>",
        "/%5cevil.example",
        "/.//evil.example",
        "/@evil.example",
    ),
    *("/https://evil.example", "/:80", "/;//evil.example", "/docs/..;/admin", "/..", "/%00", "/%"),
    "/" + "p" * 4095,
]

LONG = "q=" + "x" * 10_000


@pytest.mark.parametrize("query", QUERIES)
def test_the_token_alone_leaves_the_query(watched: Stage, query: str) -> None:
    """Wherever it stands, what else is in the query is kept byte for byte; so is it for a page."""
    rest = QUERIES[query]
    clean = f"/page?{rest}" if rest else "/page"
    watched.agent.script = acknowledging(OPENS)
    assert watched.ask(target=f"/page?{query}").header("Location") == f"/.{clean}"
    watched.agent.script = acknowledging(OPENS_ONCE)
    assert watched.ask(target=f"/page?{query}").status == 200
    assert [one.target for one in watched.application.received] == [clean]
    assert [args[b"token"] for args in watched.asked()] == [TOKEN.encode()] * 2


@pytest.mark.parametrize("query", NO_TOKENS)
def test_what_is_no_token_is_the_applications_own(watched: Stage, query: str) -> None:
    """A `kat` that holds no token passes as it is, and the agent hears of none."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(target=f"/page?{query}").status == 200
    assert [one.target for one in watched.application.received] == [f"/page?{query}"]
    assert [(args[b"token"], args[b"via"]) for args in watched.asked()] == [(None, None)]


@pytest.mark.parametrize("token", NO_SHAPES)
def test_what_has_not_the_shape_is_told_as_such(watched: Stage, token: str) -> None:
    """The agent gets a word for it, never the client's noise, and it leaves the query too."""
    watched.agent.script = acknowledging(OPENS_ONCE)
    watched.ask(target=f"/page?kat={token}&a=1")
    assert [args[b"token"] for args in watched.asked()] == [b"misshapen"]
    assert [one.target for one in watched.application.received] == ["/page?a=1"]


@pytest.mark.parametrize("path", PATHS)
def test_the_answer_stays_on_the_host(watched: Stage, path: str) -> None:
    """The Location is `/.` and the path, unchanged: no browser takes that for another host."""
    watched.agent.script = acknowledging(OPENS)
    answer = watched.ask(target=f"{path}?{LINK}")
    assert (answer.status, answer.header("Location")) == (303, f"/.{path}")
    assert [name for name, _ in answer.headers if name.lower() == "x"] == []
    assert [args[b"path"] for args in watched.asked()] == [path.encode()]


@pytest.mark.parametrize("path", ["/page", "//evil.example/page", "/"])
def test_an_absolute_target_leads_back_to_this_host(watched: Stage, path: str) -> None:
    """Of `GET http://localhost/...`, as proxies write it, the path alone is answered."""
    watched.agent.script = acknowledging(OPENS)
    answer = watched.ask(target=f"http://localhost{path}?a=1&{LINK}")
    assert answer.header("Location") == f"/.{path}?a=1"


@pytest.mark.parametrize(
    "target", [f"http://localhost?{LINK}", f"?{LINK}", f"page?{LINK}", f"*?{LINK}"]
)
def test_a_target_without_a_path_is_refused(watched: Stage, target: str) -> None:
    """Where there is no path there is no page to lead to, and nobody is asked."""
    assert watched.ask(target=target).status == 400
    assert watched.asked() == []


@pytest.mark.parametrize(
    "host", ["localhost,evil", "evil,localhost", "evil@localhost", "localhost/"]
)
def test_a_link_needs_a_readable_host(watched: Stage, host: str) -> None:
    """A Host that can be read in two ways costs nobody a token."""
    assert watched.ask(target=f"/?{LINK}", host=host).status == 400
    assert watched.asked() == []


def test_a_long_query_comes_back_whole_with_the_cookie(watched: Stage) -> None:
    """Neither Location nor cookie is lost for 10 KB of query behind the longest path."""
    watched.agent.script = acknowledging(OPENS)
    answer = watched.ask(target=f"/{'p' * 4095}?{LINK}&{LONG}")
    assert answer.header("Location") == f"/./{'p' * 4095}?{LONG}"
    assert answer.header("Set-Cookie") == SET_COOKIE


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_no_answer_to_a_broken_line_names_a_header(watched: Stage, end: str) -> None:
    """A line break inside the target ends the request line; it never becomes a header of ours."""
    watched.agent.script = acknowledging(OPENS)
    request = lines(f"GET /page?{LINK}&a={end}Set-Cookie: x=y HTTP/1.1", "Host: localhost")
    answer = exchange(watched.haproxy, request)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x=y" not in answer
    assert watched.asked() == []
