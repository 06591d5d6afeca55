"""The portal, served, on a real Redis."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
import redis

from haproxy.demo import portal
from haproxy.demo.people import Application
from haproxy.demo.serving import serving
from tests.support.holdings import Holdings, sid_of
from tests.support.redis import RedisServer
from tests.support.webclient import Answer, WebClient
from tokens.record import Keys, read_record
from tokens.token import digest

WIKI, PAY = "https://wiki.localhost:8443/", "https://pay.localhost:8443/"
URL = "https://portal.localhost:8443/"
APPLICATIONS = (
    Application("wiki", "Wiki", WIKI, frozenset({"staff"})),
    Application("pay", "Pay & Co", PAY, frozenset({"admin"})),
)
NONCE = "0123456789abcdef" * 4
PREFIX = "other:"


@pytest.fixture(scope="module")
def address(shared_redis: RedisServer) -> Iterator[str]:
    """Serve one portal for all tests: each has browsers of its own, and an empty store."""
    app = portal.create(
        url=URL,
        applications=APPLICATIONS,
        store_url=f"unix://{shared_redis.socket}",
        prefix=PREFIX,
    )
    with serving(app) as served:
        yield served.address


@pytest.fixture
def browser(address: str, redis_server: RedisServer) -> WebClient:
    assert redis_server
    return WebClient(address)


@pytest.fixture
def held(client: redis.Redis) -> Holdings:
    return Holdings(client, PREFIX)


@pytest.fixture
def enter(address: str) -> Callable[[str], WebClient]:
    """Give what logs a new browser in."""

    def entered(user: str) -> WebClient:
        browser = WebClient(address)
        assert browser.post("/login", user=user).location == "/"
        return browser

    return entered


def tiles(answer: Answer) -> dict[str, str]:
    """Return the applications that a page offers, and where they lead."""
    found = re.findall(r'name="application" value="(\w+)" data-return="([^"]*)"', answer.body)
    return dict(found)


def token_in(answer: Answer) -> str:
    (token,) = re.findall(r"kat_[0-9A-Za-z]{38}", answer.location)
    assert isinstance(token, str)
    return token


# --- who is it, and what may he open ------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "offered"),
    [("alice", {"wiki": "/"}), ("bob", {"wiki": "/", "pay": "/"}), ("carol", {})],
)
def test_everybody_sees_the_applications_of_his_groups(
    enter: Callable[[str], WebClient], user: str, offered: dict[str, str]
) -> None:
    """The tiles are those of a user's groups, and no more; without any the page says so."""
    answer = enter(user).get("/")
    assert (answer.page, tiles(answer)) == ("applications", offered)
    assert ("data-empty" in answer.body) == (not offered)


def test_a_stranger_is_asked_who_it_is(browser: WebClient) -> None:
    """Without a session of the portal there is a page to log in, and nothing to open."""
    answer = browser.get("/")
    assert (answer.status, answer.page, tiles(answer)) == (200, "login", {})


def test_nobody_else_logs_in(browser: WebClient) -> None:
    """A name that is not of the demo's users gets no session."""
    for form in ({"user": "mallory"}, {"user": ""}, {}):
        answer = browser.post("/login", **form)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_the_cookie_is_for_this_host_alone(enter: Callable[[str], WebClient]) -> None:
    """It is __Host-, Secure, HttpOnly and SameSite=Lax, and each login has a new one."""
    browser = enter("alice")
    first = browser.cookie
    cookie = browser.post("/login", user="alice").headers["set-cookie"]
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Host-portal=")
    assert {"Secure", "HttpOnly", "SameSite=lax", "Path=/"} <= set(attributes)
    assert browser.cookie != first
    browser.cookie = first
    assert browser.get("/").page == "login", "the session before it has ended"


def test_whoever_logs_out_is_out(enter: Callable[[str], WebClient]) -> None:
    """After a logout the old cookie opens nothing, and another browser's still does."""
    browser, other = enter("alice"), enter("alice")
    cookie = browser.cookie
    assert browser.post("/logout").location == "/"
    assert browser.cookie == ""
    browser.cookie = cookie
    assert browser.post("/open", application="wiki").status == 403
    assert other.get("/").page == "applications"


