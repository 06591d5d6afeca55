"""The session's cookie: how it is found among others, and that no application gets it."""

import pytest

from tests.e2e.scene import TOKEN, Stage
from tests.e2e.visiting import BROWSER, COOKIE, SESSION, STANDS
from tests.support.stub_agent import acknowledging

NONCE = f"__Host-kat={BROWSER}"
ELSEWHERE = f"__Host-kat-other={SESSION}"

FOUND = {
    COOKIE: None,
    f"{COOKIE}; a=b": "a=b",
    f"a=b; {COOKIE}": "a=b",
    f"a=b; {COOKIE}; c=d": "a=b; c=d",
    f"a=b;{COOKIE};c=d": "a=b;c=d",
    f"a=b ;\t{COOKIE}\t; c=d": "a=b ; c=d",
    f"a=b; {NONCE}; {COOKIE}; {ELSEWHERE}; c=d": "a=b; c=d",
    f"{ELSEWHERE}; {COOKIE}; {ELSEWHERE}": None,
    f"{NONCE}; {NONCE}; {COOKIE}": None,
    f'a="; {COOKIE}; b="': 'a="; b="',
    f'a="; {COOKIE}': 'a="',
    f"a={'x' * 8000}; {COOKIE}; b={'y' * 100}": f"a={'x' * 8000}; b={'y' * 100}",
    "; ".join([*(f"c{n}=v" for n in range(300)), COOKIE]): "; ".join(f"c{n}=v" for n in range(300)),
    f"=x; {COOKIE}; y": "=x; y",
    f"a=b=c; d=e, f; {COOKIE}; g=%20\\'<>": "a=b=c; d=e, f; g=%20\\'<>",
    f"a=\xe4\xff; {COOKIE}": "a=\xe4\xff",
    f"a=_Host-kat; {COOKIE}; __Host=x": "a=_Host-kat; __Host=x",
    f"__host-kat-demo=theirs; {COOKIE}": "__host-kat-demo=theirs",
    f"__Secure-kat-demo=theirs; {COOKIE}": "__Secure-kat-demo=theirs",
}
"""A Cookie header with our session, and what is left of it for the application."""

NOT_FOUND = {
    f"{ELSEWHERE}; a=b": "a=b",
    f"__Host-kat-demo2={SESSION}; a=b": "a=b",
    f"__Host-kat-dem={SESSION}; a=b": "a=b",
    f"__Host-kat-={SESSION}; a=b": "a=b",
    f"__Host-kat-demo ={SESSION}; a=b": "a=b",
    f"__Host-kat-Demo={SESSION}; a=b": "a=b",
    f"{NONCE}; a=b": "a=b",
    "__Host-kat-demo=; a=b": "a=b",
    f'__Host-kat-demo="{SESSION}"; a=b': "a=b",
    f"{COOKIE}x; a=b": "a=b",
    f"{COOKIE[:-1]}; a=b": "a=b",
    f"{COOKIE}{'x' * 8000}; a=b": "a=b",
    f"{COOKIE}=; a=b": "a=b",
    f"{COOKIE},a=b": None,
    f"__Host-kat-demo={TOKEN}; a=b": "a=b",
    "a=b; c=d": "a=b; c=d",
}
"""What only looks like it: the agent hears of no session; so much is left."""

LOOKALIKES = {
    f"a=b,{COOKIE}": None,
    f"a=b, {COOKIE}": None,
    f"a={COOKIE}": None,
    f'a="{COOKIE}"': None,
    f"x{COOKIE}": None,
    f"a=b; c {COOKIE}": None,
    f"a=b;\x0b{COOKIE}": None,
    f"$Version=1,{COOKIE}": None,
    f"a=b; __Host-kat ={BROWSER}": None,
    f"a=b; __Host-kats={SESSION}": None,
    "a=b; __Host-kat-demo": None,
    f"a=b; __Host-kat-demo; {COOKIE}": SESSION,
    f"a=b,{COOKIE}; {COOKIE}": SESSION,
    f"a={COOKIE}; {COOKIE}": SESSION,
}
"""What some programs would read as ours and others would not; and the session that it is."""

