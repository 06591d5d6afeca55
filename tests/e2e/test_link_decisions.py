"""The decision table for a browser: what comes of a link, for each thing that the agent may say."""

import json

import pytest

from tests.e2e.scene import Stage, until
from tests.e2e.visiting import (
    COOKIE,
    LINK,
    MISSING,
    NO_BODY,
    OPENS,
    OPENS_ONCE,
    PROGRAM,
    SET_COOKIE,
    STANDS,
)
from tests.support.stub_agent import (
    GARBAGE,
    Script,
    acknowledging,
    actions,
    allow,
    closing,
    refuse,
    saying,
)
from tokens.outcome import Outcome

REASONS = {
    verdict: [outcome.reason for outcome in Outcome if outcome.verdict == verdict]
    for verdict in (b"missing", b"denied", b"broken")
}
"""All that the real agent can say."""

SENDING = ["POST", "PUT", "PATCH", "DELETE"]

NO_ANSWERS: dict[str, Script] = {
    "garbage": saying(GARBAGE),
    "a closed connection": closing,
    "no actions": acknowledging(b""),
    "a session for another ACL": acknowledging(
        actions(**{"class": b"allow"}, acl=b"other", session=b"x" * 43, allow=True)
    ),
    "a session and no yes": acknowledging(
        actions(**{"class": b"allow"}, acl=b"demo", session=b"x" * 43)
    ),
    "no session for nobody": acknowledging(refuse(b"missing", b"missing", acl=b"other")),
    "an unknown class": acknowledging(refuse(b"perhaps", b"perhaps")),
}


def test_a_link_opens_a_session(watched: Stage) -> None:
    """Its token is consumed by query; the answer is the same page without it, and the cookie."""
    watched.agent.script = acknowledging(OPENS)
    answer = watched.ask(target=f"/page?{LINK}")
    assert (answer.status, answer.body) == (303, "")
    assert answer.header("Location") == "/./page"
    assert answer.header("Set-Cookie") == SET_COOKIE
    (args,) = watched.asked()
    assert (args[b"via"], args[b"path"], args[b"session"]) == (b"query", b"/page", None)
    assert watched.application.received == []


def test_a_session_lets_its_visitor_in(watched: Stage) -> None:
    """The cookie's text reaches the agent, the visitor's name the application; no new cookie."""
    watched.agent.script = acknowledging(STANDS)
    answer = watched.ask(f"Cookie: {COOKIE}", target="/page")
    assert (answer.status, answer.body) == (200, "the application\n")
    assert answer.header("Set-Cookie") is None
    (args,) = watched.asked()
    assert args[b"session"] == COOKIE.partition("=")[2].encode()
    assert (args[b"token"], args[b"via"]) == (None, None)
    (received,) = watched.application.received
    assert received.header("X-KAT-User") == ["user1"]


def test_a_link_that_a_session_excuses_leaves_the_query_too(watched: Stage) -> None:
    """A token that is refused where the session stands: 303 to the clean page, without a cookie."""
    watched.agent.script = acknowledging(STANDS)
    answer = watched.ask(f"Cookie: {COOKIE}", target=f"/page?a=1&{LINK}")
    assert (answer.status, answer.header("Location")) == (303, "/./page?a=1")
    assert answer.header("Set-Cookie") is None
    (args,) = watched.asked()
    assert None not in (args[b"token"], args[b"session"])
    assert watched.application.received == []


def test_a_link_for_one_request_goes_through(watched: Stage) -> None:
    """Where the token opens no session (mode strict) the page itself is the answer."""
    watched.agent.script = acknowledging(OPENS_ONCE)
    answer = watched.ask(target=f"/page?a=1&{LINK}")
    assert (answer.status, answer.header("Set-Cookie")) == (200, None)
    assert [one.target for one in watched.application.received] == ["/page?a=1"]


@pytest.mark.parametrize(
    "session",
    [b"", b"x" * 42, b"x" * 44, b"x" * 42 + b";", b"x" * 43 + b"\r\nX: y", b"x" * 43 + b"."],
)
def test_what_is_no_session_becomes_no_cookie(watched: Stage, session: bytes) -> None:
    """Whatever an agent says, it cannot end the cookie's value, nor the header's line."""
    yes = {"class": b"allow", "acl": b"demo", "reason": b"ok", "session": session}
    watched.agent.script = acknowledging(actions(**yes, allow=True))
    answer = watched.ask(target=f"/page?{LINK}")
    assert answer.header("Set-Cookie") is None
    assert answer.header("X") is None