# --- a token ------------------------------------------------------------------------------------


def test_a_click_is_a_token_in_a_redirect(
    enter: Callable[[str], WebClient], client: redis.Redis
) -> None:
    """It is for this user, his groups and this ACL, for a minute; and the stream tells so."""
    answer = enter("bob").post("/open", application="wiki")
    token = token_in(answer)
    assert (answer.status, answer.location) == (303, f"{WIKI}?kat={token}")
    raw = client.get(Keys(PREFIX).token(digest(token.encode())))
    assert isinstance(raw, bytes)
    record = read_record(raw)
    assert (record.sub, record.groups, record.acl) == ("bob", ("staff", "admin"), ("wiki",))
    assert (record.ttl_s, record.nonce) == (portal.TOKEN_TTL_S, None)
    ((_, entry),) = client.xrange(Keys(PREFIX).audit)
    assert json.loads(entry[b"e"])[0]["event"] == "issued"


@pytest.mark.parametrize(
    ("user", "application"), [("alice", "pay"), ("carol", "wiki"), ("bob", "none"), ("bob", "")]
)
def test_what_is_not_his_gets_no_token(
    enter: Callable[[str], WebClient], client: redis.Redis, user: str, application: str
) -> None:
    """The form is only a wish: who names another application gets 403, and nothing is issued."""
    answer = enter(user).post("/open", application=application, **{"return": PAY})
    assert answer.status == 403
    assert client.keys() == []


def test_a_stranger_gets_no_token(browser: WebClient, client: redis.Redis) -> None:
    """Without a session of the portal nothing is issued, and no guess at a cookie changes that."""
    for cookie in ("", "__Host-portal=", "__Host-portal=x"):
        browser.cookie = cookie
        assert browser.post("/open", application="wiki").status == 403
    assert client.keys() == []


def test_the_way_back_outlives_the_login(browser: WebClient, client: redis.Redis) -> None:
    """From a gate's page through the login to the very page that was asked for, nonce and all."""
    asked = {"return": f"{WIKI}notes?a=1&b=%26&kat=kat_x", "nonce": NONCE}
    answer = browser.get(f"/?{urlencode(asked)}")
    assert answer.page == "login"
    assert f'name="nonce" value="{NONCE}"' in answer.body
    answer = browser.get(browser.post("/login", user="alice", **asked).location)
    assert tiles(answer) == {"wiki": "/notes?a=1&amp;b=%26"}
    assert f'name="nonce" value="{NONCE}"' in answer.body
    answer = browser.post("/open", application="wiki", **asked)
    token = token_in(answer)
    assert answer.location == f"{WIKI}notes?a=1&b=%26&kat={token}"
    raw = client.get(Keys(PREFIX).token(digest(token.encode())))
    assert isinstance(raw, bytes)
    assert read_record(raw).nonce == NONCE


def test_a_nonce_is_for_the_gate_that_gave_it(
    enter: Callable[[str], WebClient], client: redis.Redis
) -> None:
    """Who came from one application and opens another gets a token without a nonce."""
    answer = enter("bob").post("/open", application="pay", nonce=NONCE, **{"return": WIKI})
    raw = client.get(Keys(PREFIX).token(digest(token_in(answer).encode())))
    assert isinstance(raw, bytes)
    assert read_record(raw).nonce is None
    assert answer.location.startswith(PAY)


@pytest.mark.parametrize(
    "back",
    ["https://evil.example/", "//evil.example/", f"{WIKI}/evil.example", "javascript:alert(1)"],
)
def test_a_way_elsewhere_is_ignored(enter: Callable[[str], WebClient], back: str) -> None:
    """It is in no page, in no redirect of the login, and the token goes to the application."""
    browser = enter("alice")
    assert back not in browser.get(f"/?return={back}").body
    assert browser.post("/login", user="alice", **{"return": back}).location == "/"
    answer = browser.post("/open", application="wiki", **{"return": back})
    assert answer.location == f"{WIKI}?kat={token_in(answer)}"


