"""The first words on a connection: who we are, and which server this is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tokens.question import Command, Reply
from tokens.store.place import Place
from tokens.store.wire import Observer, StoreUnavailable, Wire, raise_refusal

WHO_ARE_YOU: tuple[Command, ...] = ((b"INFO", b"replication"), (b"TIME",))
"""What `read_server` reads the replies to. 3 us of Redis's time."""

_MAX_DIGITS = 16  # of a time in ms or us; int() itself raises above 4300


@dataclass(frozen=True, slots=True)
class Server:
    """A primary as it was when it was asked."""

    replid: bytes
    now_ms: int
    was_promoted: bool
    """It once followed another primary, and expired keys by that one's clock."""


async def connect(place: Place, observer: Observer) -> Wire:
    """Open a connection. Raises StoreUnavailable; leaves nothing half open."""
    loop = asyncio.get_running_loop()
    wire = Wire(observer)
    try:
        if place.path is not None:
            await loop.create_unix_connection(lambda: wire, place.path)
        else:
            # With TLS the host is the name that the certificate must have.
            await loop.create_connection(lambda: wire, place.host, place.port, ssl=place.ssl)
    except OSError as error:  # ssl.SSLError is one
        raise StoreUnavailable("connect", f"cannot connect to Redis: {error}") from None
    return wire


async def greet(wire: Wire, place: Place, scripts: Sequence[bytes]) -> Server:
    """Log in, load the scripts, and learn which primary this is. Raises StoreUnavailable.

    One write: a batch whose reply was lost may be waiting for this connection.
    """
    words: list[Command] = []
    if place.password:
        user = place.username or "default"
        words.append((b"AUTH", user.encode(), place.password.encode()))
    if place.db:
        words.append((b"SELECT", place.db))
    words += load(scripts)
    *_, info, time = await wire.ask(*words, *WHO_ARE_YOU)
    return read_server(info, time)


def load(scripts: Sequence[bytes]) -> list[Command]:
    """Write the commands after which this server knows all scripts."""
    return [(b"SCRIPT", b"LOAD", script) for script in scripts]


def read_server(info: Reply, time: Reply) -> Server:
    """Read what a server says about itself. Raises StoreUnavailable if it is not a primary."""
    raise_refusal((info, time))
    lines = info.splitlines() if isinstance(info, bytes) else []
    fields = {name: value for name, _, value in (line.partition(b":") for line in lines)}
    if fields.get(b"role") != b"master":
        raise StoreUnavailable("readonly", "this Redis is a replica, not a primary")
    # A server that was a replica remembers the replid that it followed.
    was_promoted = fields.get(b"master_replid2", b"").strip(b"0") != b""
    return Server(fields.get(b"master_replid", b""), _to_ms(time), was_promoted)


def to_int(number: Reply) -> int:
    """Read a number that Redis gives as text. Raises StoreUnavailable."""
    if not isinstance(number, bytes) or not number.isdigit() or len(number) > _MAX_DIGITS:
        raise StoreUnavailable("reply", "Redis answers something else where a number belongs")
    return int(number)


def _to_ms(time: Reply) -> int:
    """Read the answer to TIME: seconds and microseconds, as text."""
    if not isinstance(time, list) or len(time) != 2:  # noqa: PLR2004 - seconds, microseconds
        raise StoreUnavailable("reply", "Redis does not answer TIME with two numbers")
    return to_int(time[0]) * 1000 + to_int(time[1]) // 1000
