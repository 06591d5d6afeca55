"""examples/confluence.cfg in modes token and both, with an agent that says what a test wants."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from spoa.spop.codec import encode_ack
from tests.e2e.scene import PATIENCE, TOKEN
from tests.support.application import Received
from tests.support.confluence import ADMINS, STAFF, Confluence, guarded
from tests.support.haproxy import Answer
from tests.support.stub_agent import (
    GARBAGE,
    Script,
    StubAgent,
    acknowledging,
    actions,
    closing,
    refuse,
    saying,
)

ACL = b"confluence"
ADMIN = b"confluence-admin"
SESSION = "S3ss10n-_" * 4 + "S3ss10n"
COOKIE = f"__Host-kat-confluence={SESSION}"
PROGRAM = "Accept: application/json"
OURS = ("Sec-Fetch-Site: same-origin", "Content-Length: 0")

_PAGES = count()

REFUSALS: dict[str, tuple[Script, int, int]] = {
    "missing": (acknowledging(refuse(b"missing", b"missing", ACL)), 403, 401),
    "expired": (acknowledging(refuse(b"missing", b"session_expired", ACL)), 403, 401),
    "replayed": (acknowledging(refuse(b"denied", b"replayed", ACL)), 403, 403),
    "blocked": (acknowledging(refuse(b"denied", b"blocked", ACL)), 403, 403),
    "overloaded": (acknowledging(refuse(b"broken", b"overloaded", ACL)), 503, 503),
    "unknown ACL": (acknowledging(refuse(b"broken", b"unknown_acl", ACL)), 503, 503),
    "silence": (saying(b""), 503, 503),
    "garbage": (saying(GARBAGE), 503, 503),
    "a closed connection": (closing, 503, 503),
    "an ACK without actions": (acknowledging(b""), 503, 503),
    "an ACK for nobody": (lambda _: encode_ack(b"\xef\xef", b""), 503, 503),
    "a yes for another ACL": (acknowledging(actions(acl=ADMIN, allow=True)), 503, 503),
    "a yes for no ACL": (acknowledging(actions(allow=True)), 503, 503),
    "a class without allow": (acknowledging(actions(**{"class": b"allow"}, acl=ACL)), 503, 503),
    "a yes for the address": (
        acknowledging(actions(**{"class": b"allow"}, reason=b"grant", acl=ACL, allow=True)),
        503,
        503,
    ),
    "a yes with an error": (acknowledging(actions(acl=ACL, error=1, allow=True)), 503, 503),
}
"""What the agent does, and the answers to people and to programs (the table of README.md)."""

NOT_ADMIN = {
    "no groups": None,
    "an empty list": b"",
    "another group": b"staff",
    "a longer name": b"confluence-admins",
    "a name that ends so": b"x-confluence-admin",
    "other letters": b"Confluence-Admin",
    "a part of it": b"confluence",
    "a blank beside it": b"staff, confluence-admin",
    "a name in two": b"confluence,-admin",
}
IS_ADMIN = (
    b"confluence-admin",
    b"staff,confluence-admin",
    b"confluence-admin,staff",
    b"a,confluence-admin,b",
)


def yes(groups: bytes | None = b"staff", session: str | None = None) -> Script:
    """Let everybody in, as a member of these groups, with a new session if one is given."""
    facts: dict[str, bytes | bool] = {"class": b"allow", "reason": b"ok", "acl": ACL}
    facts |= {"user": b"alice"}
    facts |= {} if groups is None else {"groups": groups}
    facts |= {} if session is None else {"session": session.encode()}
    return acknowledging(actions(**facts, allow=True))


@dataclass
class Guarded:
    """The example with a scripted agent. Requests come from an address that nobody had before."""

    confluence: Confluence
    agent: StubAgent = field(repr=False)

    def member(self, *lists: str) -> str:
        return self.confluence.member(*lists)

    def ask(self, *headers: str, source: str | None = None, target: str = "/") -> Answer:
        return self.confluence.ask(*headers, target=target, source=source)

    def taken(self) -> list[Received]:
        return self.confluence.taken()

    @property
    def asked(self) -> list[bytes]:
        """The messages that the agent got."""
        return [bytes(notify.messages[0].name) for notify in self.agent.notifies]


def _guarded(binary: Path, folder: Path, mode: str, **settings: str) -> Iterator[Guarded]:
    socket = folder / "spoa.sock"
    more = {"KAT_AGENT": f"unix@{socket}", "KAT_PROCESSING": PATIENCE, "KAT_BEAT": "1h"}
    with (
        StubAgent(socket, yes()) as agent,
        guarded(binary, folder, {"KAT_MODE": mode, **more, **settings}) as confluence,
    ):
        yield Guarded(confluence, agent)


@pytest.fixture(scope="module")
def _both(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    yield from _guarded(haproxy_binary, tmp_path_factory.mktemp("both"), "both")


@pytest.fixture(scope="module")
def _token(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    yield from _guarded(
        haproxy_binary, tmp_path_factory.mktemp("token"), "token", KAT_STAFF_GROUP="wiki users"
    )


@pytest.fixture
def both(_both: Guarded) -> Guarded:
    """Give a gate for both, with empty lists, a living writer, and an agent that says yes."""
    for name in (STAFF, ADMINS):
        _both.confluence.tell(f"clear acl {name}")
    _both.confluence.beat()
    return _renewed(_both, yes())


@pytest.fixture
def token(_token: Guarded) -> Guarded:
    """Give a gate for tokens, and an agent that says yes."""
    return _renewed(_token, yes(b"wiki users"))


def _renewed(gate: Guarded, script: Script) -> Guarded:
    gate.agent.script = script
    gate.agent.notifies.clear()
    gate.taken()
    return gate


@pytest.mark.parametrize(
    "header", [f"X-KAT: {TOKEN}", f"Authorization: KAT {TOKEN}", f"Cookie: {COOKIE}"]
)
def test_for_a_stranger_no_agent_is_asked(both: Guarded, header: str) -> None:
    """Whatever an address that is not granted brings is a 403, of which no agent hears."""
    assert both.ask(header).status == 403
    assert both.ask(header, PROGRAM).status == 403
    assert both.ask(target=f"/page?kat={TOKEN}").status == 403
    assert both.asked == []
    assert both.taken() == []


def test_who_has_both_comes_in(both: Guarded) -> None:
    """A granted address is asked for once, and comes in as whom the agent says."""
    assert both.ask(f"X-KAT: {TOKEN}", source=both.member()).status == 200
    assert both.asked == [b"check-http"]
    (received,) = both.taken()
    assert received.header("X-KAT-User") == ["alice"]
    assert received.header("X-KAT-Groups") == ["staff"]


@pytest.mark.parametrize("case", REFUSALS)
def test_a_granted_address_alone_opens_nothing(both: Guarded, case: str) -> None:
    """Without the agent's yes a granted address gets the answer of the decision table."""
    both.agent.script, for_people, for_programs = REFUSALS[case]
    source = both.member()
    answer, told = both.ask(source=source), both.ask(PROGRAM, source=source)
    assert (answer.status, told.status) == (for_people, for_programs)
    assert (answer.header("Content-Type") or "").startswith("text/html")
    assert told.header("Content-Type") == "application/json"
    assert both.taken() == []