@pytest.mark.parametrize("reason", REASONS[b"missing"])
@pytest.mark.parametrize("target", ["/page", f"/page?{LINK}"])
def test_people_without_a_session_get_the_page(watched: Stage, target: str, reason: bytes) -> None:
    """Class missing, why ever: 403, HTML, no cookie, and the application hears nothing."""
    watched.agent.script = acknowledging(refuse(b"missing", reason))
    answer = watched.ask(target=target)
    assert (answer.status, answer.header("Content-Type")) == (403, "text/html; charset=utf-8")
    assert answer.header("Set-Cookie") is None
    assert watched.application.received == []


@pytest.mark.parametrize("method", ["GET", *SENDING])
def test_programs_without_a_session_get_json(watched: Stage, method: str) -> None:
    """Class missing, for who accepts JSON: 401, JSON, and the scheme that would open."""
    watched.agent.script = acknowledging(MISSING)
    answer = watched.ask(PROGRAM, NO_BODY, method=method)
    assert (answer.status, answer.header("Content-Type")) == (401, "application/json")
    assert answer.header("WWW-Authenticate") == "KAT"
    assert json.loads(answer.body)["error"]
    assert watched.application.received == []


@pytest.mark.parametrize("method", SENDING)
def test_who_sends_without_a_session_is_told_that_it_is_lost(watched: Stage, method: str) -> None:
    """Class missing, for a person's POST and the like: a 401 page, and nothing arrived."""
    watched.agent.script = acknowledging(MISSING)
    answer = watched.ask(NO_BODY, method=method)
    page = watched.ask().body
    assert (answer.status, answer.header("Content-Type")) == (401, "text/html; charset=utf-8")
    assert answer.header("WWW-Authenticate") == "KAT"
    assert answer.body != page
    assert watched.application.received == []


def test_all_denied_links_look_alike(watched: Stage) -> None:
    """Whatever is wrong with a token or a session, the answer is one and the same 403."""
    answers = set()
    for reason in REASONS[b"denied"]:
        watched.agent.script = acknowledging(refuse(b"denied", reason))
        for request in ({"target": f"/?{LINK}"}, {"target": "/"}):
            answer = watched.ask(f"Cookie: {COOKIE}", **request)
            answers.add((answer.status, answer.body, *answer.headers))
    ((status, *_),) = answers
    assert status == 403
    assert len(watched.asked()) == 2 * len(REASONS[b"denied"])
    assert watched.application.received == []


@pytest.mark.parametrize("target", ["/", f"/?{LINK}"])
@pytest.mark.parametrize("reason", REASONS[b"broken"])
def test_an_agent_in_trouble_is_a_503(watched: Stage, target: str, reason: bytes) -> None:
    """Class broken: 503 with the agent's own Retry-After, no cookie, nothing at the application."""
    trouble = actions(**{"class": b"broken"}, reason=reason, acl=b"demo", retry_after=3)
    watched.agent.script = acknowledging(trouble + actions(allow=False))
    answer = watched.ask(f"Cookie: {COOKIE}", target=target)
    assert (answer.status, answer.header("Retry-After")) == (503, "3")
    assert answer.header("Set-Cookie") is None
    assert watched.application.received == []


@pytest.mark.parametrize("target", ["/", f"/?{LINK}"])
@pytest.mark.parametrize("case", NO_ANSWERS)
def test_no_answer_is_a_503(watched: Stage, target: str, case: str) -> None:
    """What is not a complete answer for this gate opens nothing and sets no cookie."""
    watched.agent.script = NO_ANSWERS[case]
    answer = watched.ask(f"Cookie: {COOKIE}", target=target)
    assert (answer.status, answer.header("Retry-After")) == (503, "1")
    assert answer.header("Set-Cookie") is None
    assert watched.application.received == []
    watched.agent.script = acknowledging(allow())
    until(lambda: watched.ask().status == 200)
