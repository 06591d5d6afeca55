"""Who comes: one header line per request, and what Redis must know before and afterwards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spoa.bench.haproxy.gateway import COOKIE, Subject
from spoa.bench.load.corpus import Issued, issue, mint, reap
from spoa.bench.load.holdings import end_sessions, open_sessions

_GUESTS: Final = 20_000
_SESSIONS: Final = 2_000
"""As in the scenario `session`: fewer than a worker remembers the meaning of."""


@dataclass(frozen=True, slots=True)
class Visitors:
    """The tokens of a round; each brings one request, or comes again when all have come."""

    subject: Subject
    redis_socket: str
    tokens: Sequence[Issued]

    def lines(self) -> list[bytes]:
        """Write what each brings."""
        if self.subject is Subject.KAT_SESSION:
            return [b"Cookie: %b=%b" % (COOKIE, token.session) for token in self.tokens]
        return [b"X-KAT: " + token.text for token in self.tokens]

    def verify(self, right: int, unknown: int, wrong: Counter[str]) -> None:
        """Ask Redis what has happened, count as wrong what should not, and take it all away.

        `unknown` so many requests were left in the middle when the round ended.
        """
        if self.subject.consumes:
            spent = len(self.tokens) - reap(self.redis_socket, self.tokens).whole
            if not right <= spent <= right + unknown:
                wrong[f"{spent} tokens spent, {right} answered 200"] += abs(spent - right)
        elif self.subject is Subject.KAT_SESSION:
            standing, _ = end_sessions(self.redis_socket, self.tokens)
            if standing != len(self.tokens):
                wrong["sessions that do not stand any more"] += len(self.tokens) - standing


def invite(subject: Subject, redis_socket: str, requests: int) -> Visitors:
    """Make tokens or sessions for so many requests, and make them known to Redis."""
    if subject is Subject.KAT_SESSION:
        tokens = mint(min(requests, _SESSIONS))
        tokens = open_sessions(redis_socket, tokens, subject.acl, None)
    elif subject.consumes:
        tokens = mint(requests)
        issue(redis_socket, tokens)
    else:
        tokens = mint(min(requests, _GUESTS))
    return Visitors(subject, redis_socket, tokens)