def test_what_stands_in_a_way_is_text(enter: Callable[[str], WebClient]) -> None:
    """Markup in a return URL is shown, and is no markup."""
    answer = enter("alice").get(f"/?return={WIKI}%3C%22%3E%3Cscript%3E")
    assert "<script" not in answer.body
    assert "&lt;script&gt;" in answer.body


def test_a_store_that_is_away_is_said_so(start_redis: Callable[..., RedisServer]) -> None:
    """No token, no redirect and no secret: a page, and 503; for admins, too."""
    server = start_redis()
    app = portal.create(
        url=URL, applications=APPLICATIONS, store_url=f"unix://{server.socket}", prefix=PREFIX
    )
    with serving(app) as served:
        browser = WebClient(served.address)
        browser.post("/login", user="bob")
        server.process.kill()
        server.process.wait(10)
        for answer in (browser.post("/open", application="wiki"), browser.get("/admin")):
            assert (answer.status, answer.page) == (503, "message")
            assert "location" not in answer.headers


# --- only from here ----------------------------------------------------------------------------

POSTS = ("/login", "/open", "/logout", "/logout-everywhere", "/admin/revoke")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site", "Origin": URL[:-1]},
        {"Sec-Fetch-Site": "same-site", "Origin": URL[:-1]},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": URL},
        {"Origin": "https://portal.localhost"},
        {"Origin": "http://portal.localhost:8443"},
        {"Referer": URL},
    ],
    ids=str,
)
def test_no_other_site_acts(
    enter: Callable[[str], WebClient], client: redis.Redis, path: str, headers: dict[str, str]
) -> None:
    """A POST that is not from the portal's own pages changes nothing."""
    browser = enter("bob")
    cookie = browser.cookie
    answer = browser.post(path, headers, user="alice", application="wiki")
    assert answer.status == 403
    assert browser.cookie == cookie
    assert browser.get("/").page == "applications"
    assert client.keys() == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "GET", "HEAD"])
@pytest.mark.parametrize("path", POSTS)
def test_links_change_nothing(
    enter: Callable[[str], WebClient], client: redis.Redis, path: str, method: str
) -> None:
    """What changes something is done by POST alone."""
    browser = enter("bob")
    answer = browser.ask(method, f"{path}?user=bob&application=wiki")
    assert answer.status in {403, 405}
    assert browser.get("/").page == "applications"
    assert client.keys() == []


def test_an_older_browser_has_an_origin(browser: WebClient) -> None:
    """Without Sec-Fetch-Site the portal's own origin is as good."""
    assert browser.post("/login", {"Origin": URL[:-1]}, user="alice").status == 303


def test_a_form_has_a_size(enter: Callable[[str], WebClient]) -> None:
    """A body that no form of ours has is refused, not kept."""
    assert enter("alice").post("/open", application="x" * 100_000).status == 413


@pytest.mark.parametrize("path", ["/", "/admin", "/style.css", "/nowhere"])
def test_every_answer_is_careful(enter: Callable[[str], WebClient], path: str) -> None:
    """Nothing is kept, framed, sniffed, or told to other sites; forms lead to known origins."""
    headers = enter("bob").get(path).headers
    policy = headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert policy.endswith(f"form-action 'self' {WIKI[:-1]} {PAY[:-1]}")
    assert "unsafe" not in policy


# --- admins ------------------------------------------------------------------------------------


def test_only_admins_oversee(
    enter: Callable[[str], WebClient], browser: WebClient, held: Holdings
) -> None:
    """Others get 403 and revoke nothing; a stranger is asked who it is."""
    session = held.session("bob")
    for user in ("alice", "carol"):
        other = enter(user)
        assert other.get("/admin").status == 403
        assert other.post("/admin/revoke", user="bob").status == 403
        assert other.post("/admin/revoke", sid=sid_of(session)).status == 403
        assert "/admin" not in other.get("/").body
    assert browser.get("/admin").location == "/"
    assert browser.post("/admin/revoke", user="bob").status == 403
    assert held.has_session(session)


def test_an_admin_sees_who_is_in(enter: Callable[[str], WebClient], held: Holdings) -> None:
    """Each session with user, ACL, address and kid; but no name that an agent would take."""
    session = held.session("alice")
    answer = enter("bob").get("/admin")
    assert f'data-sid="{sid_of(session)}" data-user="alice" data-acl="wiki"' in answer.body
    assert "192.0.2.7" in answer.body
    assert "0123456789ab" in answer.body
    assert digest(session.encode()).decode() not in answer.body
    assert session not in answer.body


