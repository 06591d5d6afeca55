"""What a token opens besides one request: sessions and addresses, and how they end.

The browser's side, cookies and redirects, is played by visitors.cfg.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path

import pytest

from tests.e2e.scene import PATIENCE, Agent, Gate, Visit, until
from tests.support.application import Application
from tests.support.haproxy import complaints, running
from tests.support.leaks import assert_no_leaks
from tokens.admin.admin import Admin
from tokens.admin.block import Blocker
from tokens.admin.granter import Granter
from tokens.admin.revoke import Revoker
from tokens.issue import SessionTerms
from tokens.policy.session import session_digest
from tokens.record import Keys
from tokens.token import digest, kid, mint

HERE = Path(__file__).parent
KEYS = Keys()
ADDRESS = "198.51.100.7"
_ADDRESSES = count(int(IPv4Address("203.0.113.1")))


@dataclass
class House(Gate):
    """Applications that open in different ways, and their visitors."""

    def browse(
        self,
        acl: str,
        *,
        method: str = "GET",
        target: str = "",
        host: str = "localhost",
        **says: str,
    ) -> Visit:
        """Visit as a browser that says so: token, via, session, nonce, src."""
        said = {"acl": acl, "src": ADDRESS, **says}
        headers = [f"X-Test-{name}: {value}" for name, value in said.items()]
        return self.visit(*headers, method=method, target=target, host=host)

    def opened(self, acl: str, token: str = "", **says: str) -> str:
        """Have a token open a session; return the session's id."""
        visit = self.browse(acl, token=token or self.issue(acl), via="query", **says)
        assert visit.said == (200, "ok")
        session = visit.answer.header("X-Test-Session")
        assert session
        self.secrets.append(session)
        return session

    def is_let_in(self, acl: str, session: str, **says: str) -> bool:
        """Tell whether this session opens, by name, or nobody gets through at all."""
        visit = self.browse(acl, session=session, **says)
        is_in = visit.said == (200, "session")
        assert len(visit.received) == is_in
        return is_in

    def left_ms(self, session: str) -> int:
        """Return how long Redis keeps a session; below 0 if it does not."""
        return int(self.agent.client.pttl(KEYS.session(session_digest(session.encode()))))

    def record(self, session: str) -> dict[str, object]:
        raw = self.agent.client.get(KEYS.session(session_digest(session.encode())))
        assert isinstance(raw, bytes)
        fields = json.loads(raw)
        assert isinstance(fields, dict)
        return fields

    def change(self, session: str, **fields: object) -> None:
        """Rewrite what Redis holds of a session."""
        key = KEYS.session(session_digest(session.encode()))
        raw = json.dumps(self.record(session) | fields)
        self.agent.client.set(key, raw, keepttl=True)

    def now_ms(self) -> int:
        seconds, microseconds = self.agent.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def pass_a_moment(self) -> None:
        """Wait until what is issued is newer than any revocation so far."""
        began_ms = self.now_ms()
        until(lambda: self.now_ms() > began_ms + 1)

    def events(self) -> list[dict[str, object]]:
        """Return the audit so far."""
        entries = self.agent.client.xrange(KEYS.audit)
        return [event for _, entry in entries for event in json.loads(entry[b"e"])]


def somewhere() -> str:
    """Return an address that no visitor came from so far."""
    return str(IPv4Address(next(_ADDRESSES)))


