"""Logging out: whose request ends a session, and when the cookie goes."""

from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN, Gate, Stage, staged, until
from tests.e2e.visiting import (
    COOKIE,
    LINK,
    NO_BODY,
    OPENS,
    OURS,
    SESSION,
    STANDS,
    cookie_of,
    post,
)
from tests.support.stub_agent import GARBAGE, Script, acknowledging, allow, closing, refuse, saying

LOGOUT = "/.kat/logout"
WITH_SESSION = f"Cookie: a=b; {COOKIE}"
GONE = "__Host-kat-demo=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
LOGGED_OUT = acknowledging(refuse(b"missing", b"logged_out"))

NO_WORD_OF_IT: dict[str, Script] = {
    "overloaded": acknowledging(refuse(b"broken", b"overloaded")),
    "denied": acknowledging(refuse(b"denied", b"malformed")),
    "a yes": acknowledging(allow()),
    "a session that stands": acknowledging(STANDS),
    "a new session": acknowledging(OPENS),
    "another ACL's": acknowledging(refuse(b"missing", b"logged_out", acl=b"other")),
    "no actions": acknowledging(b""),
    "garbage": saying(GARBAGE),
    "a closed connection": closing,
}

FROM_ELSEWHERE = [
    *(["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"], ["Sec-Fetch-Site: none"], []),
    *(["Origin: null"], ["Origin: http://evil.example"], ["Referer: http://localhost/"]),
    ["Sec-Fetch-Site: cross-site", "Origin: http://localhost"],
    ["Sec-Fetch-Site: cross-site, same-origin"],
    ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin"],
    ["Origin: http://evil.example", "Origin: http://localhost"],
]

OTHER_PATHS = [
    *("/.kat/logout/", "/.kat/Logout", "/.kat/log%6fut", "//.kat/logout", "/.kat//logout", "/.kat"),
    *("/.kat/logout;x", "/x/../.kat/logout", "/.kat/logout%00", "/.kat/./logout", "/.kat/logoutx"),
]


@pytest.mark.parametrize("who", [OURS, "Origin: http://localhost"])
@pytest.mark.parametrize("target", [LOGOUT, f"{LOGOUT}?a=1", f"http://localhost{LOGOUT}"])
def test_our_own_page_logs_out(watched: Stage, who: str, target: str) -> None:
    """The agent is told to end the session; then comes the page, and the cookie goes."""
    watched.agent.script = LOGGED_OUT
    answer = post(watched.haproxy, target, who, WITH_SESSION, body="a=b")
    assert (answer.status, answer.header("Content-Type")) == (200, "text/html; charset=utf-8")
    assert answer.header("Set-Cookie") == GONE
    assert "logged out" in answer.body
    (notify,) = watched.agent.notifies
    (message,) = notify.messages
    assert message.name == b"logout"
    assert (message.args[b"acl"], message.args[b"session"]) == (b"demo", SESSION.encode())
    assert watched.application.received == []


def test_who_has_no_session_is_logged_out_too(watched: Stage) -> None:
    """A second click on the same button shows the same page."""
    watched.agent.script = LOGGED_OUT
    assert post(watched.haproxy, LOGOUT, OURS).status == 200
    assert [args[b"session"] for args in watched.asked()] == [None]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE)
