"""What Redis is asked about tokens, sessions and grants, and how its replies are read. Pure.

Each class takes the checks that bring its kind of proof, has the `questions` to ask, and reads
the replies to them: one result per check, in order. Raises ReplyMismatch when a reply cannot be the
one to its question; a reply that is an error is a value, for the gate to judge.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tokens.address import candidates
from tokens.check import LOGOUT, Check
from tokens.policy.redeem import Answer, Call, Redeemer, ReplyMismatch, read_answers
from tokens.policy.script import load_script
from tokens.policy.session import SECRET_CHARS, idle_ms, session_digest
from tokens.question import Question, Reply, digits
from tokens.record import Keys

SCRIPT, SHA = load_script("touch.lua")

NO_GRANT: Final = 0


class Tokens:
    """Redeems tokens: consumed, or refused for a reason."""

    def __init__(self, checks: Sequence[Check], redeemer: Redeemer) -> None:
        self._calls: list[Call] = redeemer.calls(checks)
        self.questions = [call.question for call in self._calls]

    def read(self, replies: Sequence[Reply]) -> list[Answer]:
        answers: list[Answer] = []
        for call, reply in zip(self._calls, replies, strict=True):
            answers += read_answers(call, reply)
        return answers


class Sessions:
    """Looks sessions up. One that may lie idle only so long is kept alive by the same command."""

    def __init__(
        self,
        checks: Sequence[Check],
        idle_ms_of: Mapping[bytes, int | None],
        keys: Keys,
        per_call: int,
    ) -> None:
        self.digests = [session_digest(check.session) for check in checks]
        prefix = keys.session(b"")
        all_names = [prefix + digest for digest in self.digests]
        self.questions: list[Question] = []
        self._places: list[list[int]] = []
        """For each question, which checks its reply is about."""
        plain: list[int] = []
        kept: list[int] = []
        lasting: list[bytes] = []
        for place, check in enumerate(checks):
            if check.needs & LOGOUT:
                key = all_names[place]
                self._ask([place], Question(key, (b"GETDEL", key)))
                continue
            lasts_ms = idle_ms_of[check.acl]
            if len(check.session) != SECRET_CHARS:  # it says an idle time of its own, as few do
                lasts_ms = idle_ms(check.session, lasts_ms)
            if lasts_ms is None:
                plain.append(place)
            else:
                kept.append(place)
                lasting.append(digits(lasts_ms))
        for start in range(0, len(plain), per_call):
            places = plain[start : start + per_call]
            names = [all_names[place] for place in places]
            self._ask(places, Question(names[0], (b"MGET", *names)))
        for start in range(0, len(kept), per_call):
            places = kept[start : start + per_call]
            names = [all_names[place] for place in places]
            touch = (b"EVALSHA", SHA, b"%d" % len(names), *names)
            self._ask(places, Question(names[0], touch, tuple(lasting[start : start + per_call])))

    def _ask(self, places: list[int], question: Question) -> None:
        self.questions.append(question)
        self._places.append(places)

    def read(self, replies: Sequence[Reply]) -> list[Reply]:
        """Return the record of each, or None, or the error that stands in its place."""
        if len(self.questions) == 1 and self.questions[0].head[0] != b"GETDEL":
            return _each(replies[0], len(self.digests))
        found: list[Reply] = [None] * len(self.digests)
        for question, places, reply in zip(self.questions, self._places, replies, strict=True):
            values = [reply] if question.head[0] == b"GETDEL" else _each(reply, len(places))
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found


class Grants:
    """Looks up until when the addresses of clients are granted: one ZMSCORE per ACL."""

    def __init__(self, checks: Sequence[Check], keys: Keys) -> None:
        self._names = [(check.acl, candidates(check.source).split(b" ")) for check in checks]
        self._members: dict[bytes, list[bytes]] = {}
        for acl, names in self._names:
            self._members.setdefault(acl, []).extend(names)
        lengths: set[int] = set()
        for members in self._members.values():
            # Scores do not say whose they are. No two questions of a batch ask for equally many, so
            # that a reply which fits is the right one.
            while len(members) in lengths:
                members.append(members[0])
            lengths.add(len(members))
        self.questions = [
            Question(keys.grants(acl), (b"ZMSCORE", keys.grants(acl), *members))
            for acl, members in self._members.items()
        ]

    def read(self, replies: Sequence[Reply]) -> list[float | Exception]:
        """Return for each the ms at which its longest grant ends, or an error in its place."""
        ends: dict[bytes, dict[bytes, float] | Exception] = {}
        for (acl, members), reply in zip(self._members.items(), replies, strict=True):
            if isinstance(reply, Exception):
                ends[acl] = reply
            else:
                ends[acl] = dict(zip(members, map(_score, _each(reply, len(members))), strict=True))
        return [_last(ends[acl], names) for acl, names in self._names]


def _last(ends: dict[bytes, float] | Exception, names: list[bytes]) -> float | Exception:
    return ends if isinstance(ends, Exception) else max(ends[name] for name in names)


def _each(reply: Reply, number: int) -> list[Reply]:
    if isinstance(reply, Exception):
        return [reply] * number
    if not isinstance(reply, list) or len(reply) != number:
        raise ReplyMismatch(f"no list of {number} values")
    return reply


def _score(reply: Reply) -> float:
    if reply is None:
        return NO_GRANT
    if not isinstance(reply, bytes):
        raise ReplyMismatch("no score")
    try:
        return float(reply)
    except ValueError:
        raise ReplyMismatch("no score") from None