def test_an_admin_sees_what_happened(enter: Callable[[str], WebClient]) -> None:
    """The latest events come first, each with who and what."""
    bob = enter("bob")
    enter("alice").post("/open", application="wiki")
    bob.post("/admin/revoke", user="carol")
    answer = bob.get("/admin")
    assert re.findall(r'data-event="(\w+)"', answer.body) == ["revoked", "issued"]
    assert "carol is revoked, 0 sessions ended." in answer.body
    assert "carol is revoked" not in bob.get("/admin").body, "told twice"


def test_an_admin_ends_one_session(enter: Callable[[str], WebClient], held: Holdings) -> None:
    """By its short name, and no other session goes with it."""
    one, other = held.session("alice"), held.session("alice")
    bob = enter("bob")
    assert bob.post("/admin/revoke", sid=sid_of(one)).location == "/admin"
    assert [held.has_session(session) for session in (one, other)] == [False, True]
    assert "1 session ended" in bob.get("/admin").body


def test_an_admin_ends_all_of_a_user(enter: Callable[[str], WebClient], held: Holdings) -> None:
    """Sessions at the gates, and at the portal: the next click would open everything again."""
    sessions = [held.session("alice"), held.session("alice"), held.session("bob")]
    alice, bob = enter("alice"), enter("bob")
    bob.post("/admin/revoke", user="alice")
    assert [held.has_session(session) for session in sessions] == [False, False, True]
    assert alice.get("/").page == "login"
    assert bob.get("/").page == "applications"
    (told,) = [one for one in held.events() if one["event"] == "revoked"]
    assert (told["user"], told["by"]) == ("alice", "bob")


@pytest.mark.parametrize("form", [{}, {"user": ""}, {"user": "a\nb"}, {"sid": ""}, {"sid": "*"}])
def test_what_nobody_is_called_is_refused(
    enter: Callable[[str], WebClient], held: Holdings, form: dict[str, str]
) -> None:
    """Not even an admin revokes what is no name: 400, and nothing has changed."""
    session = held.session("alice")
    assert enter("bob").post("/admin/revoke", **form).status == 400
    assert held.has_session(session)
    assert held.events() == []


def test_foreign_text_in_the_audit_is_text(
    enter: Callable[[str], WebClient], client: redis.Redis
) -> None:
    """Whatever somebody wrote to the stream, it is no markup on the admin's page."""
    told = json.dumps([{"event": "<script>", "user": "<img>", "acl": ["x"], "n": 1}])
    client.xadd(Keys(PREFIX).audit, {b"e": told})
    client.xadd(Keys(PREFIX).audit, {b"f": b"none of ours"})
    body = enter("bob").get("/admin").body
    assert "&lt;script&gt;" in body
    assert not re.search("<script|<img", body)


def test_a_user_ends_whatever_he_has(enter: Callable[[str], WebClient], held: Holdings) -> None:
    """Log out everywhere: at the gates, here and in his other browsers; others stay."""
    sessions = [held.session("alice"), held.session("bob")]
    alice, elsewhere, bob = enter("alice"), enter("alice"), enter("bob")
    assert alice.post("/logout-everywhere").location == "/"
    assert [held.has_session(session) for session in sessions] == [False, True]
    pages = [browser.get("/").page for browser in (alice, elsewhere, bob)]
    assert pages == ["login", "login", "applications"]


def test_nothing_is_logged(
    enter: Callable[[str], WebClient],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A whole visit leaves no line on stdout or stderr, also where all logging goes there."""
    # Not caplog's own records: it listens to loggers that tell nobody else.
    everything = logging.StreamHandler()
    logging.getLogger().addHandler(everything)
    try:
        with caplog.at_level("INFO"):
            alice = enter("alice")
            alice.get(f"/?return={WIKI}?kat=kat_{'x' * 38}")
            alice.post("/open", application="wiki")
    finally:
        logging.getLogger().removeHandler(everything)
    assert capfd.readouterr() == ("", "")
