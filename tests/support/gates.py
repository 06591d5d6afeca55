"""A gate before a real Redis: who issues, asks, grants, revokes and blocks, in one line each."""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import redis

from tests.support.asking import Asker, Steps, judged
from tests.support.records import GOOD
from tokens.audit import MAX_ENTRIES, Journal
from tokens.check import Check, Decision
from tokens.outcome import Outcome
from tokens.policy.gate import Gate, Judgement
from tokens.policy.redeem import MAX_TOKENS_PER_CALL
from tokens.policy.rule import AclRule, Mode
from tokens.record import Keys
from tokens.token import mint

CLIENT = bytes((192, 0, 2, 7))
ELSEWHERE = bytes((198, 51, 100, 1))
DEADLINE_MS = 60_000
"""Far more than an agent has: no test depends on how fast this machine is."""

CHECK = Check(
    acl=b"wiki",
    token=b"",
    source=CLIENT,
    host=b"wiki.example",
    method=b"GET",
    path=b"/x/y",
    nonce=b"",
    room_bytes=8000,
    via=b"query",
)
RULES = {mode.value.replace("+", "-"): AclRule(mode) for mode in Mode} | {"wiki": AclRule()}
"""An ACL for each mode, nearly of its name; and `wiki`, which is strict."""


def digest_of(secret: bytes) -> bytes:
    return sha256(secret).hexdigest().encode()


def kid_of(token: bytes) -> bytes:
    return digest_of(token)[:12]


class Site:
    """One gate, and what others do to its Redis. Several sites may share a server."""

    def __init__(
        self,
        client: redis.Redis,
        rules: Mapping[str, AclRule] = RULES,
        *,
        keys_per_call: int = MAX_TOKENS_PER_CALL,
        since_ms: int = 0,
    ) -> None:
        self.client = client
        self.asker = Asker(client, since_ms=since_ms)
        self.keys = Keys()
        self.told: list[dict[str, Any]] = []
        journal = Journal(
            self.keys.audit, MAX_ENTRIES, lambda told: self.told.extend(json.loads(told))
        )
        self.gate = Gate(rules, self.keys, DEADLINE_MS, journal, keys_per_call)

    # What others do.

    def now_ms(self) -> int:
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds // 1000

    def issue(self, raw: bytes | None = None, *, left_ms: int = 60_000, **fields: Any) -> bytes:
        """Issue a token of 60 s, for all ACLs unless said otherwise, with so much left of it."""
        token = mint().encode()
        if raw is None:
            raw = json.dumps(json.loads(GOOD) | {"acl": list(RULES)} | fields).encode()
        self.client.set(self.keys.token(digest_of(token)), raw, px=left_ms)
        return token

    def is_consumed(self, token: bytes) -> bool:
        value = self.client.get(self.keys.token(digest_of(token)))
        assert value, "the token is gone"
        return value.startswith(b"consumed ")

    def grant(self, acl: str, member: str = "192.0.2.7", *, left_ms: int = 60_000) -> None:
        self.client.zadd(self.keys.grants(acl.encode()), {member: self.now_ms() + left_ms})

    def is_granted(self, acl: str, member: str = "192.0.2.7") -> bool:
        return self.client.zscore(self.keys.grants(acl.encode()), member) is not None

    def revoke(self, field: str) -> None:
        """Cut as the contract lets any program do it: what was issued until now."""
        self.change(field, self.now_ms())

    def block(self, member: str, *, left_ms: int = 60_000) -> None:
        self.change(f"addr:{member}", self.now_ms() + left_ms)

    def unblock(self, member: str) -> None:
        self.change(f"addr:{member}", None)

    def change(self, field: str, value: int | str | None) -> None:
        with self.client.pipeline() as pipeline:
            if value is None:
                pipeline.hdel(self.keys.cut, field)
            else:
                pipeline.hset(self.keys.cut, field, value)
            pipeline.hincrby(self.keys.cut, "v", 1)
            pipeline.execute()

    # What visitors do.

    def visit(self, *checks: Check) -> list[Decision]:
        """Bring checks to the gate as an agent does; return the answers to all, in order."""
        refusals = [self.gate.look(check) for check in checks]
        asked = [check for check, refusal in zip(checks, refusals, strict=True) if not refusal]
        decisions = iter(self._answers(asked))
        return [Decision(refusal) if refusal else next(decisions) for refusal in refusals]

    def _answers(self, checks: list[Check]) -> list[Decision]:
        if not checks:
            return []
        judgement = self.asker.run(judged(self.gate, checks))
        return self.opened(judgement).decisions

    def opened(self, judgement: Judgement) -> Judgement:
        """Open what a judgement opens; return it with the answers that hold."""
        openings = judgement.openings
        if openings:
            opened = self.asker.run(self.gate.open([opening for _, opening in openings], 0.0))
            judgement.faults |= opened.faults
            for (at, _), decision in zip(openings, opened.decisions, strict=True):
                judgement.decisions[at] = decision
        return judgement

    def outcome(self, check: Check) -> Outcome:
        (decision,) = self.visit(check)
        return decision.outcome

    def judging(self, *checks: Check) -> Steps:
        """Begin to judge, step by step."""
        assert [self.gate.look(check) for check in checks] == [None] * len(checks)
        return Steps(self.asker, judged(self.gate, checks))

    def opening(self, judgement: Judgement | None) -> Steps:
        """Begin to open what a judgement opens, step by step."""
        assert judgement is not None
        openings = [opening for _, opening in judgement.openings]
        return Steps(self.asker, self.gate.open(openings, 0.0))

    def log_in(self, acl: str = "session", token: bytes | None = None, **changes: Any) -> bytes:
        """Open a session with a token; return its id."""
        (decision,) = self.visit(bringing(token or self.issue(), acl, **changes))
        assert decision.session, decision
        return decision.session

    def events(self) -> list[dict[str, Any]]:
        """Return what the audit was told since the last time."""
        self.gate.take_notes(0.0)
        told = self.told[:]
        self.told.clear()
        return told


def bringing(token: bytes, acl: str = "wiki", **changes: Any) -> Check:
    """Return the request of a visitor with a token."""
    return replace(CHECK, acl=acl.encode(), token=token, **changes)


def returning(session: bytes, acl: str = "session", **changes: Any) -> Check:
    """Return the request of a visitor with a session."""
    return replace(CHECK, acl=acl.encode(), session=session, **changes)


def coming(acl: str, **changes: Any) -> Check:
    """Return the request of a visitor with nothing but an address."""
    return replace(CHECK, acl=acl.encode(), **changes)