def test_no_other_site_logs_anybody_out(watched: Stage, headers: list[str]) -> None:
    """403, the cookie stays, and the agent does not hear of it."""
    watched.agent.script = LOGGED_OUT
    answer = post(watched.haproxy, LOGOUT, WITH_SESSION, *headers)
    assert (answer.status, answer.header("Set-Cookie")) == (403, None)
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "post", "Get"])
def test_only_a_post_logs_out(watched: Stage, method: str) -> None:
    """Any other method is a 405, and nobody is asked."""
    watched.agent.script = LOGGED_OUT
    answer = watched.ask(OURS, WITH_SESSION, NO_BODY, method=method, target=LOGOUT)
    assert (answer.status, answer.header("Allow")) == (405, "POST")
    assert answer.header("Set-Cookie") is None
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", [LOGOUT, f"{LOGOUT}?a=1", f"{LOGOUT}?{LINK}"])
def test_a_link_ends_no_session(watched: Stage, method: str, target: str) -> None:
    """It would be followed by whoever fetches ahead: it leads to the front page, unasked."""
    watched.agent.script = LOGGED_OUT
    answer = watched.ask(OURS, WITH_SESSION, method=method, target=target)
    assert (answer.status, answer.header("Location")) == (303, "/")
    assert answer.header("Set-Cookie") is None
    assert (watched.asked(), watched.application.received) == ([], [])


@pytest.mark.parametrize("target", OTHER_PATHS)
def test_another_path_is_the_applications_own(watched: Stage, target: str) -> None:
    """What only resembles it is an ordinary request: judged, and let through by a yes alone."""
    watched.agent.script = acknowledging(STANDS)
    assert post(watched.haproxy, target, OURS, WITH_SESSION).status == 200
    assert [notify.messages[0].name for notify in watched.agent.notifies] == [b"check-http"]
    watched.agent.script = LOGGED_OUT
    assert post(watched.haproxy, target, OURS, WITH_SESSION).status == 401
    assert len(watched.application.received) == 1


@pytest.mark.parametrize("case", NO_WORD_OF_IT)
def test_the_cookie_goes_only_if_the_session_has(watched: Stage, case: str) -> None:
    """Whatever else the agent says: 503, the cookie stays, the application hears nothing."""
    watched.agent.script = NO_WORD_OF_IT[case]
    answer = post(watched.haproxy, LOGOUT, OURS, WITH_SESSION)
    assert (answer.status, answer.header("Set-Cookie")) == (503, None)
    assert answer.header("Retry-After") == "1"
    assert watched.application.received == []
    watched.agent.script = acknowledging(STANDS)
    until(lambda: watched.ask().status == 200)


def test_one_may_log_out_while_the_application_is_down(
    haproxy_binary: Path, tmp_path: Path
) -> None:
    """Nobody is let in then, and everybody out."""
    with staged(haproxy_binary, tmp_path, settings={"KAT_APP": "127.0.0.1:1"}) as stage:
        until(lambda: stage.ask().header("Retry-After") == "5")
        stage.renewed().agent.script = LOGGED_OUT
        assert post(stage.haproxy, LOGOUT, OURS, WITH_SESSION).header("Set-Cookie") == GONE
        assert [args[b"session"] for args in stage.asked()] == [SESSION.encode()]


def test_a_token_beside_it_is_not_judged(watched: Stage) -> None:
    """Logging out consumes nothing, and opens nothing."""
    watched.agent.script = LOGGED_OUT
    assert post(watched.haproxy, LOGOUT, OURS, f"X-KAT: {TOKEN}").status == 200
    assert b"token" not in watched.asked()[0]
    assert post(watched.haproxy, f"{LOGOUT}?{LINK}", OURS).status == 403
    assert len(watched.asked()) == 1


def test_the_session_has_really_ended(house: Gate) -> None:
    """The real agent: who kept the cookie is refused afterwards, and another session is not."""
    ours, theirs = (cookie_of(house, house.issue()) for _ in range(2))
    assert house.ask(f"Cookie: {ours}").status == 200
    assert post(house.haproxy, LOGOUT, f"Cookie: {ours}").status == 403
    assert house.ask(f"Cookie: {ours}").status == 200
    answer = post(house.haproxy, LOGOUT, OURS, f"Cookie: {ours}")
    assert (answer.status, answer.header("Set-Cookie")) == (200, GONE)
    assert house.ask(f"Cookie: {ours}").status == 403
    assert house.ask(f"Cookie: {theirs}").status == 200
    assert post(house.haproxy, LOGOUT, OURS, f"Cookie: {ours}").status == 200
