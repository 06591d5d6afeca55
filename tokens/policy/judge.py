"""What the proofs of a request are worth, once Redis has shown them: a yes, or why not. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, TypeVar

from tokens.address import candidates
from tokens.audit import Journal
from tokens.check import AFTER_GRANT, GRANT, LOGOUT, Check, Decision
from tokens.outcome import Outcome
from tokens.policy.cut import Cut
from tokens.policy.opening import Consumed, Opening, open_address, open_session
from tokens.policy.redeem import Answer, ReplyMismatch
from tokens.policy.rule import AclRule, Mode
from tokens.policy.session import judge_session, sid_of
from tokens.policy.sessionrecord import Session, read_session
from tokens.question import Question, Reply, without_arguments
from tokens.record import BadRecord, Keys, read_identity
from tokens.token import digest, kid

_OK: Final = Outcome.OK
_SESSION: Final = Outcome.SESSION

_REFUSALS: Final = {
    outcome.reason: outcome
    for outcome in Outcome
    if outcome.verdict == b"denied"
    and outcome not in {Outcome.MALFORMED, Outcome.REVOKED, Outcome.BLOCKED}
}
"""What redeem.lua may answer besides the moment of issue and `store_error`."""

T = TypeVar("T")


class Found:
    """What Redis knows about each check of a batch, in parallel lists. None: nothing, not asked."""

    __slots__ = ("_common", "answers", "blocked", "checks", "digests", "ends", "raws")

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = checks
        needs = {check.needs for check in checks}
        self._common = needs.pop() if len(needs) == 1 else None
        """What each of them needs, if that is the same."""
        self.answers: list[Answer | None] = [None] * len(checks)
        self.raws: list[Reply] = [None] * len(checks)
        self.digests: list[bytes] = [b""] * len(checks)
        self.ends: list[float | Exception] = [0.0] * len(checks)
        self.blocked: set[int] = set()
        """Whose tokens were left whole because of a block, which may end at any moment."""

    def which(self, needs: int, *, without: frozenset[int] = frozenset()) -> Sequence[int]:
        """Return the places of the checks that need one of these."""
        if self._common is not None and not without:
            return range(len(self.checks) if self._common & needs else 0)
        return [
            at for at, check in enumerate(self.checks) if check.needs & needs and at not in without
        ]

    def only(self, places: Sequence[int]) -> "Found":
        """Return what is known about these checks."""
        part = Found([self.checks[at] for at in places])
        part.answers = [self.answers[at] for at in places]
        part.raws = [self.raws[at] for at in places]
        part.digests = [self.digests[at] for at in places]
        part.ends = [self.ends[at] for at in places]
        return part

    def fill(self, column: list[T], places: Sequence[int], values: Sequence[T]) -> None:
        if len(places) == len(column):
            column[:] = values
            return
        for at, value in zip(places, values, strict=True):
            column[at] = value


# A session is read on every request of a page, and its bytes are the same each time. What is
# remembered is what these bytes mean, never whether they are still in Redis.
class _Hit:
    """A session, and the yes that it is worth if it stands."""

    __slots__ = ("decision", "session", "sid", "size_bytes")

    def __init__(self, raw: bytes) -> None:
        """Read it strictly. Raises BadRecord."""
        session = read_session(raw)
        self.session = session
        self.sid = session.sid
        self.size_bytes = len(session.user) + len(session.groups)
        self.decision = Decision(_SESSION, session.kid, session.user, session.groups)


_read_hit: Final = lru_cache(4096)(_Hit)


class Judge:
    """Decides by what was found, by Redis's clock, and by what has been revoked."""

    def __init__(self, rules: Mapping[bytes, AclRule], keys: Keys, journal: Journal) -> None:
        self._rules = rules
        self._keys = keys
        self._journal = journal
        self.cut = Cut()
        self.now_ms = 0
        self.notes: list[Question] = []
        """Writes that nobody waits for."""

    def decide(self, found: Found, at: int, faults: set[str]) -> Decision:
        """Take the first proof that says yes; without one, the first that says why not."""
        check = found.checks[at]
        if at in found.blocked or (self.cut.has_blocks and self.is_blocked(check)):
            return self.refuse(check, Decision(Outcome.BLOCKED))
        refusal = None
        if answer := found.answers[at]:
            refusal = self._decide_token(check, answer, faults)
            if refusal.outcome is _OK:
                return refusal
        if (raw := found.raws[at]) is not None:
            decision = self._decide_session(found, at, raw, faults)
            if decision.outcome is _SESSION:
                return decision
            refusal = refusal or decision
        if check.needs & GRANT:
            end = found.ends[at]
            if isinstance(end, Exception):
                return self._unreadable(check, end, faults)
            if end > self.now_ms and not check.needs & AFTER_GRANT:
                return Decision(Outcome.GRANT)
        if refusal is None and check.refusal is Outcome.WRONG_SRC:  # of a real token, perhaps
            return self.refuse(check, Decision(check.refusal, kid(digest(check.token))))
        return refusal or Decision(check.refusal)

    def _decide_token(self, check: Check, answer: Answer, faults: set[str]) -> Decision:
        kid, code, detail = answer
        if type(detail) is not bytes:
            raise ReplyMismatch(f"no detail for kid {kid.decode()}")
        if type(code) is int:
            return self._decide_consumed(check, kid, code, detail)
        if code == b"store_error":
            faults.add(detail.decode("ascii", "replace"))
            return Decision(Outcome.STORE_UNAVAILABLE, kid)
        if code == b"unknown" and self.cut.names_token(kid):
            return self.refuse(check, Decision(Outcome.REVOKED, kid))
        if code == b"replayed":
            self._journal.add(b"replayed", check, kid, b"", detail)
            return Decision(Outcome.REPLAYED, kid)
        if type(code) is not bytes or code not in _REFUSALS:
            raise ReplyMismatch(f"a code that redeem.lua does not have for kid {kid.decode()}")
        return self.refuse(check, Decision(_REFUSALS[code], kid))

    def _decide_consumed(self, check: Check, kid: bytes, issued_ms: int, raw: bytes) -> Decision:
        """Say yes, if the record reads strictly and its user stands. Redis judged all the rest."""
        try:
            user, groups = read_identity(raw)
        except BadRecord:
            return self.refuse(check, Decision(Outcome.BAD_RECORD, kid))
        if self.cut.is_revoked(check.acl, kid, user, groups, issued_ms):
            return self.refuse(check, Decision(Outcome.REVOKED, kid, user))
        self._journal.add(b"consumed", check, kid, user)
        return Decision(_OK, kid, user, groups)

    def _decide_session(self, found: Found, at: int, raw: Reply, faults: set[str]) -> Decision:
        check, digest = found.checks[at], found.digests[at]
        if isinstance(raw, Exception):
            return self._unreadable(check, raw, faults)
        if type(raw) is not bytes:
            raise ReplyMismatch("no record of a session")
        try:
            hit = _read_hit(raw)
        except BadRecord:
            return self.refuse(check, Decision(Outcome.BAD_RECORD))
        # Its own name, so that no visitor is ever given the session of a neighbour.
        session = hit.session
        if hit.sid != sid_of(digest):
            if hit.sid in map(sid_of, found.digests):
                raise ReplyMismatch(f"another session than {sid_of(digest).decode()}")
            return self.refuse(check, Decision(Outcome.BAD_RECORD))  # put there by somebody
        if check.needs & LOGOUT:
            return self._decide_logout(check, session, digest)
        outcome = judge_session(session, check, self._rules[check.acl], self.now_ms)
        if outcome is _SESSION:
            # Whether there are cuts is looked at here as well, which spares most hits the call.
            if not self.cut.is_empty and self.cut.is_revoked(
                check.acl, session.kid, session.user, session.groups, session.issued_ms
            ):
                outcome = Outcome.REVOKED
            elif hit.size_bytes > check.room_bytes:
                outcome = Outcome.BAD_RECORD  # no answer could say whose it is
            else:
                return hit.decision
        return self.refuse(check, replace(hit.decision, outcome=outcome))

    def _decide_logout(self, check: Check, session: Session, digest: bytes) -> Decision:
        """Take a session that is gone already off its user's list, too."""
        index = self._keys.sub(session.user)
        self.notes.append(Question(index, (b"ZREM", index, b"s:" + digest)))
        self._journal.add(b"logout", check, session.kid, session.user, session.sid)
        return Decision(Outcome.LOGGED_OUT, session.kid, session.user)

    def _unreadable(self, check: Check, fault: Exception, faults: set[str]) -> Decision:
        """Judge an error in place of a session or a grant: one key's own, or the store's."""
        if str(fault).startswith("WRONGTYPE"):
            return self.refuse(check, Decision(Outcome.BAD_RECORD))
        faults.add(without_arguments(fault))
        return Decision(Outcome.STORE_UNAVAILABLE)

    def refuse(self, check: Check, decision: Decision) -> Decision:
        """Note a refusal for the audit, but for what is nobody's mistake: a session's end."""
        if decision.outcome is not Outcome.SESSION_EXPIRED:
            reason = decision.outcome.reason
            self._journal.add(b"refused", check, decision.kid, decision.user, reason)
        return decision

    def opening(self, found: Found, at: int, decision: Decision) -> Opening | None:
        """Say what a consumed token opens."""
        check, answer = found.checks[at], found.answers[at]
        rule = self._rules[check.acl]
        if rule.mode not in {Mode.SESSION, Mode.GRANT}:
            return None
        assert answer is not None
        _, issued_ms, raw = answer
        assert isinstance(issued_ms, int)
        assert isinstance(raw, bytes)
        consumed = Consumed(check, rule, decision, issued_ms, raw, self.now_ms)
        if rule.mode is Mode.GRANT:
            return open_address(consumed, self._keys)
        return open_session(consumed, self._keys)

    def is_blocked(self, check: Check) -> bool:
        return self.blocked_until_ms(check) > self.now_ms

    def blocked_until_ms(self, check: Check) -> float:
        return self.cut.blocked_until(candidates(check.source))
