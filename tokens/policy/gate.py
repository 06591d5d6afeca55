r"""The policy: what is asked, what Redis must be asked, what the answer is. No I/O.

    look      one check: refused without Redis, or what it needs there
    judge     checks --> questions --> replies --> decisions, what they open, what had to wait
    consume   tokens that had to wait --> questions --> replies --> decisions, what they open
    open      what they open --> questions --> replies --> decisions

All but `look` are generators, one for a whole batch: they yield what to ask, are sent the replies
in the same order, and return. What each mode wants stands in looks.py, what a proof is worth in
judge.py.

Deny unless a positive yes. There are three: Redis says that it consumed this very token now, and
its record reads strictly; a session stands; a grant stands.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Final

from tokens.audit import Journal
from tokens.check import AFTER_GRANT, GRANT, LOGOUT, SESSION, TOKEN, Check, Decision
from tokens.outcome import Outcome
from tokens.policy import cut, grant, proofs, redeem
from tokens.policy.judge import Found, Judge
from tokens.policy.looks import look_logout, look_of
from tokens.policy.opening import Opening
from tokens.policy.proofs import Grants, Sessions, Tokens
from tokens.policy.redeem import MAX_TOKENS_PER_CALL, Redeemer, ReplyMismatch
from tokens.policy.rule import AclRule
from tokens.question import Question, Reply, without_arguments
from tokens.record import Keys

SCRIPTS = (redeem.SCRIPT, cut.SCRIPT, grant.SCRIPT, proofs.SCRIPT)
"""What Redis must know before it is asked."""


class Unanswered(Exception):
    """Redis answered with an error where nothing can be decided without an answer."""


class Judgement:
    """One decision per check; what some of them open first; error replies met on the way."""

    __slots__ = ("cleared", "decisions", "faults", "found", "notes_lost", "openings", "undo")

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.openings: list[tuple[int, Opening]] = []
        """By the place of a decision, which holds only when `open` has returned one like it."""
        self.found: Found | None = None
        self.cleared: list[int] = []
        """Whose tokens may be consumed now that the first replies are in: for `consume`."""
        self.faults: set[str] = set()
        self.undo: list[Question] = []
        """What was opened and must not stand, and could not be ended."""
        self.notes_lost = 0
        """Of the writes that nobody waits for, and that went with those of the openings."""


_Silent = Generator[list[Question], list[Reply], None]
_OK: Final = Outcome.OK
_NONE_YET: Final = Decision(Outcome.STORE_UNAVAILABLE)
"""Stands for a decision that is still to come: no yes, whatever happens."""

Asking = Generator[list[Question], list[Reply], Judgement]
"""Yields questions, is sent the replies to them, returns what came of it."""


class Gate:
    """Judges checks for the ACLs it knows."""

    def __init__(
        self,
        rules: Mapping[str, AclRule],
        keys: Keys,
        deadline_ms: int,
        journal: Journal,
        keys_per_call: int = MAX_TOKENS_PER_CALL,
    ) -> None:
        """Take `keys_per_call` 1 for a cluster, where the keys of a batch live apart."""
        self._rules = {acl.encode(): rule for acl, rule in rules.items()}
        self._idle_ms = {acl: rule.session_idle_ms for acl, rule in self._rules.items()}
        self._looks = {acl: look_of(rule) for acl, rule in self._rules.items()}
        self._keys = keys
        self._redeemer = Redeemer(keys, deadline_ms, keys_per_call)
        self._journal = journal
        self._keys_per_call = keys_per_call
        self._judge = Judge(self._rules, keys, journal)

    def look(self, check: Check) -> Outcome | None:
        """Return the refusal that needs no Redis, or None: then `check.needs` says what does."""
        look = self._looks.get(check.acl)
        return Outcome.UNKNOWN_ACL if look is None else look(check)

    def look_logout(self, check: Check) -> Outcome | None:
        """Look at a visitor who wants to leave."""
        return look_logout(check) if check.acl in self._rules else Outcome.UNKNOWN_ACL

    def hear_late(self, replies: Sequence[Reply]) -> None:
        """Take the revocations out of replies that nobody waits for any more.

        A long list of them may take longer than the deadline. Without this, each batch would ask
        for all of it anew, and none would ever be answered.
        """
        with suppress(ReplyMismatch):
            _, self._judge.cut = cut.read(replies[-1], self._judge.cut)

    @property
    def notes_waiting(self) -> int:
        """How much `take_notes` has to take."""
        return len(self._judge.notes) + self._journal.waiting

    def take_notes(self, now_s: float) -> list[Question]:
        """Take what is to be written and nobody waits for: the audit of what was judged."""
        notes, self._judge.notes = self._judge.notes, []
        entry = self._journal.take(now_s)
        return [*notes, entry] if entry else notes

    def judge(self, checks: Sequence[Check]) -> Asking:
        """Judge a batch. Raises Unanswered, ReplyMismatch: then nothing may be believed.

        A token that had to wait, and need not any more, is `cleared`; its decision is none yet.
        """
        found = Found(checks)
        held = self._held(checks)
        yield from self._prove(found, found.which(TOKEN, without=frozenset(held)))
        cleared = [at for at in held if self._is_cleared(found, at)]
        judgement = self._decide(found, cleared)
        if cleared:
            judgement.found = found
            judgement.cleared = cleared
        return judgement

    def consume(self, judgement: Judgement, places: Sequence[int]) -> Asking:
        """Go on with cleared tokens, at these places: one decision for each of them."""
        found = judgement.found
        assert found is not None
        tokens = Tokens([found.checks[at] for at in places], self._redeemer)
        replies = yield from self._ask(tokens.questions)
        found.fill(found.answers, places, tokens.read(replies))
        found = found.only(places)
        return self._decide(found, ())

    def _decide(self, found: Found, cleared: Sequence[int]) -> Judgement:
        """Decide all but those that are cleared, whose token nobody has looked at."""
        judgement = Judgement()
        waiting = frozenset(cleared)
        for at in range(len(found.checks)):
            if at in waiting:
                judgement.decisions.append(_NONE_YET)
                continue
            decision = self._judge.decide(found, at, judgement.faults)
            judgement.decisions.append(decision)
            if decision.outcome is _OK and (opening := self._judge.opening(found, at, decision)):
                judgement.openings.append((at, opening))
        return judgement

    def open(self, openings: Sequence[Opening], now_s: float) -> Asking:
        """Write what is opened, and its audit, in one go. Never to be asked twice."""
        questions = []
        for opening in openings:
            questions += opening.questions
            check, decision = opening.check, opening.decision
            self._journal.add(opening.what, check, decision.kid, decision.user, opening.sid)
        questions += self.take_notes(now_s)
        if self._keys_per_call > 1:
            replies = yield from self._ask(questions)
        else:
            # The nodes of a cluster keep no order among each other. What was revoked is looked at
            # after the writes: a revocation finds them, or we find the revocation.
            replies = yield questions
            yield from self._ask([])
        answers = iter(replies)
        judgement = Judgement()
        undone: list[Question] = []
        for opening in openings:
            check, decision = opening.check, opening.decision
            said = list(islice(answers, len(opening.questions)))
            judgement.faults |= {
                without_arguments(reply) for reply in said if isinstance(reply, Exception)
            }
            if not opening.is_open(said):
                decision = Decision(Outcome.STORE_UNAVAILABLE, decision.kid)
                undone.append(opening.undo)  # half of it may have been written
            elif self._judge.cut.is_revoked(
                check.acl, decision.kid, decision.user, decision.groups, opening.issued_ms
            ):
                refused = Decision(Outcome.REVOKED, decision.kid, decision.user)
                decision = self._judge.refuse(check, refused)
                undone.append(opening.undo)
            judgement.decisions.append(decision)
        # What is left are the notes: no fault of a Redis that judges tokens as well as ever.
        judgement.notes_lost = sum(isinstance(reply, Exception) for reply in answers)
        if undone:
            said = yield undone
            failed = zip(undone, said, strict=True)
            judgement.undo = [undo for undo, reply in failed if isinstance(reply, Exception)]
        return judgement

    # What is asked.

    def _held(self, checks: Sequence[Check]) -> list[int]:
        """Say whose tokens must wait for the first replies: for a grant, or for a block's end."""
        has_blocks = self._judge.cut.has_blocks
        return [
            at
            for at, check in enumerate(checks)
            if check.needs & AFTER_GRANT
            or (has_blocks and check.needs & TOKEN and self._judge.blocked_until_ms(check))
        ]

    def _is_cleared(self, found: Found, at: int) -> bool:
        """Tell whether a token that had to wait may be consumed."""
        check, end = found.checks[at], found.ends[at]
        if self._judge.cut.has_blocks and self._judge.is_blocked(check):
            found.blocked.add(at)
            return False
        return not check.needs & AFTER_GRANT or (type(end) is float and end > self._judge.now_ms)

    def _prove(self, found: Found, at_tokens: Sequence[int]) -> _Silent:
        """Ask about these tokens, all sessions and all grants of a batch."""
        checks, keys = found.checks, self._keys
        at_sessions, at_grants = found.which(SESSION | LOGOUT), found.which(GRANT)
        tokens = Tokens([checks[at] for at in at_tokens], self._redeemer)
        sessions = Sessions(
            [checks[at] for at in at_sessions], self._idle_ms, keys, self._keys_per_call
        )
        grants = Grants([checks[at] for at in at_grants], keys)
        asked = (tokens.questions, sessions.questions, grants.questions)
        replies = iter((yield from self._ask(list(chain(*asked)))))
        of_tokens, of_sessions, of_grants = ([*islice(replies, len(part))] for part in asked)
        found.fill(found.answers, at_tokens, tokens.read(of_tokens))
        found.fill(found.digests, at_sessions, sessions.digests)
        found.fill(found.raws, at_sessions, sessions.read(of_sessions))
        found.fill(found.ends, at_grants, grants.read(of_grants))

    def _ask(
        self, questions: list[Question]
    ) -> Generator[list[Question], list[Reply], list[Reply]]:
        """Ask, and look behind it what time it is and what has been revoked."""
        judge = self._judge
        copy = judge.cut  # another batch may bring a newer one before this one's replies are in
        replies = yield [*questions, cut.ask(self._keys.cut, copy)]
        last = replies.pop()
        if isinstance(last, Exception):
            raise Unanswered(str(last))
        judge.now_ms, judge.cut = cut.read(last, copy)
        return replies