@pytest.mark.parametrize("case", REFUSALS)
def test_in_mode_token_the_answers_are_the_same(token: Guarded, case: str) -> None:
    """The decision table holds without lists, too."""
    token.agent.script, for_people, for_programs = REFUSALS[case]
    assert (token.ask().status, token.ask(PROGRAM).status) == (for_people, for_programs)
    assert token.taken() == []


def test_in_mode_token_no_address_counts(token: Guarded) -> None:
    """There are no lists and no marks; whoever brings a token comes in."""
    assert token.ask(f"X-KAT: {TOKEN}").status == 200
    assert "Unknown ACL" in token.confluence.tell(f"show acl {STAFF}")


def test_without_the_writer_no_agent_is_asked(both: Guarded) -> None:
    """A silent `kat allowlist` is a 503 before any token is looked at."""
    source = both.member()
    both.confluence.silence()
    assert both.ask(f"X-KAT: {TOKEN}", source=source).status == 503
    assert both.ask(f"X-KAT: {TOKEN}").status == 503
    assert both.asked == []
    assert both.taken() == []


def test_an_admins_page_needs_both_lists_before_the_agent(both: Guarded) -> None:
    """Who is in the list of the staff alone has no token consumed for an admin's page."""
    both.agent.script = yes(ADMIN)
    assert both.ask(f"X-KAT: {TOKEN}", source=both.member(), target="/admin").status == 403
    assert both.asked == []
    admin = both.member(STAFF, ADMINS)
    assert both.ask(f"X-KAT: {TOKEN}", source=admin, target="/admin").status == 200


def test_an_admins_address_is_no_admin(both: Guarded) -> None:
    """Where the list has the address but the token's groups have no admin, the page stays shut."""
    both.agent.script = yes(b"staff")
    admin = both.member(STAFF, ADMINS)
    assert both.ask(f"X-KAT: {TOKEN}", source=admin, target="/admin").status == 403
    assert both.taken() == []


