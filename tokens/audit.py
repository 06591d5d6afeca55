"""What happened, told to the stream `kat:audit`: an entry is a JSON list of events. Pure.

Never a token, a cookie, or more of a digest than a kid. How it is read stands in auditlog.py.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from tokens.address import candidates
from tokens.check import Check
from tokens.flood import Flood, Summary, client
from tokens.question import Command, Question
from tokens.token import KID_CHARS

EVENTS: Final = (
    *("issued", "consumed", "session", "grant", "logout", "refused", "replayed", "fenced"),
    *("revoked", "blocked", "unblocked", "granted", "grant_ended"),
)
"""Everything that is told: by issuers and agents, then by the commands of an admin."""

MAX_ENTRIES: Final = 100_000
"""How many the stream keeps unless configured otherwise: some 20 MB."""

FIELD: Final = b"e"
"""The one field of an entry. Its value is the list."""

# How much faster a journal takes entries for grown than it has seen: other workers write to the
# same stream, and a journal sees its own entries only. When eight of them become busy at once, the
# stream has up to six times as many events as it should, for a while: 130 MB.
_CAUTION: Final = 4

_SUMMARISED: Final = frozenset({b"refused", b"replayed"})
_SESSIONS_OWN: Final = frozenset({b"session", b"logout"})
_USUAL: Final = b'{"event":"%b","acl":"%b","kid":"%b","user":"%b","src":"%b","id":"%b"}'
_OF_SESSION: Final = _USUAL.replace(b"}", b',"sid":"%b"}')
_NO_ID: Final = _USUAL.replace(b',"id":"%b"', b"")
_PLAIN: Final = bytes(char for char in range(0x20, 0x100) if char not in b'"\\\x7f')
"""What a JSON text holds as it is, provided that all of it is UTF-8."""

_MAX_ID_BYTES: Final = 128
_REMEMBERED: Final = 4096

_is_moment = re.compile(rb"[1-9][0-9]{0,15}").fullmatch
_is_sid = re.compile(rb"[0-9a-f]{12}").fullmatch
_hide_tokens = re.compile(rb"kat_[0-9A-Za-z]{38}").sub

_Facts = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""Of an event with nothing special about it: event, acl, kid, user, src, id and sid, or b""."""


def entry(key: bytes, events: Sequence[Mapping[str, object]], max_entries: int) -> Command:
    """Write the command that tells these events, for whoever has a few and no batches."""
    told = json.dumps(list(events), separators=(",", ":"), allow_nan=False)
    return _xadd(key, _cleaned(told.encode()), max_entries)


class Journal:
    """Notes what happens in a worker, and tells many at once.

    `refused` and `replayed`: the first of a kind (reason, ACL, token, client) is told at once. What
    repeats it is one event per second, with their number `n`. Unknown tokens are told in this way
    only, without names (flood.py). All else is told one by one.
    """

    def __init__(
        self, key: bytes, max_entries: int, hear: Callable[[bytes], None] | None = None
    ) -> None:
        """Tell to the stream `key`, or to none (0 entries); and each list to `hear`, too."""
        self._key = key
        self._max_entries = max_entries
        self._hear = hear
        self._mean_events = 1.0
        self._usual: list[_Facts] = []
        self._events: list[bytes] = []
        self._flood = Flood()

    # 0.3 us, and as much again in `take`; 0.3 us for a refusal that is repeated (CPython 3.11,
    # timeit, batches of 32). Looking at each text alone, not at a batch of them, costs 0.3 us more.
    def add(
        self, what: bytes, check: Check, kid: bytes = b"", user: bytes = b"", detail: bytes = b""
    ) -> None:
        """Note what became of a request, for an ACL of the configuration.

        `detail` says why it was `refused`; when and from where the token of a `replayed` one was
        consumed: "<ms> <address>"; or the sid of a `session` that was opened, or ended (`logout`).
        """
        acl = check.acl
        name = check.unique_id
        src = candidates(check.source).partition(b" ")[0]
        if what in _SUMMARISED and self._flood.swallows(
            (what, detail, acl, kid, client(check.source)), user, src
        ):
            return
        if (
            user
            and src
            and (not detail or (what in _SESSIONS_OWN and name and _is_sid(detail)))
            and len(kid) == KID_CHARS
            and len(name) <= _MAX_ID_BYTES
            and name.isascii()
        ):
            self._usual.append((what, acl, kid, user, src, name, detail))
        else:
            self._note(_event(what, acl, kid, user, src, name, detail))

    def fence_moved(self, replid: bytes, since_ms: int) -> None:
        """Note that a server with another memory was met: what was issued before is refused."""
        told = (_quoted(replid[:KID_CHARS]), since_ms)
        self._note(b'{"event":"fenced","replid":"%b","since":%d}' % told)

    @property
    def waiting(self) -> int:
        """How much there is to tell: a number of events, and a flood is one more."""
        return len(self._usual) + len(self._events) + self._flood.is_rising

    def take(self, now_s: float) -> Question | None:
        """Return the command that tells all that is to be told now, or None.

        Ask soon after there is something, and once a second for what a flood has left. `now_s` is
        monotonic; infinity is the end, with which all is told.
        """
        if self._flood.is_rising:
            self._note(*map(_summary, self._flood.take(now_s)))
        if not (self._usual or self._events):
            return None
        events = self._events + _events(self._usual)
        self._events, self._usual = [], []
        told = _cleaned(b"[%b]" % b",".join(events))
        if self._hear:
            self._hear(told)
        if not self._max_entries:
            return None
        return Question(self._key, _xadd(self._key, told, self._limit(len(events))))

    def _note(self, *events: bytes) -> None:
        """Put events behind those that are still unwritten: a replay stays behind its consume."""
        self._events += [*_events(self._usual), *events]
        self._usual = []

    def _limit(self, events: int) -> int:
        """Say how many entries the stream may keep: as many as hold `max_entries` events.

        100,000 full batches would be 2 GB, in a store that refuses everybody when it is full. The
        mean is taken over as many entries as the stream has, so a burst costs it no more than what
        the burst wrote, times _CAUTION.
        """
        share = min(1.0, _CAUTION * self._mean_events / self._max_entries)
        self._mean_events += (events - self._mean_events) * share
        return max(1, int(self._max_entries / self._mean_events))


