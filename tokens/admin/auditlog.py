"""The audit stream, read: what happened, when, and to whom. For commands that a human waits for.

Anybody who may write to Redis may write to the stream, and it is trimmed, lost or set back while it
is read. What cannot be an entry of ours is reported once and skipped; nothing here raises for it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import isfinite
from typing import Final, cast

from tokens.audit import FIELD
from tokens.store.client import TIMEOUT_S, Client

# An entry of 128 events has 20 kB, that of a busy worker rarely more than twice as much: a page has
# some MB at most.
PAGE_ENTRIES: Final = 128

BLOCK_MS: Final = int(TIMEOUT_S * 1000 / 2)
"""How long Redis may keep silent while nothing happens; below the client's own patience.

So often somebody who follows sees that nobody reads what he prints any more.
"""

# The year 3000. Calendars end in 9999, and an id may be 600 million years away.
_MAX_MS: Final = 32_503_680_000_000

_START: Final = b"0-0"
Network = IPv4Network | IPv6Network
_Fields = dict[bytes, bytes] | None
_Entry = tuple[bytes, _Fields]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `facts` is its JSON, `event` among them."""

    at_ms: int
    """When Redis was told, by Redis's clock."""
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are looked for. None: any."""

    user: str | None = None
    network: Network | None = None
    kid: str | None = None
    acl: str | None = None
    event: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def matches(self, event: Event) -> bool:
        """Tell whether an event is one of them; times are looked at where Redis is asked."""
        facts = event.facts
        return (
            (self.user is None or facts.get("user") == self.user)
            and (self.kid is None or facts.get("kid") == self.kid)
            and (self.acl is None or self.acl in _texts(facts.get("acl")))
            and (self.event is None or facts["event"] == self.event)
            and (self.network is None or _touches(self.network, facts.get("src")))
        )


class Trail:
    """One audit stream, and how far somebody has read it."""

    def __init__(self, key: bytes, complain: Callable[[str], None]) -> None:
        """Read the stream at `key`; `complain` is told what is wrong with it, in sentences."""
        self._key = key
        self._complain = complain
        self._position = _START
        self._has_complained = False

    def past(self, client: Client, wanted: Wanted) -> Iterator[Event]:
        """Yield what has happened so far, oldest first."""
        low, high = self._bounds(client, wanted)
        while entries := _entries(client.xrange(self._key, low, high, PAGE_ENTRIES)):
            yield from self._events(entries, wanted)
            low = b"(" + entries[-1][0]

    def latest(self, client: Client, wanted: Wanted, number: int) -> list[Event]:
        """Return the last so many of what has happened so far, oldest first."""
        low, high = self._bounds(client, wanted)
        found: list[Event] = []
        while entries := _entries(client.xrevrange(self._key, high, low, PAGE_ENTRIES)):
            found[:0] = self._events(entries[::-1], wanted)
            if len(found) >= number:
                break
            high = b"(" + entries[-1][0]
        return found[-number:]

    def wait(self, client: Client, wanted: Wanted) -> list[Event]:
        """Return what has happened since; nothing, if nothing did within BLOCK_MS."""
        answer = client.xread({self._key: self._position}, PAGE_ENTRIES, BLOCK_MS)
        if not answer:
            self._notice_a_setback(client)
            return []
        [(_, found)] = cast("list[tuple[bytes, list[_Entry]]]", answer)
        self._position = found[-1][0]
        return list(self._events(found, wanted))

    def _bounds(self, client: Client, wanted: Wanted) -> tuple[bytes, bytes]:
        """Say from where to where to read, and let `wait` go on behind it."""
        self._position = self._end(client)
        low = b"-" if wanted.since_ms is None else b"%d" % wanted.since_ms
        high = self._position if wanted.until_ms is None else b"%d" % wanted.until_ms
        return low, high

    def _end(self, client: Client) -> bytes:
        """Return the last id that the stream has given, be it trimmed; _START without a stream."""
        if not client.exists(self._key):
            return _START
        return cast("dict[str, bytes]", client.xinfo_stream(self._key))["last-generated-id"]

    def _notice_a_setback(self, client: Client) -> None:
        """Go back to the end, if that is before where we are: nothing would ever come after it.

        A replica without the last entries was promoted; or the stream was deleted, and the clock of
        Redis set back.
        """
        end = self._end(client)
        if end != _START and _order(end) < _order(self._position):
            self._position = end
            self._complain("the audit stream was set back: events may be missing")

    def _events(self, entries: Sequence[_Entry], wanted: Wanted) -> Iterator[Event]:
        for name, fields in entries:
            try:
                events = _read(name, fields)
            except (ValueError, RecursionError) as error:
                self._skip(name, error)
            else:
                yield from [event for event in events if wanted.matches(event)]

    def _skip(self, name: bytes, error: Exception) -> None:
        """Say it of the first one: who writes one may write thousands."""
        if not self._has_complained:
            self._has_complained = True
            # Of json's errors the kind alone: their text is worded around the content.
            why = error if isinstance(error, _Foreign) else type(error).__name__
            self._complain(
                f"entry {name.decode()} of the audit stream is none of ours ({why}): it is "
                "skipped, as is any other such"
            )


class _Foreign(ValueError):
    """What is wrong with an entry."""


def _entries(answer: object) -> list[_Entry]:
    return cast("list[_Entry]", answer)  # the client decodes nothing


def _read(name: bytes, fields: _Fields) -> list[Event]:
    """Read one entry. Raises ValueError or RecursionError for what is none of ours."""
    at_ms, _ = _order(name)
    if at_ms > _MAX_MS:
        raise _Foreign("its time is after the year 3000")
    if not fields or FIELD not in fields:
        raise _Foreign(f"it has no field {FIELD.decode()!r}")
    told = json.loads(fields[FIELD].decode(), parse_float=_number, parse_constant=_number)
    if not isinstance(told, list) or not all(map(_is_event, told)):
        raise _Foreign("it is no list of events")
    return [Event(at_ms, facts) for facts in told]


def _number(text: str) -> float:
    """Read a number that JSON can write again: 1e400 and NaN, which Python reads, are none."""
    number = float(text)
    if not isfinite(number):
        raise _Foreign("it has a number that is none")
    return number


def _is_event(told: object) -> bool:
    return isinstance(told, dict) and isinstance(told.get("event"), str)


def _order(name: bytes) -> tuple[int, int]:
    """Return what the ids of a stream are ordered by."""
    at_ms, _, number = name.partition(b"-")
    return int(at_ms), int(number)


def _texts(value: object) -> list[str]:
    """Take a fact apart that may name several, with commas: an issued token's ACLs."""
    return value.split(",") if isinstance(value, str) else []


def _touches(network: Network, src: object) -> bool:
    """Tell whether an address is in the network, or a network in it or around it."""
    for text in _texts(src):
        try:
            other = ip_network(text, strict=False)
        except ValueError:
            continue
        if other.overlaps(network):
            return True
    return False