TWICE = [
    f"{COOKIE}; {COOKIE}",
    f"{COOKIE}; __Host-kat-demo=evil",
    f"__Host-kat-demo=evil; {COOKIE}",
    f"__Host-kat-demo=evil;{COOKIE}",
    f"__Host-kat-demo=evil;\t {COOKIE}",
    f"{COOKIE}; a=b; c=d; {COOKIE}",
    f"__Host-kat-demo=; {COOKIE}",
    f"a=b\x0b; {COOKIE}\x0b; {COOKIE}",
]


@pytest.mark.parametrize("cookie", FOUND, ids=range(len(FOUND)))
def test_the_session_is_found_and_goes_no_further(watched: Stage, cookie: str) -> None:
    """The agent gets its text; the application all other cookies, byte for byte, in one header."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"Cookie: {cookie}").status == 200
    assert [args[b"session"] for args in watched.asked()] == [SESSION.encode()]
    left = FOUND[cookie]
    (received,) = watched.application.received
    assert received.header("Cookie") == ([] if left is None else [left])


@pytest.mark.parametrize("cookie", NOT_FOUND, ids=range(len(NOT_FOUND)))
def test_what_only_looks_like_it_is_no_session(watched: Stage, cookie: str) -> None:
    """Another name, or a text of another shape: the agent hears of no session, the rest is kept."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"Cookie: {cookie}").status == 200
    assert [args[b"session"] for args in watched.asked()] == [None]
    left = NOT_FOUND[cookie]
    (received,) = watched.application.received
    assert received.header("Cookie") == ([] if left is None else [left])


@pytest.mark.parametrize("cookie", LOOKALIKES, ids=range(len(LOOKALIKES)))
def test_what_looks_like_ours_takes_all_cookies_along(watched: Stage, cookie: str) -> None:
    """Inside another's value it is no session, and the application gets no Cookie header at all."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"Cookie: {cookie}").status == 200
    session = LOOKALIKES[cookie]
    assert [args[b"session"] for args in watched.asked()] == [session and session.encode()]
    assert [one.header("Cookie") for one in watched.application.received] == [[]]


@pytest.mark.parametrize("cookie", TWICE, ids=range(len(TWICE)))
def test_of_two_sessions_none_counts(watched: Stage, cookie: str) -> None:
    """No browser has a `__Host-` cookie twice: 403, and nobody is asked."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"Cookie: {cookie}").status == 403
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("beside", ["a=b", COOKIE, "", NONCE, f"a=b,{COOKIE}"])
def test_of_two_cookie_headers_none_counts(watched: Stage, beside: str) -> None:
    """No browser sends two of them over HTTP/1.1: with ours in one it is 403, in either order."""
    watched.agent.script = acknowledging(STANDS)
    for pair in ([COOKIE, beside], [beside, COOKIE]):
        assert watched.ask(*(f"Cookie: {cookie}" for cookie in pair)).status == 403
    assert (watched.asked(), watched.application.received) == ([], [])


def test_two_cookie_headers_of_others_pass(watched: Stage) -> None:
    """What has nothing of ours in it is left as it is."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask("Cookie: a=b", "Cookie: c=d,e").status == 200
    (received,) = watched.application.received
    assert received.header("Cookie") == ["a=b", "c=d,e"]


@pytest.mark.parametrize("end", [".0", ".1800000", ".9999999999"])
def test_a_session_may_end_with_a_number(watched: Stage, end: str) -> None:
    """The agent writes the idle time behind it: that reaches it too."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask(f"Cookie: {COOKIE}{end}; a=b").status == 200
    assert [args[b"session"] for args in watched.asked()] == [f"{SESSION}{end}".encode()]