def test_whoever_lost_his_grant_may_log_out(both: Guarded) -> None:
    """To log out takes no address: the agent ends the session, and is asked nothing else."""
    both.agent.script = acknowledging(refuse(b"missing", b"missing", ACL))
    answer = both.confluence.ask(f"Cookie: {COOKIE}", *OURS, method="POST", target="/.kat/logout")
    assert answer.status == 200
    assert "Max-Age=0" in (answer.header("Set-Cookie") or "")
    assert both.asked == [b"logout"]
    assert both.taken() == []


def test_logging_out_opens_nothing(both: Guarded) -> None:
    """An agent that answers a stranger's logout with a yes lets nobody in."""
    answer = both.confluence.ask(*OURS, method="POST", target="/.kat/logout")
    assert answer.status == 503
    assert both.asked == [b"logout"]
    assert both.taken() == []


@pytest.mark.parametrize("case", ["silence", "an ACK without actions"])
def test_a_stranger_is_not_told_that_he_is_logged_out(both: Guarded, case: str) -> None:
    """While the agent does not say so the session may stand: a 503, and the cookie stays."""
    both.agent.script = REFUSALS[case][0]
    form = (f"Cookie: {COOKIE}", *OURS)
    answer = both.confluence.ask(*form, method="POST", target="/.kat/logout")
    assert (answer.status, answer.header("Set-Cookie")) == (503, None)


@pytest.mark.parametrize("groups", IS_ADMIN)
def test_a_group_of_admins_opens_their_pages(token: Guarded, groups: bytes) -> None:
    """The group counts wherever it stands in the list."""
    token.agent.script = yes(b"wiki users," + groups)
    assert token.ask(f"X-KAT: {TOKEN}", target="/admin/users").status == 200


@pytest.mark.parametrize("case", NOT_ADMIN)
def test_only_the_very_group_opens_admins_pages(token: Guarded, case: str) -> None:
    """No name that looks like it does, and Confluence sees nothing of the request."""
    groups = NOT_ADMIN[case]
    token.agent.script = yes(groups if groups is None else b"wiki users," + groups)
    answer = token.ask(f"X-KAT: {TOKEN}", target="/admin/users")
    assert answer.status == 403
    assert "This did not open" in answer.body
    assert token.taken() == []


@pytest.mark.parametrize("groups", [None, b"", b"wiki", b"wiki users2", b"users", b"wiki,users"])
def test_who_is_not_of_the_staff_stays_outside(token: Guarded, groups: bytes | None) -> None:
    """Where a group of all is named, nobody without it comes in; programs are told in JSON."""
    token.agent.script, path = yes(groups), f"/group-{next(_PAGES)}"
    assert token.ask(f"X-KAT: {TOKEN}").status == 403
    answer = token.ask(f"X-KAT: {TOKEN}", PROGRAM, target=path)
    assert (answer.status, answer.header("Content-Type")) == (403, "application/json")
    assert " class=denied reason=wrong_group " in token.confluence.log_of(path)
    assert token.taken() == []


def test_groups_that_a_client_names_are_none(token: Guarded) -> None:
    """X-KAT-Groups of a visitor neither opens a page nor reaches Confluence."""
    claims = (f"X-KAT: {TOKEN}", "X-KAT-Groups: confluence-admin", "X_KAT_Groups: confluence-admin")
    assert token.ask(*claims, target="/admin").status == 403
    assert token.ask(*claims).status == 200
    (received,) = token.taken()
    assert received.header("X-KAT-Groups") == ["wiki users"]


def test_a_link_to_an_admins_page_still_opens_a_session(token: Guarded) -> None:
    """Who follows one, and is no admin, has a session for the other pages, and then a 403."""
    token.agent.script = yes(b"wiki users", SESSION)
    answer = token.ask(target=f"/admin?kat={TOKEN}")
    assert (answer.status, answer.header("Location")) == (303, "/./admin")
    assert (answer.header("Set-Cookie") or "").startswith(COOKIE)
    token.agent.script = yes(b"wiki users")
    assert token.ask(f"Cookie: {COOKIE}", target="/admin").status == 403
    assert token.ask(f"Cookie: {COOKIE}").status == 200
    assert [one.target for one in token.taken()] == ["/"]


def test_an_empty_name_is_nobodys_group(haproxy_binary: Path, tmp_path: Path) -> None:
    """A setting that was left empty makes nobody an admin, and nobody a member."""
    empty = {"KAT_ADMIN_GROUP": ""}
    for gate in _guarded(haproxy_binary, tmp_path, "token", **empty):
        for groups in (None, b"", b"staff"):
            gate.agent.script = yes(groups)
            assert gate.ask(f"X-KAT: {TOKEN}", target="/admin").status == 403
            assert gate.ask(f"X-KAT: {TOKEN}").status == 200
