"""What is no person's visit consumes no token of a link, and reaches no application by it."""

import pytest

from tests.e2e.scene import Gate, Stage
from tests.e2e.visiting import COOKIE, LINK, MISSING, NO_BODY, OPENS, STANDS, cookie_of
from tests.support.stub_agent import acknowledging

AHEAD = [
    *("Sec-Purpose: prefetch", "Sec-Purpose: prefetch;prerender", "Sec-Purpose: PREFETCH"),
    *(
        "Sec-Purpose: prefetch;anonymous-client-ip",
        "Sec-Purpose: prerender",
        "Sec-Purpose:prefetch",
    ),
    *("Sec-Purpose: x, prefetch", "Sec-Purpose: prefetch, x", "Sec-Purpose: x;y=prefetch"),
    *("Purpose: prefetch", "Purpose: preview", "Purpose: Prefetch", "purpose: prefetch"),
    *("X-Moz: prefetch", "X-moz: Prefetch", "X-Purpose: preview"),
]

NO_DOCUMENTS = [
    *("image", "iframe", "frame", "embed", "object", "script", "style", "empty", "font", "video"),
    *("audio", "track", "worker", "serviceworker", "manifest", "report", "fencedframe", "Document"),
]

SAID_BY_NO_VISITOR = {
    "a prefetch": ["Sec-Purpose: prefetch"],
    "a prerender": ["Sec-Purpose: prefetch;prerender", "Sec-Fetch-Dest: document"],
    "a picture": ["Sec-Fetch-Dest: image"],
    "early data": ["Early-Data: 1"],
    "two tokens": ["X-KAT: kat_"],
}

OTHER_METHODS = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get", "Get", "GETS"]


@pytest.mark.parametrize("header", ["Sec-Fetch-Dest: document", "Sec-Purpose: x", "X-Moz: x"])
def test_a_visit_is_one(watched: Stage, header: str) -> None:
    """What a browser says of a visit does not keep the token from being judged."""
    watched.agent.script = acknowledging(OPENS)
    assert watched.ask(header, target=f"/?{LINK}").status == 303
    assert [args[b"via"] for args in watched.asked()] == [b"query"]


@pytest.mark.parametrize("header", AHEAD)
def test_what_is_fetched_ahead_consumes_nothing(watched: Stage, header: str) -> None:
    """However a browser says it: 403, whatever the agent would say, and nobody is asked."""
    watched.agent.script = acknowledging(OPENS)
    assert watched.ask(header, target=f"/?{LINK}").status == 403
    assert watched.ask(header, "Sec-Fetch-Dest: document", target=f"/?{LINK}").status == 403
    assert (watched.asked(), watched.application.received) == ([], [])


def test_one_word_among_two_headers_is_enough(watched: Stage) -> None:
    """A harmless Sec-Purpose does not hide another one, before or behind it."""
    ahead, harmless = "Sec-Purpose: prefetch", "Sec-Purpose: x"
    for headers in ([ahead, harmless], [harmless, ahead]):
        assert watched.ask(*headers, target=f"/?{LINK}").status == 403
    assert watched.asked() == []


@pytest.mark.parametrize("dest", NO_DOCUMENTS)
def test_what_a_page_embeds_consumes_nothing(watched: Stage, dest: str) -> None:
    """A picture, a frame or a script with a link for its address is a 403, and nobody is asked."""
    watched.agent.script = acknowledging(OPENS)
    assert watched.ask(f"Sec-Fetch-Dest: {dest}", target=f"/?{LINK}").status == 403
    assert (watched.asked(), watched.application.received) == ([], [])


