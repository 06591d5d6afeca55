"""A token is accepted at most once: a state machine of agents, visitors and lost replies.

Three gates before one real Redis. Visitors bring tokens, alone or several in a batch, twice in one
batch, rightly and wrongly; Redis runs what is asked, wholly or in part; replies get lost, and are
asked for again or given up; tokens expire; users, ACLs, tokens or all are revoked, addresses
blocked and granted, fences moved, agents started anew: in any order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.asking import Steps
from tests.support.gates import CLIENT, ELSEWHERE, Site, bringing, digest_of, kid_of
from tokens.address import candidates
from tokens.check import Check, Decision
from tokens.outcome import Outcome
from tokens.policy.gate import Judgement

AGENTS = 3
ACLS = ("wiki", "session", "ip-token")
ADDRESSES = {CLIENT: "192.0.2.7", ELSEWHERE: "198.51.100.1"}
OLD_MS = 20_000
"""How old some tokens are when they are issued; cuts and fences fall before or behind that."""

ROUNDING_MS = 3

WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], Outcome]] = {
    # what the token says, what the wrong visitor does, what he is told
    "acl": ({"acl": ["docs"]}, {}, Outcome.WRONG_ACL),
    "host": ({"host": ["wiki.example"]}, {"host": b"other.example"}, Outcome.WRONG_HOST),
    "method": ({"method": ["GET"]}, {"method": b"POST"}, Outcome.WRONG_METHOD),
    "path": ({"path": ["/x"]}, {"path": b"/y"}, Outcome.WRONG_PATH),
    "nonce": ({"nonce": "0" * 64}, {}, Outcome.WRONG_NONCE),
    "nbf": ({"nbf": 2**53}, {}, Outcome.EARLY),
}


@dataclass
class Token:
    """One token as the world outside Redis knows it."""

    secret: bytes
    acl: str
    user: str
    bound: str
    """What it is bound to; a visitor can be wrong about nothing else."""
    issued_ms: tuple[int, int]
    is_gone: bool = False
    consumer: bytes = b""
    """The claim that Redis consumed it for, and the fence then."""
    fence_ms: int = 0
    accepted: int = 0

    def hits(self, cuts: dict[str, int], *, surely: bool) -> bool:
        """Tell whether one of these cuts reaches it: in any case, or perhaps."""
        names = (
            "all",
            f"acl:{self.acl}",
            f"sub:{self.user}",
            f"kid:{kid_of(self.secret).decode()}",
        )
        last_ms = max(cuts.get(name, -1) for name in names)
        first, last = self.issued_ms
        return last_ms >= last if surely else last_ms >= first - ROUNDING_MS


@dataclass
class Request:
    """One visitor with one token. Its claim is known once Redis is asked."""

    token: Token
    check: Check
    is_wrong: bool
    claim: bytes = b""


@dataclass
class Flight:
    """A batch on its way, and what could have been seen by it."""

    site: Site
    steps: Steps
    requests: list[Request]
    is_opening: bool = False
    cuts: dict[str, int] = field(default_factory=dict)
    """At its last look."""
    blocked: set[bytes] = field(default_factory=set)
    """At its last look; and `ever`, since it began, or known to its agent before."""
    ever_blocked: set[bytes] = field(default_factory=set)
    granted: list[set[bytes]] = field(default_factory=list)
    """At each of its askings."""


class Machine(RuleBasedStateMachine):
    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        client.flushall()
        self.client = client
        self.sites = [Site(client) for _ in range(AGENTS)]
        self.tokens: list[Token] = []
        self.flights: list[Flight] = []
        self.sessions: list[tuple[Token, bytes]] = []
        self.cuts: dict[str, int] = {}
        self.blocked: set[bytes] = set()
        self.once_blocked: set[bytes] = set()
        self.granted: set[bytes] = set()
        self.last_moment = "", 0

    # What others do.

    @initialize()
    def begin(self) -> None:
        self._issue("wiki", "user1", "", 0)
        self._issue("session", "user2", "", OLD_MS)

    def _issue(self, acl: str, user: str, bound: str, age_ms: int) -> None:
        self._part_in_time("issue")
        site = self.sites[0]
        fields = WRONG[bound][0] if bound else {}
        before = site.now_ms()
        secret = site.issue(sub=user, left_ms=60_000 - age_ms, **fields)
        issued_ms = before - age_ms, site.now_ms() - age_ms
        self.tokens.append(Token(secret, acl, user, bound, issued_ms))
        self._done("issue")

    @rule(which=st.integers(0))
    def expire(self, which: int) -> None:
        token = self.tokens[which % len(self.tokens)]
        key = b"kat:t:" + digest_of(token.secret)
        self.client.pexpire(key, 1)
        while self.client.exists(key):
            pass
        token.is_gone = True

    @rule(
        what=st.sampled_from(["all", "acl", "sub", "kid"]),
        which=st.integers(0),
        is_past=st.booleans(),
    )
    def revoke(self, what: str, which: int, is_past: bool) -> None:  # noqa: FBT001
        token = self.tokens[which % len(self.tokens)]
        name = {
            "all": "all",
            "acl": f"acl:{token.acl}",
            "sub": f"sub:{token.user}",
            "kid": f"kid:{kid_of(token.secret).decode()}",
        }[what]
        self._part_in_time("cut")
        site = self.sites[0]
        cut_ms = max(self.cuts.get(name, 0), site.now_ms() - is_past * OLD_MS // 2)
        site.change(name, cut_ms)
        self.cuts[name] = cut_ms
        self._done("cut")

    @rule()
    def block_or_lift(self) -> None:
        address, name = ELSEWHERE, ADDRESSES[ELSEWHERE]
        if address in self.blocked:
            self.sites[0].unblock(name)
        else:
            self.sites[0].block(name)
            self.once_blocked.add(address)
            for flight in self.flights:
                flight.ever_blocked.add(address)
        self.blocked ^= {address}

    @rule(address=st.sampled_from(list(ADDRESSES)))
    def grant_or_end(self, address: bytes) -> None:
        if address in self.granted:
            self.client.zrem("kat:grants:{ip-token}", ADDRESSES[address])
        else:
            self.sites[0].grant("ip-token", ADDRESSES[address])
        self.granted ^= {address}

    @rule(agent=st.integers(0, AGENTS - 1), back_ms=st.sampled_from([0, OLD_MS // 2, 10**6]))
    def move_fence(self, agent: int, back_ms: int) -> None:
        """Let a fence fall before old tokens, between them and new ones, or behind all."""
        self._part_in_time("cut")
        site = self.sites[agent]
        site.asker.fence = type(site.asker.fence)(
            site.asker.fence.replid, max(site.asker.fence.since_ms, site.now_ms() - back_ms)
        )
        self._done("cut")

    @rule(agent=st.integers(0, AGENTS - 1))
    def start_anew(self, agent: int) -> None:
        """Let an agent die with all that it has in flight, and another one take its place."""
        for flight in [it for it in self.flights if it.site is self.sites[agent]]:
            self.flights.remove(flight)
            flight.steps.give_up()
        self.sites[agent] = Site(self.client)

    def _part_in_time(self, what: str) -> None:
        """Let no token be issued in the very ms of a cut or a fence: either answer were right.

        And then hypothesis would see two runs of one example differ.
        """
        last, last_ms = self.last_moment
        while last != what and self.sites[0].now_ms() <= last_ms + ROUNDING_MS:
            pass

    def _done(self, what: str) -> None:
        self.last_moment = what, self.sites[0].now_ms()

    # What visitors do.

    tokens_issued = st.tuples(
        st.sampled_from(ACLS),
        st.sampled_from(["user1", "user2"]),
        st.sampled_from(["", "", "", *WRONG]),
        st.sampled_from([0, 0, OLD_MS]),
    )
    visits = st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([CLIENT, CLIENT, ELSEWHERE])),
        min_size=1,
        max_size=3,
    )

    @rule(agent=st.integers(0, AGENTS - 1), issued=tokens_issued, visits=visits)
    def arrive(
        self, agent: int, issued: tuple[str, str, str, int], visits: list[tuple[int, bool, bytes]]
    ) -> None:
        """Issue a token, and bring some of the latest; those of a batch may have the same one."""
        self._issue(*issued)
        requests = []
        for back, is_mistaken, source in visits:
            token = self.tokens[-1 - back % len(self.tokens)]
            changes: dict[str, Any] = {"source": source}
            if is_mistaken and token.bound:
                changes |= WRONG[token.bound][1]
            elif token.bound == "nonce":
                changes["nonce"] = b"0" * 64
            # Some tokens are right for nobody: not yet, or not for this ACL.
            is_wrong = bool(token.bound) and (is_mistaken or token.bound in {"acl", "nbf"})
            check = bringing(token.secret, token.acl, **changes)
            requests.append(Request(token, check, is_wrong))
        site = self.sites[agent]
        checks = [request.check for request in requests]
        assert not any(map(site.gate.look, checks))
        steps = Steps(site.asker, site.gate.judge(checks))
        flight = Flight(site, steps, requests, ever_blocked=set(self.once_blocked))
        self.flights.append(flight)
        self._note_claims(flight)

    @precondition(lambda self: self.sessions)
    @rule(agent=st.integers(0, AGENTS - 1), which=st.integers(0))
    def return_with_session(self, agent: int, which: int) -> None:
        token, session = self.sessions[which % len(self.sessions)]
        check = bringing(b"", "session", session=session)
        outcome = self.sites[agent].outcome(check)
        if outcome is Outcome.REVOKED:
            assert token.hits(self.cuts, surely=False)
        else:
            assert outcome is Outcome.SESSION
            assert not token.hits(self.cuts, surely=True)

    # What becomes of a batch.

    def _flight(self, which: int) -> Flight:
        return self.flights[which % len(self.flights)]

    @precondition(lambda self: self.flights)
    @rule(which=st.integers(0))
    def redis_runs_one_command(self, which: int) -> None:
        """Run the next command of a batch; those of others come in between."""
        flight = self._flight(which)
        if flight.steps.asked < len(flight.steps.questions):
            self._run(flight, lambda: flight.steps.ask(1))

    @precondition(lambda self: self.flights)
    @rule(which=st.integers(0))
    def redis_runs_and_the_gate_hears(self, which: int) -> None:
        flight = self._flight(which)
        self._run_rest(flight)
        self._hear(flight)

    @precondition(lambda self: self.flights)
    @rule(which=st.integers(0))
    def redis_runs(self, which: int) -> None:
        """Run all of it; the replies are still on their way."""
        self._run_rest(self._flight(which))

    @precondition(lambda self: self.flights)
    @rule(which=st.integers(0))
    def replies_are_lost(self, which: int) -> None:
        """Ask once more, with the same questions. What opens is never asked twice."""
        flight = self._flight(which)
        if not flight.is_opening:
            self._run(flight, flight.steps.again)

    @precondition(lambda self: self.flights)
    @rule(which=st.integers(0))
    def the_deadline_passes(self, which: int) -> None:
        """Tell all of the batch that the store is unavailable; nobody asks again."""
        flight = self._flight(which)
        self.flights.remove(flight)
        flight.steps.give_up()

    def _run_rest(self, flight: Flight) -> None:
        if flight.steps.asked < len(flight.steps.questions):
            self._run(flight, flight.steps.ask)

    def _run(self, flight: Flight, ask: Callable[[], None]) -> None:
        flight.granted.append(set(self.granted))
        ask()
        flight.cuts, flight.blocked = dict(self.cuts), set(self.blocked)
        for request in flight.requests:
            token = request.token
            value = self.client.get(b"kat:t:" + digest_of(token.secret))
            if value and value.startswith(b"consumed ") and not token.consumer:
                token.consumer = value.split(b" ")[1]
                token.fence_ms = flight.site.asker.fence.since_ms

    def _hear(self, flight: Flight) -> None:
        flight.steps.hear()
        judgement = flight.steps.judgement
        if judgement is None:
            self._note_claims(flight)
            return
        self.flights.remove(flight)
        if flight.is_opening:
            for request, decision in zip(flight.requests, judgement.decisions, strict=True):
                self._decided(flight, request, decision)
            return
        opening = {at for at, _ in judgement.openings}
        waiting = opening | set(judgement.cleared)
        for at, request in enumerate(flight.requests):
            if at not in waiting:
                self._decided(flight, request, judgement.decisions[at])
        if opening:
            self._open(flight, judgement, sorted(opening))
        if judgement.cleared:
            self._consume(flight, judgement)

    def _consume(self, flight: Flight, judgement: Judgement) -> None:
        """Go on with the tokens that had to wait, apart from the others, as the agent does."""
        places = judgement.cleared
        steps = Steps(flight.site.asker, flight.site.gate.consume(judgement, places))
        later = Flight(flight.site, steps, [flight.requests[at] for at in places])
        later.ever_blocked = set(flight.ever_blocked)
        later.granted = list(flight.granted)
        self._note_claims(later)
        self.flights.append(later)

    def _open(self, flight: Flight, judgement: Judgement, places: list[int]) -> None:
        steps = flight.site.opening(judgement)
        requests = [flight.requests[at] for at in places]
        self.flights.append(Flight(flight.site, steps, requests, is_opening=True))

    def _note_claims(self, flight: Flight) -> None:
        """Read from the questions which claim each request has."""
        for question in flight.steps.questions:
            keys = question.head[3:] if len(question.tail) > 1 else ()
            for at, key in enumerate(keys):
                claim, _, src = question.tail[1 + 8 * at : 4 + 8 * at]
                assert isinstance(claim, bytes)
                # A token may be there twice; only whose address is granted may be asked about.
                request = next(
                    request
                    for request in flight.requests
                    if not request.claim
                    and key == b"kat:t:" + digest_of(request.token.secret)
                    and src == candidates(request.check.source)
                )
                request.claim = claim

    # What must hold.

    def _decided(self, flight: Flight, request: Request, decision: Decision) -> None:
        outcome, token = decision.outcome, request.token
        has_consumed = bool(request.claim) and token.consumer == request.claim
        is_blocked = request.check.source in flight.blocked and not flight.is_opening
        if outcome is Outcome.OK:
            self._accepted(flight, request, decision)
            assert has_consumed
            assert not is_blocked
        elif outcome is Outcome.BLOCKED:
            assert request.check.source in flight.ever_blocked
        elif outcome is Outcome.REVOKED:
            assert not is_blocked
            is_named = f"kid:{kid_of(token.secret).decode()}" in flight.cuts
            assert (has_consumed and token.hits(flight.cuts, surely=False)) or (
                token.is_gone and is_named
            )
        elif outcome is Outcome.REPLAYED:
            assert token.consumer
            assert not has_consumed
        elif outcome is Outcome.UNKNOWN:
            assert token.is_gone
        elif outcome is Outcome.FENCED:
            assert flight.site.asker.fence.since_ms >= token.issued_ms[0] - ROUNDING_MS
            assert not has_consumed
        elif outcome is Outcome.NO_GRANT:
            assert token.acl == "ip-token"
            assert any(request.check.source not in granted for granted in flight.granted)
            assert not has_consumed
        else:
            assert request.is_wrong
            assert outcome is WRONG[token.bound][2]
            assert not has_consumed

    def _accepted(self, flight: Flight, request: Request, decision: Decision) -> None:
        token = request.token
        token.accepted += 1
        assert not request.is_wrong
        assert not token.hits(flight.cuts, surely=True)
        assert token.fence_ms <= token.issued_ms[1] + ROUNDING_MS
        assert decision.user == token.user.encode()
        if token.acl == "ip-token":
            assert any(request.check.source in granted for granted in flight.granted)
        if flight.is_opening:
            self.sessions.append((token, decision.session))

    @invariant()
    def no_token_is_accepted_twice(self) -> None:
        assert all(token.accepted <= 1 for token in self.tokens)

    def teardown(self) -> None:
        """See every batch home: each ends, and nobody is left without an answer."""
        while self.flights:
            flight = self.flights[0]
            self._run_rest(flight)
            self._hear(flight)
        self.no_token_is_accepted_twice()


def test_single_use(client: redis.Redis) -> None:
    """No token is ever accepted twice; no honest first attempt is refused without its reason."""
    run_state_machine_as_test(
        lambda: Machine(client),
        settings=settings(
            max_examples=150,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
