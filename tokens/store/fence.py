"""Since when a server is known to have forgotten nothing: `kat:fence`, and who dates it.

A promoted replica may lack the last consumes, a restarted server may have read an old snapshot.
Either has a new master_replid. Whoever greets it first dates its fence; tokens issued before are
refused by redeem.lua, consumed or not.
"""

import logging
import time
from collections.abc import Awaitable
from typing import Final, Protocol

from tokens.question import Command, Fence, Reply
from tokens.record import MAX_TTL_S
from tokens.store.greeting import Server, to_int
from tokens.store.wire import StoreUnavailable, Wire

MAX_FIELDS: Final = 256
"""A field per restart and promotion. So many are 20 kB, and are read by nobody but the trimming."""

# No token lives longer than MAX_TTL_S: nothing that such an old fence could refuse is left. The
# hour is for clocks that differ.
_MAX_AGE_MS: Final = (MAX_TTL_S + 3600) * 1000

_log = logging.getLogger(__name__)


class Ask(Protocol):
    """Asks the server that has the hash some commands: `Wire.ask` of a connection to it."""

    def __call__(self, *commands: Command) -> Awaitable[list[Reply]]: ...


class Fences(Protocol):
    """Knows, or decides, from when on a primary is to be believed."""

    def hear(self, server: Server) -> None:
        """Note the time at the primary in use. Called several times a second."""

    async def date(self, wire: Wire, server: Server) -> Fence:
        """Return the fence of a primary that was greeted just now. Raises StoreUnavailable."""


class OldClock:
    """What time it would be now at the primary that was in use last."""

    def __init__(self, clock_skew_ms: int) -> None:
        """Take clocks for equal that differ by no more than `clock_skew_ms`."""
        self._skew_ms = clock_skew_ms
        self._replid = b""
        self._ahead_ms = 0.0  # of our own monotonic clock

    def hear(self, server: Server) -> None:
        self._replid = server.replid
        self._ahead_ms = server.now_ms - time.monotonic() * 1000

    def since_ms(self, server: Server) -> tuple[int, bool]:
        """Tell from when on a server is to be believed; and whether an earlier date is wrong.

        The tokens that a promoted server may have forgotten were issued by the old primary's
        clock. If its own is further behind than clocks may be, another worker, one that did not
        know the old clock, has dated the fence before the last of them.
        """
        if not server.was_promoted:
            return server.now_ms, False
        behind_ms = 0
        if self._replid not in (b"", server.replid):
            behind_ms = round(time.monotonic() * 1000 + self._ahead_ms) - server.now_ms
        is_far_behind = behind_ms > self._skew_ms
        if is_far_behind:
            _log.warning("this Redis's clock is %d ms behind the one before it", behind_ms)
        return server.now_ms + max(behind_ms, 0) + self._skew_ms, is_far_behind


class FenceHash:
    """The fences of all servers, in a hash on the very server that is greeted."""

    def __init__(self, key: bytes, clock_skew_ms: int, *, is_fenced: bool) -> None:
        self._key = key
        self._clock = OldClock(clock_skew_ms)
        self._is_fenced = is_fenced

    def hear(self, server: Server) -> None:
        self._clock.hear(server)

    async def date(self, wire: Wire, server: Server) -> Fence:
        # Also without the fence: it is a write, and a server that refuses it could consume nothing.
        since_ms = await date_field(wire.ask, self._key, server, *self._clock.since_ms(server))
        self._clock.hear(server)
        return Fence(server.replid, since_ms if self._is_fenced else 0)


async def date_field(
    ask: Ask,
    key: bytes,
    server: Server,
    since_ms: int,
    is_at_least: bool,  # noqa: FBT001
) -> int:
    """Date a server's field, unless somebody has; return what stands there.

    An earlier date is raised to `since_ms` if it `is_at_least` that late.
    """
    since = b"%d" % since_ms
    _, found, size = await ask(
        (b"HSETNX", key, server.replid, since), (b"HGET", key, server.replid), (b"HLEN", key)
    )
    stands_ms = to_int(found)
    if is_at_least and stands_ms < since_ms:
        await ask((b"HSET", key, server.replid, since))
        stands_ms = since_ms
    if isinstance(size, int) and size > MAX_FIELDS:
        await _trim(ask, key, server, size - MAX_FIELDS)
    return stands_ms


async def _trim(ask: Ask, key: bytes, server: Server, surplus: int) -> None:
    """Remove so many of the oldest fields, if they are too old to refuse anything.

    One that is removed in error comes back later, and later is the safe side.
    """
    (fields,) = await ask((b"HGETALL", key))
    if not isinstance(fields, list):
        raise StoreUnavailable("reply", "Redis does not answer HGETALL with a list")
    dated = [
        (int(date), name)
        for name, date in zip(fields[::2], fields[1::2], strict=True)
        if isinstance(name, bytes) and isinstance(date, bytes) and date.isdigit()
    ]
    too_old_ms = server.now_ms - _MAX_AGE_MS
    old = [name for date, name in sorted(dated) if date < too_old_ms and name != server.replid]
    if old:
        await ask((b"HDEL", key, *old[:surplus]))