def test_of_two_destinations_none_is_a_visit(watched: Stage) -> None:
    """A picture is none, whatever else the request claims to be."""
    picture, document = "Sec-Fetch-Dest: image", "Sec-Fetch-Dest: document"
    for headers in ([picture, document], [document, picture], ["Sec-Fetch-Dest: image, document"]):
        assert watched.ask(*headers, target=f"/?{LINK}").status == 403
    assert watched.asked() == []


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_another_method_consumes_no_link(watched: Stage, method: str) -> None:
    """A link is for GET alone, written so: 403, with a session or without, and nobody is asked."""
    watched.agent.script = acknowledging(OPENS)
    for headers in ([], [f"Cookie: {COOKIE}"]):
        answer = watched.ask(*headers, NO_BODY, method=method, target=f"/?{LINK}")
        assert answer.status == 403
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_who_looks_around_is_let_in_by_session(watched: Stage, method: str) -> None:
    """HEAD and OPTIONS go on with the session; of the link's token neither side hears."""
    watched.agent.script = acknowledging(STANDS)
    answer = watched.ask(f"Cookie: {COOKIE}", method=method, target=f"/page?{LINK}&a=1")
    assert answer.status == 200
    (args,) = watched.asked()
    assert (args[b"token"], args[b"via"]) == (None, None)
    assert args[b"session"] is not None
    assert [one.target for one in watched.application.received] == ["/page?a=1"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
@pytest.mark.parametrize("target", ["/page", f"/page?{LINK}"])
def test_who_looks_around_without_a_session_is_refused(
    watched: Stage, method: str, target: str
) -> None:
    """Without a session they reach nobody, and the token was not shown to the agent."""
    watched.agent.script = acknowledging(MISSING)
    assert watched.ask(method=method, target=target).status == 403
    assert [args[b"token"] for args in watched.asked()] == [None]
    assert watched.application.received == []


@pytest.mark.parametrize("header", ["Early-Data: 1", "Early-Data: 0", "early-data:1"])
@pytest.mark.parametrize(
    "how", [(f"/?{LINK}",), ("/", f"X-KAT: {LINK[4:]}"), ("/", f"Authorization: KAT {LINK[4:]}")]
)
def test_a_token_in_early_data_is_too_early(
    watched: Stage, header: str, how: tuple[str, ...]
) -> None:
    """RFC 8470: 425, so that the browser asks again, and nobody hears of the token."""
    target, *headers = how
    watched.agent.script = acknowledging(OPENS)
    assert watched.ask(header, *headers, target=target).status == 425
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_session_in_early_data_goes_on_with_its_mark(watched: Stage, method: str) -> None:
    """What consumes no token passes, and the application can tell that it was early."""
    watched.agent.script = acknowledging(STANDS)
    assert watched.ask("Early-Data: 1", f"Cookie: {COOKIE}", method=method).status == 200
    assert [one.header("Early-Data") for one in watched.application.received] == [["1"]]


def test_the_token_is_whole_until_a_person_comes(house: Gate) -> None:
    """The real agent: none of these consumes it; the visit does, and what comes after is too late.

    A session that it opened excuses a second click on the same link, in its own browser alone.
    """
    token = house.issue()
    target, before = f"/page?kat={token}", house.value(token)
    for headers in SAID_BY_NO_VISITOR.values():
        assert house.ask(*headers, target=target).status in {403, 425}
    for method in ("HEAD", "OPTIONS", "POST"):
        assert house.ask(NO_BODY, method=method, target=target).status == 403
    assert house.ask(target=f"/page;kat={token}").status == 403
    assert house.value(token) == before
    cookie = cookie_of(house, token)
    assert house.is_consumed(token)
    assert house.ask(target=target).status == 403
    answer = house.ask(f"Cookie: {cookie}", target=target)
    assert (answer.status, answer.header("Location")) == (303, "/./page")
    assert answer.header("Set-Cookie") is None
    assert house.application.take() == []
    assert house.ask(f"Cookie: {cookie}", method="HEAD", target=target).status == 200


@pytest.mark.parametrize(
    "path", ["/docs/..;/admin", "/docs/../admin", "/docs/%2e%2e/admin", "/docsx"]
)
def test_a_session_opens_its_own_path_alone(house: Gate, path: str) -> None:
    """The agent judges the path that the application gets: no server reads it as another one."""
    cookie = cookie_of(house, house.issue(path="/docs"), target="/docs")
    assert house.ask(f"Cookie: {cookie}", target="/docs/x").status == 200
    house.application.take()
    assert house.ask(f"Cookie: {cookie}", target=path).status == 403
    token = house.issue(path="/docs")
    assert house.ask(target=f"{path}?kat={token}").status == 403
    assert not house.is_consumed(token)
    assert house.application.take() == []