@pytest.fixture(scope="module")
def _agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    settings = {
        "KAT_CONFIG": str(HERE / "visitors.toml"),
        "KAT_LISTEN__METRICS": "127.0.0.1:0",
        "KAT_LOG__LEVEL": "debug",
    }
    agent = Agent(tmp_path_factory.mktemp("agent"), settings)
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def _house(
    haproxy_binary: Path, _agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with ExitStack() as stack:
        application = stack.enter_context(Application())
        folder = tmp_path_factory.mktemp("house")
        settings = {
            "KAT_HTTP": f"unix@{folder}/web.sock",
            "KAT_AGENT": f"unix@{_agent.socket}",
            "KAT_APP": application.address,
            "KAT_PROCESSING": PATIENCE,
        }
        cfg = HERE / "visitors.cfg"
        haproxy = stack.enter_context(
            running(haproxy_binary, folder, settings, cfg, listener="KAT_VISITORS")
        )
        yield House(haproxy, _agent, application)


@pytest.fixture
def house(_house: House) -> House:
    """Return the house once Redis is asked."""
    until(lambda: _house.browse("wiki", token=mint()).said == (403, "unknown"))
    return _house


@pytest.fixture
def admin(house: House) -> Admin:
    return Admin(house.agent.client, by="test")


def test_haproxy_accepts_it_without_a_warning(haproxy_binary: Path) -> None:
    """What plays the browser is good for every version."""
    settings = {"KAT_VISITORS": "127.0.0.1:1", "KAT_APP": "127.0.0.1:2"}
    assert complaints(haproxy_binary, settings, HERE / "visitors.cfg") == ""


# --- Sessions ------------------------------------------------------------------------------------


def test_a_token_opens_a_session(house: House) -> None:
    """A browser's token is consumed and opens a session, which lets its user in again and again."""
    token = house.issue("wiki")
    session = house.opened("wiki", token)
    assert house.is_consumed(token)
    for _ in range(5):
        visit = house.browse("wiki", session=session)
        assert visit.said == (200, "session")
        assert visit.facts["kid"] == kid(digest(token.encode())).decode()
        (received,) = visit.received
        assert received.header("X-KAT-User") == ["user1"]
        assert visit.answer.header("X-Test-Session") is None
    assert house.browse("wiki", token=token, via="query").said == (403, "replayed")


@pytest.mark.parametrize("via", ["header", "", "QUERY", "cookie"])
def test_a_programs_token_opens_no_session(house: House, via: str) -> None:
    """A token that did not come by query or form is consumed for one request alone."""
    visit = house.browse("wiki", token=house.issue("wiki"), via=via)
    assert visit.said == (200, "ok")
    assert visit.answer.header("X-Test-Session") is None


def test_a_form_opens_a_session_too(house: House) -> None:
    """The confirm page's way."""
    visit = house.browse("wiki", token=house.issue("wiki"), via="form")
    session = visit.answer.header("X-Test-Session") or ""
    assert house.is_let_in("wiki", session)


def test_a_token_may_forbid_a_session(house: House) -> None:
    """`session: false` in the record: one request, no session."""
    visit = house.browse("wiki", token=house.issue("wiki", session=False), via="query")
    assert visit.said == (200, "ok")
    assert visit.answer.header("X-Test-Session") is None


def test_a_session_is_for_its_application_and_host(house: House) -> None:
    """Elsewhere the same cookie opens nothing, and stays good where it belongs."""
    session = house.opened("wiki")
    assert house.browse("docs", session=session).said == (403, "wrong_acl")
    assert house.browse("wiki", session=session, host="other.example").said == (403, "wrong_host")
    assert house.browse("demo", session=session).said == (503, "unknown_acl")
    assert house.is_let_in("wiki", session)


def test_a_session_that_is_none(house: House) -> None:
    """An id that was never given out, or cannot be one, is `session_expired`: come with a token."""
    session = house.opened("wiki")
    for wrong in (session[:-5], session + "0", session.swapcase(), "x", "kat_" + "0" * 38):
        assert house.browse("wiki", session=wrong).said == (401, "session_expired"), wrong
    assert house.browse("wiki").said == (401, "missing")


def test_a_refused_token_does_no_harm_to_a_session(house: House) -> None:
    """With a living session a wrong token is passed over; without one it is the answer."""
    session = house.opened("wiki")
    used = house.issue("wiki")
    assert house.browse("wiki", token=used, session=session, via="query").said == (200, "ok")
    for token in (used, mint(), "kat_x", house.issue("docs")):
        visit = house.browse("wiki", token=token, session=session, via="query")
        assert visit.said == (200, "session")
    assert house.browse("wiki", token=used, session="x", via="query").said == (403, "replayed")


def test_logout(house: House) -> None:
    """After it the session opens nothing; other sessions of the user do."""
    session, other = house.opened("wiki"), house.opened("wiki")
    visit = house.browse("wiki", session=session, method="LOGOUT")
    assert visit.said == (401, "logged_out")
    assert visit.received == []
    assert house.browse("wiki", session=session).said == (401, "session_expired")
    assert house.browse("wiki", session=session, method="LOGOUT").said == (401, "logged_out")
    assert house.is_let_in("wiki", other)


def test_a_session_lives_as_long_as_it_is_used(house: House) -> None:
    """Each hit gives it the ACL's idle time anew, but never a moment past its end."""
    session = house.opened("wiki")
    assert 0 < house.left_ms(session) <= 30 * 60_000
    key = KEYS.session(session_digest(session.encode()))
    house.agent.client.pexpire(key, 60_000)
    assert house.is_let_in("wiki", session)
    assert house.left_ms(session) > 60_000
    house.change(session, exp=house.now_ms() - 1)
    assert house.left_ms(session) > 60_000
    assert house.browse("wiki", session=session).said == (401, "session_expired")


def test_a_session_without_idle_time_keeps_its_end(house: House) -> None:
    """With idle off a hit moves nothing; at `exp` it is over, whatever Redis still holds."""
    session = house.opened("docs")
    left_ms = house.left_ms(session)
    assert 7 * 3_600_000 < left_ms <= 8 * 3_600_000
    assert house.is_let_in("docs", session)
    assert house.left_ms(session) <= left_ms
    house.change(session, exp=house.now_ms() - 1)
    assert house.browse("docs", session=session).said == (401, "session_expired")


def test_a_session_that_redis_has_expired(house: House) -> None:
    """When its key is gone it is `session_expired`."""
    session = house.opened("wiki")
    house.agent.client.pexpire(KEYS.session(session_digest(session.encode())), 1)
    until(lambda: house.left_ms(session) < 0)
    assert house.browse("wiki", session=session).said == (401, "session_expired")


def test_a_token_shortens_its_session(house: House) -> None:
    """It may ask for less than its ACL allows, and never for more."""
    terms = SessionTerms(ttl_s=600, idle_s=60)
    short = house.opened("wiki", house.issue("wiki", session=terms))
    assert house.left_ms(short) <= 60_000
    assert house.is_let_in("wiki", short)
    assert house.left_ms(short) <= 60_000
    assert int(str(house.record(short)["exp"])) <= house.now_ms() + 600_000
    terms = SessionTerms(ttl_s=90 * 86_400, idle_s=86_400)
    long = house.opened("wiki", house.issue("wiki", session=terms))
    assert house.left_ms(long) <= 30 * 60_000
    assert int(str(house.record(long)["exp"])) <= house.now_ms() + 8 * 3_600_000


def test_a_session_opens_no_more_than_its_token_did(house: House) -> None:
    """Path, method and address of the token bind the session that it opened."""
    token = house.issue("wiki", path="/team", method=["GET", "POST"], src="198.51.100.0/24")
    visit = house.browse("wiki", token=token, via="query", target="/team")
    session = visit.answer.header("X-Test-Session") or ""
    assert house.is_let_in("wiki", session, target="/team")
    assert house.is_let_in("wiki", session, target="/team", method="POST")
    assert house.browse("wiki", session=session).said == (403, "wrong_path")
    said = house.browse("wiki", session=session, target="/team", method="PUT").said
    assert said == (403, "wrong_method")
    said = house.browse("wiki", session=session, target="/team", src="192.0.2.7").said
    assert said == (403, "wrong_src")


def test_a_session_bound_to_its_address(house: House) -> None:
    """With bind exact: from another address it opens nothing, and is good at home again."""
    session = house.opened("fixed")
    assert house.browse("fixed", session=session, src="198.51.100.8").said == (403, "wrong_src")
    assert house.is_let_in("fixed", session)
    mapped = f"::ffff:{ADDRESS}"
    assert house.is_let_in("fixed", session, src=mapped)


def test_a_session_bound_to_its_network(house: House) -> None:
    """With bind network: to the /64 of an IPv6 address, to the whole address of IPv4."""
    session = house.opened("home", src="2001:db8:1:2::7")
    assert house.is_let_in("home", session, src="2001:db8:1:2:ffff::1")
    assert house.browse("home", session=session, src="2001:db8:1:3::7").said == (403, "wrong_src")
    assert house.browse("home", session=session).said == (403, "wrong_src")
    old = house.opened("home")
    assert house.browse("home", session=old, src="198.51.100.8").said == (403, "wrong_src")


def test_a_nonce_ties_a_token_to_one_browser(house: House) -> None:
    """Without that browser's cookie it is `wrong_nonce` and stays whole; with it, it opens."""
    nonce = digest(b"the cookie").decode()
    token = house.issue("wiki", nonce=nonce)
    before = house.value(token)
    for wrong in ({}, {"nonce": digest(b"another").decode()}, {"nonce": nonce.upper()}):
        visit = house.browse("wiki", token=token, via="query", **wrong)
        assert (*visit.said, visit.received) == (403, "wrong_nonce", [])
    assert house.value(token) == before
    assert house.opened("wiki", token, nonce=nonce)


# --- Revocation ----------------------------------------------------------------------------------

REVOCATIONS: dict[str, Callable[[Revoker, str, str], object]] = {
    "its token's text": lambda revoker, token, _: revoker.revoke_token(token.encode()),
    "its token's kid": lambda revoker, token, _: revoker.revoke_kid(
        kid(digest(token.encode())).decode()
    ),
    "its id": lambda revoker, _, session: revoker.revoke_session(session.encode()),
    "its sid": lambda revoker, _, session: revoker.revoke_sid(
        session_digest(session.encode())[:12].decode()
    ),
    "its user": lambda revoker, *_: revoker.revoke_user("leaver"),
    "a group of its user": lambda revoker, *_: revoker.revoke_group("leavers"),
}


@pytest.mark.parametrize("by", REVOCATIONS)
def test_a_session_is_revoked_on_the_very_next_request(house: House, admin: Admin, by: str) -> None:
    """Revoked by anything that names it, it opens nothing more; another user's does."""
    token = house.issue("wiki", user="leaver", groups="leavers")
    session, bystander = house.opened("wiki", token), house.opened("wiki")
    assert house.is_let_in("wiki", session)
    REVOCATIONS[by](Revoker(admin), token, session)
    visit = house.browse("wiki", session=session)
    assert visit.said in {(403, "revoked"), (401, "session_expired")}
    assert visit.received == []
    assert house.is_let_in("wiki", bystander)
    house.pass_a_moment()
    token = house.issue("wiki", user="leaver", groups="leavers")
    assert house.is_let_in("wiki", house.opened("wiki", token))


@pytest.mark.parametrize("by", ["acl", "all"])
def test_everything_is_revoked_on_the_very_next_request(
    house: House, admin: Admin, by: str
) -> None:
    """Of one ACL, or altogether: sessions, and tokens that were issued and not yet consumed."""
    sessions = {acl: house.opened(acl) for acl in ("wiki", "docs")}
    tokens = {acl: house.issue(acl) for acl in sessions}
    revoker = Revoker(admin)
    _ = revoker.revoke_acl("wiki") if by == "acl" else revoker.revoke_all()
    is_hit = {"wiki": True, "docs": by == "all"}
    for acl, session in sessions.items():
        expected = (403, "revoked") if is_hit[acl] else (200, "session")
        assert house.browse(acl, session=session).said == expected
        expected = (403, "revoked") if is_hit[acl] else (200, "ok")
        assert house.browse(acl, token=tokens[acl], via="query").said == expected
    house.pass_a_moment()
    assert house.is_let_in("wiki", house.opened("wiki"))


def test_a_blocked_address_has_no_session(house: House, admin: Admin) -> None:
    """From a blocked network a living session opens nothing; when that is lifted it does."""
    session, source = house.opened("wiki"), somewhere()
    assert house.is_let_in("wiki", session, src=source)
    Blocker(admin).block(source, 60)
    assert house.browse("wiki", session=session, src=source).said == (403, "blocked")
    assert house.is_let_in("wiki", session)
    Blocker(admin).unblock(source)
    assert house.is_let_in("wiki", session, src=source)


# --- Addresses -----------------------------------------------------------------------------------


def test_a_token_opens_its_address(house: House) -> None:
    """Mode grant: one token, and whoever comes from there is let in, by no name; nobody else is."""
    source, token = somewhere(), house.issue("office")
    assert house.browse("office", src=source).said == (401, "no_grant")
    assert house.browse("office", token=token, src=source).said == (200, "ok")
    assert house.is_consumed(token)
    visit = house.browse("office", src=source)
    assert visit.said == (200, "grant")
    assert visit.received[0].header("X-KAT-User") == []
    assert house.browse("office", src=f"::ffff:{source}").said == (200, "grant")
    assert house.browse("office", src=somewhere()).said == (401, "no_grant")
    assert house.browse("ssh", src=source).said == (401, "no_grant")


def test_an_address_of_this_machine_is_never_opened(house: House) -> None:
    """Behind a proxy that hides its clients 127.0.0.1 is everybody: the token stays whole."""
    token = house.issue("office")
    before = house.value(token)
    for source in ("127.0.0.1", "::1"):
        assert house.browse("office", token=token, src=source).said == (403, "wrong_src")
    assert house.value(token) == before


def test_a_grant_ends_with_its_user(house: House, admin: Admin) -> None:
    """Revoking a user closes the address that his token opened, on the very next request."""
    source = somewhere()
    token = house.issue("office", user="leaver")
    assert house.browse("office", token=token, src=source).said == (200, "ok")
    Revoker(admin).revoke_user("leaver")
    assert house.browse("office", src=source).said == (401, "no_grant")
    house.pass_a_moment()


def test_an_address_alone(house: House, admin: Admin) -> None:
    """Mode ip: a grant for a network lets its addresses in; a token is not looked at."""
    token = house.issue("ssh")
    before = house.value(token)
    assert house.browse("ssh", token=token, src="192.0.2.7").said == (401, "no_grant")
    Granter(admin).grant("ssh", "192.0.2.0/24", "user1", 60)
    assert house.browse("ssh", token=token, src="192.0.2.7").said == (200, "grant")
    assert house.value(token) == before
    Revoker(admin).end_grant("192.0.2.0/24")
    assert house.browse("ssh", token=token, src="192.0.2.7").said == (401, "no_grant")


def test_an_address_and_a_token(house: House, admin: Admin) -> None:
    """Mode ip+token: without the grant the token stays whole; with it each request takes one."""
    source, token = somewhere(), house.issue("vault")
    before = house.value(token)
    assert house.browse("vault", token=token, src=source).said == (401, "no_grant")
    assert house.value(token) == before
    Granter(admin).grant("vault", source, "user1", 60)
    assert house.browse("vault", src=source).said == (401, "missing")
    visit = house.browse("vault", token=token, src=source)
    assert (*visit.said, len(visit.received)) == (200, "ok", 1)
    assert house.is_consumed(token)
    assert house.browse("vault", token=token, src=source).said == (403, "replayed")
    Revoker(admin).end_grant(source, "vault")
    token = house.issue("vault")
    before = house.value(token)
    assert house.browse("vault", token=token, src=source).said == (401, "no_grant")
    assert house.value(token) == before


# --- What is told --------------------------------------------------------------------------------


def test_the_audit_tells_what_happened(house: House) -> None:
    """Consumed, session, replayed, logout, in this order and by name; a session hit is no event."""
    token = house.issue("wiki")
    name = kid(digest(token.encode())).decode()
    session = house.opened("wiki", token)
    house.browse("wiki", token=token, via="query")

    def told() -> list[dict[str, object]]:
        return [event for event in house.events() if event.get("kid") == name]

    for _ in range(20):
        assert house.is_let_in("wiki", session)
    house.browse("wiki", session=session, method="LOGOUT")
    until(lambda: any(event["event"] == "logout" for event in told()))
    assert [event["event"] for event in told()] == ["consumed", "session", "replayed", "logout"]
    assert {event.get("src") for event in told()} == {ADDRESS}
    assert told()[2]["first_src"] == ADDRESS


def test_nothing_shows_a_secret(house: House, admin: Admin) -> None:
    """No log, metric, audit entry or command shows a token, a session id or a whole digest.

    Of all tests of this module that ran on these, and of a run with every kind of event.
    """
    token = house.issue("wiki", user="leaver")
    session, source = house.opened("wiki", token), somewhere()
    for secret in (token, session):
        house.browse("wiki", token=secret, session=secret, via=secret, nonce=secret)
        house.ask("X-Test-Acl: wiki", f"X-Test-Token: {secret}", target=f"/?kat={secret}")
        house.browse("wiki", session=secret, method="LOGOUT")
    house.browse("office", token=house.issue("office"), src=source)
    Granter(admin).grant("vault", source, "user1", 60)
    Blocker(admin).block("192.0.2.66", 60)
    unconsumed = house.issue("wiki", user="leaver")
    command = house.agent.command
    shown = {
        "kat revoke --token": command("revoke", "--token", says=unconsumed),
        "kat revoke --session": command("revoke", "--session", "-", says=session),
        "kat revoke --user": command("revoke", "--user", "leaver"),
        "kat grant": command("grant"),
        "kat block": command("block"),
        "kat audit": command("audit", "-n", "10000"),
        "kat audit --json": command("audit", "--json", "-n", "10000"),
    }
    Blocker(admin).unblock("192.0.2.66")
    house.pass_a_moment()
    assert "replayed" in shown["kat audit"]
    assert source in shown["kat grant"]
    grants = repr(house.agent.client.hgetall(KEYS.grants_meta(b"office").decode()))
    left = {**house.traces(), "metrics": house.agent.metrics(), "grants": grants}
    assert "reason=session" in left["haproxy.log"]
    assert "msg=audit" in left["agent.log"]
    assert "consumed" in left["audit"]
    assert 'reason="session"' in left["metrics"]
    assert_no_leaks({**shown, **left}, house.secrets)