def _events(usual: list[_Facts]) -> list[bytes]:
    """Write events that have nothing special about them."""
    texts = b"".join([kid + user + name for _, _, kid, user, _, name, _ in usual])
    if texts.translate(None, _PLAIN):
        return [_event(*facts) for facts in usual]
    return [
        _OF_SESSION % facts if facts[6] else _USUAL % facts[:6] if facts[5] else _NO_ID % facts[:5]
        for facts in usual
    ]


def _summary(many: Summary) -> bytes:
    event = _event(many.what, many.acl, many.kid, many.user, many.src, b"", many.reason)
    return b'%b,"n":%d}' % (event[:-1], many.number) if many.number > 1 else event


def _event(  # noqa: PLR0917 - a row of facts
    what: bytes,
    acl: bytes,
    kid: bytes,
    user: bytes,
    src: bytes,
    name: bytes,
    detail: bytes = b"",
) -> bytes:
    """Write any event, with those of its facts that there are."""
    facts = {b"acl": acl, b"kid": kid[:KID_CHARS], b"user": user, b"src": src}
    first_at = b""
    if what == b"replayed":
        first_at, _, first_src = detail.partition(b" ")
        facts[b"first_src"] = first_src.removeprefix(b"-")
    elif what in _SESSIONS_OWN:
        facts[b"sid"] = detail[:KID_CHARS]
    else:
        facts[b"reason"] = detail
    if len(name) <= _MAX_ID_BYTES and name.decode(errors="replace").isprintable():
        facts[b"id"] = name
    told = [b'"event":"%b"' % what]
    told += [b'"%b":"%b"' % (fact, _quoted(text)) for fact, text in facts.items() if text]
    if _is_moment(first_at):
        told.append(b'"first_at":%b' % first_at)
    return b"{%b}" % b",".join(told)


@lru_cache(_REMEMBERED)
def _quoted(text: bytes) -> bytes:
    """Write what stands between the quotes of a JSON text."""
    return json.dumps(text.decode(errors="replace"), ensure_ascii=False)[1:-1].encode()


def _cleaned(told: bytes) -> bytes:
    """Take out what cannot be in it by contract, but for a mistake of others.

    A client may choose its request's id and put a token into it; what is no UTF-8 would make all of
    a batch unreadable.
    """
    if b"kat_" in told:
        told = _hide_tokens(b"kat_(hidden)", told)
    return told if told.isascii() else told.decode(errors="replace").encode()


def _xadd(key: bytes, told: bytes, max_entries: int) -> Command:
    return (b"XADD", key, b"MAXLEN", b"~", b"%d" % max_entries, b"*", FIELD, told)
