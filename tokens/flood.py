"""Who asks for the same no again and again: counted, and told in one event per second. Pure."""

from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

# Who holds a token that opens nothing can show it from every network he has, and each one is a kind
# of its own. 256 a second name the first of them, so that the audit stream lasts for minutes of it;
# more honest mistakes than that in one second of one worker are a broken portal, which is one fact.
MAX_NAMED: Final = 256

MAX_CLIENTS: Final = 16
MAX_TOKENS: Final = 64
"""How many clients are named with one token, and tokens with one client: beyond, they are one kind.
So nobody takes all names for himself, and an honest replay beside a flood is told."""

_GUESS: Final = (b"refused", b"unknown")
_SECOND_S: Final = 1.0
_IPV4_BYTES: Final = 4
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"
_NETWORK_BYTES: Final = 8

Kind = tuple[bytes, bytes, bytes, bytes, bytes]
"""What makes two refusals the same: event, reason, ACL, kid, client."""


class Summary(NamedTuple):
    """What was counted. `user` and `src` are those of the first one; empty for many together."""

    what: bytes
    reason: bytes
    acl: bytes
    kid: bytes
    user: bytes
    src: bytes
    number: int


@dataclass(slots=True)
class _Repeats:
    user: bytes
    src: bytes
    number: int = 0


class Flood:
    """Lets the first of a kind pass, and counts what repeats it.

    An unknown token is never passed: whoever guesses is counted, per ACL and without names. So is
    whatever comes when MAX_NAMED kinds are known.
    """

    def __init__(self) -> None:
        self._named: dict[Kind, _Repeats] = {}
        self._new = 0
        """How many were named in this second. Who goes on from before takes nobody's place."""
        self._per_name: Counter[bytes] = Counter()
        self._nameless: Counter[tuple[bytes, bytes, bytes]] = Counter()
        self._second_ends_at_s: float | None = None
        self.is_rising = False
        """Whether there is anything to wait for: `take` has a purpose."""

    def swallows(self, kind: Kind, user: bytes, src: bytes) -> bool:
        """Tell whether this is one of many: it was counted, and needs no event of its own."""
        self.is_rising = True
        known = self._named.get(kind)
        if known is not None:
            known.number += 1
            return True
        what, reason, acl, kid, whom = kind
        if kind[:2] == _GUESS:
            self._nameless[what, reason, acl] += 1
            return True
        # The "reason" of a replay is when its token was consumed: of no use without its name.
        plain = reason if what == b"refused" else b""
        if self._per_name[kid] >= MAX_CLIENTS and kid:
            return self._gather((what, reason, acl, kid, b""), user, b"")
        if self._per_name[whom] >= MAX_TOKENS and whom:
            return self._gather((what, plain, acl, b"", whom), b"", src)
        if self._new >= MAX_NAMED:
            self._nameless[what, plain, acl] += 1
            return True
        self._name(kind, _Repeats(user, src))
        return False

    def _gather(self, kind: Kind, user: bytes, src: bytes) -> bool:
        """Count one of many together. Nothing of it is told at once."""
        if kind not in self._named:
            self._name(kind, _Repeats(user, src))
        self._named[kind].number += 1
        return True

    def _name(self, kind: Kind, repeats: _Repeats) -> None:
        self._named[kind] = repeats
        self._new += 1
        self._per_name.update(kind[3:])

    def take(self, now_s: float) -> list[Summary]:
        """Return what was counted when a second is over; the first `take` begins it."""
        if self._second_ends_at_s is None:
            self._second_ends_at_s = now_s + _SECOND_S
        if now_s < self._second_ends_at_s:
            return []
        repeated = {kind: known for kind, known in self._named.items() if known.number}
        told = [
            Summary(*kind[:4], known.user, known.src, known.number)
            for kind, known in repeated.items()
        ]
        told += [
            Summary(*kind, b"", b"", b"", number=number) for kind, number in self._nameless.items()
        ]
        # Who has repeated it in this second goes on in the next: that is no news. The loudest ones.
        loudest = sorted(repeated, key=lambda kind: -repeated[kind].number)[:MAX_NAMED]
        self._named = {}
        self._per_name.clear()
        for kind in loudest:
            self._name(kind, _Repeats(repeated[kind].user, repeated[kind].src))
        self._new = 0
        self._nameless.clear()
        self.is_rising = bool(repeated)
        self._second_ends_at_s = now_s + _SECOND_S if repeated else None
        return told


def client(source: bytes) -> bytes:
    """Return what of an address its owner cannot choose: the /64 of an IPv6 one."""
    if len(source) == _IPV4_BYTES or source.startswith(_IPV4_MAPPED):
        return source
    return source[:_NETWORK_BYTES]
