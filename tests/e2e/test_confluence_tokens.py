"""examples/confluence.cfg in mode both with the real agent: what becomes of tokens and sessions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.scene import PATIENCE, Agent
from tests.support.confluence import ADMINS, STAFF, Confluence, guarded
from tests.support.eventually import eventually
from tests.support.haproxy import Answer
from tests.support.leaks import assert_no_leaks
from tokens.issue import Issuer
from tokens.record import Keys
from tokens.token import digest

CONFIGURATION = Path(__file__).with_name("confluence.toml")


@dataclass
class Site:
    """The example, the real agent, and who grants and issues."""

    confluence: Confluence
    agent: Agent = field(repr=False)
    secrets: list[str] = field(default_factory=list, repr=False)

    def issue(self, *groups: str) -> str:
        issuer = Issuer(self.agent.client, allow_loopback=True)
        token = issuer.issue("alice", "confluence", 60, groups=groups or ("staff",)).token
        self.secrets.append(token)
        return token

    def member(self, *lists: str) -> str:
        return self.confluence.member(*lists)

    def ask(self, *headers: str, source: str | None = None, target: str = "/") -> Answer:
        return self.confluence.ask(*headers, target=target, source=source)

    def log_in(self, source: str) -> str:
        """Follow a link from an address; return the header with the session's cookie."""
        answer = self.ask(target=f"/?kat={self.issue()}", source=source)
        assert (answer.status, answer.header("Location")) == (303, "/./")
        cookie = (answer.header("Set-Cookie") or "").partition(";")[0]
        self.secrets.append(cookie.partition("=")[2])
        return f"Cookie: {cookie}"

    def is_whole(self, token: str) -> bool:
        """Tell whether a token is there and was not consumed."""
        value = self.agent.client.get(Keys().token(digest(token.encode())))
        assert isinstance(value, bytes)
        return not value.startswith(b"consumed ")

    def is_judging(self) -> bool:
        """Tell whether HAProxy has met the agent: it refuses who brings nothing."""
        return self.ask(source=self.member()).status == 403


@pytest.fixture(scope="module")
def _agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(tmp_path_factory.mktemp("agent"), {"KAT_CONFIG": str(CONFIGURATION)})
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def _site(
    haproxy_binary: Path, _agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    settings = {"KAT_AGENT": f"unix@{_agent.socket}", "KAT_PROCESSING": PATIENCE, "KAT_BEAT": "1h"}
    with guarded(haproxy_binary, tmp_path_factory.mktemp("both"), settings) as confluence:
        site = Site(confluence, _agent)
        confluence.beat()
        eventually(site.is_judging, "the agent's first answer")
        yield site
        logs = {"HAProxy's log": confluence.haproxy.log(), "the agent's": _agent.log()}
        assert_no_leaks(logs, site.secrets)


@pytest.fixture
def site(_site: Site) -> Site:
    """Give the site with empty lists, a living writer, and an application that has seen nothing."""
    for name in (STAFF, ADMINS):
        _site.confluence.tell(f"clear acl {name}")
    _site.confluence.beat()
    _site.confluence.taken()
    return _site


def test_a_stranger_consumes_no_token(site: Site) -> None:
    """A token that a stranger sends, in a header or a link, stays whole and opens for its owner."""
    token = site.issue()
    assert site.ask(f"X-KAT: {token}").status == 403
    assert site.ask(target=f"/?kat={token}").status == 403
    assert site.is_whole(token)
    source = site.member()
    assert site.ask(f"X-KAT: {token}", source=source).status == 200
    assert not site.is_whole(token)
    assert site.ask(f"X-KAT: {token}", source=source).status == 403
    assert len(site.confluence.taken()) == 1


def test_a_silent_writer_costs_no_token(site: Site) -> None:
    """While nobody can say who is granted, a 503 consumes nothing."""
    token, source = site.issue(), site.member()
    site.confluence.silence()
    assert site.ask(f"X-KAT: {token}", source=source).status == 503
    assert site.is_whole(token)
    site.confluence.beat()
    assert site.ask(f"X-KAT: {token}", source=source).status == 200


def test_a_granted_address_needs_a_token(site: Site) -> None:
    """An address alone is a 403 with the way to the portal, not the application."""
    answer = site.ask(source=site.member())
    assert answer.status == 403
    assert "Please log in first" in answer.body
    assert site.confluence.taken() == []


def test_one_token_opens_a_session_for_a_granted_address(site: Site) -> None:
    """A link is followed once; then the session counts, and Confluence knows who it is."""
    source = site.member()
    cookie = site.log_in(source)
    for _ in range(3):
        assert site.ask(cookie, source=source, target="/page").status == 200
    seen = site.confluence.taken()
    assert [one.header("X-KAT-User") for one in seen] == [["alice"]] * 3
    assert "Cookie" not in repr(seen)


def test_a_session_is_worth_nothing_elsewhere(site: Site) -> None:
    """A stolen cookie does not open from an address that is not granted, nor after the grant."""
    source = site.member()
    cookie = site.log_in(source)
    assert site.ask(cookie).status == 403
    site.confluence.drop(f"{source}/032")
    assert site.ask(cookie, source=source).status == 403
    site.confluence.put(f"{source}/032")
    assert site.ask(cookie, source=source).status == 200
    assert len(site.confluence.taken()) == 1


def test_admins_are_known_by_list_and_by_group(site: Site) -> None:
    """An admin's page takes the admins' list, before a token is consumed, and the admins' group."""
    staff, admin = site.member(), site.member(STAFF, ADMINS)
    token = site.issue("staff", "confluence-admin")
    assert site.ask(f"X-KAT: {token}", source=staff, target="/admin").status == 403
    assert site.is_whole(token)
    assert site.ask(f"X-KAT: {token}", source=admin, target="/admin").status == 200
    other = site.issue("staff", "confluence-admins")
    assert site.ask(f"X-KAT: {other}", source=admin, target="/admin").status == 403
    assert len(site.confluence.taken()) == 1


def test_a_session_remembers_its_groups(site: Site) -> None:
    """Behind one link, an admin's pages open to who has the group, request after request."""
    source = site.member(STAFF, ADMINS)
    link = f"/admin?kat={site.issue('confluence-admin')}"
    answer = site.ask(target=link, source=source)
    cookie = (answer.header("Set-Cookie") or "").partition(";")[0]
    site.secrets.append(cookie.partition("=")[2])
    assert site.ask(f"Cookie: {cookie}", source=source, target="/admin").status == 200
    assert site.ask(site.log_in(source), source=source, target="/admin").status == 403


def test_whoever_lost_his_grant_logs_out_for_good(site: Site) -> None:
    """A session that he ended without a grant does not come back with the next grant."""
    source = site.member()
    cookie = site.log_in(source)
    site.confluence.drop(f"{source}/032")
    form = ("Sec-Fetch-Site: same-origin", "Content-Length: 0", cookie)
    answer = site.confluence.ask(*form, method="POST", target="/.kat/logout", source=source)
    assert answer.status == 200
    site.confluence.put(f"{source}/032")
    assert site.ask(cookie, source=source).status == 403
    assert site.confluence.taken() == []


def test_a_revoked_user_is_out_at_once(site: Site) -> None:
    """`kat revoke` ends her session on the next request, whatever the list says."""
    source = site.member()
    cookie = site.log_in(source)
    assert site.ask(cookie, source=source).status == 200
    site.agent.command("revoke", "--user", "alice")
    assert site.ask(cookie, source=source).status == 403
