"""The first words on a connection: who we are, and which server this is."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokens.question import Command, Fence, Question, Reply
from tokens.store.advice import CLUSTER_NODE, SENTINEL, of_tls
from tokens.store.place import Place
from tokens.store.wire import Observer, StoreUnavailable, Wire, error_kind, raise_refusal

WHO_ARE_YOU: tuple[Command, ...] = ((b"INFO", b"replication"), (b"TIME",))
"""What `read_server` reads the replies to. 3 us of Redis's time."""

# Of Redis 7 and Valkey 8.
_MODE = (b"redis_mode", b"server_mode")
_WHICH_KIND: Command = (b"INFO", b"server")

# What a node of a cluster says of a key that is not its own; it would have run the command.
_ANOTHERS = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})

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
        why = f"cannot connect to Redis: {error}{of_tls(error)}"
        raise StoreUnavailable("connect", why) from None
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
        words.append((b"SELECT", b"%d" % place.db))
    try:
        replies = await wire.hear(*words, _WHICH_KIND, *load(scripts), *WHO_ARE_YOU)
    except StoreUnavailable as fault:
        # It knows no ECHO either, so there are no replies to read.
        is_sentinel = re.search("unknown command .SCRIPT", str(fault))
        raise (StoreUnavailable("mode", SENTINEL) if is_sentinel else fault) from None
    # Before the refusals, of which it may be the cause.
    check_mode(_fields(replies[len(words)]), is_in_cluster=place.is_in_cluster)
    raise_refusal(replies)
    return read_server(*replies[-2:])


def begin_proof(
    wire: Wire, server: Server, probe: Question
) -> "asyncio.Future[list[Reply] | StoreUnavailable]":
    """Ask what every batch will ask, beside the rest of the greeting: that costs no round trip."""
    return wire.begin(probe.write(Fence(server.replid, 0)))


def see_proof(place: Place, result: list[Reply] | StoreUnavailable) -> None:
    """Raise StoreUnavailable if what every batch needs cannot be had here."""
    if isinstance(result, StoreUnavailable):
        raise result
    (reply,) = result
    if not isinstance(reply, Exception):
        return
    if place.is_in_cluster and str(reply).partition(" ")[0] in _ANOTHERS:
        return
    if error_kind(str(reply)) == "other":
        raise StoreUnavailable("cut", f"the revocations cannot be read: {reply}")
    raise_refusal(result)


def load(scripts: Sequence[bytes]) -> list[Command]:
    """Write the commands after which this server knows all scripts."""
    return [(b"SCRIPT", b"LOAD", script) for script in scripts]


def check_mode(fields: dict[bytes, bytes], *, is_in_cluster: bool) -> None:
    """Raise StoreUnavailable if this is not the kind of server that the URL is for."""
    mode = next((fields[name] for name in _MODE if name in fields), b"")
    if mode == b"sentinel":
        raise StoreUnavailable("mode", SENTINEL)
    if mode == b"cluster" and not is_in_cluster:
        raise StoreUnavailable("mode", CLUSTER_NODE)


def read_server(info: Reply, time: Reply) -> Server:
    """Read what a server says about itself. Raises StoreUnavailable if it is not a primary."""
    raise_refusal((info, time))
    fields = _fields(info)
    if fields.get(b"role") != b"master":
        raise StoreUnavailable("readonly", "this Redis is a replica, not a primary")
    # A server that was a replica remembers the replid that it followed.
    was_promoted = fields.get(b"master_replid2", b"").strip(b"0") != b""
    return Server(fields.get(b"master_replid", b""), _to_ms(time), was_promoted)


def _fields(info: Reply) -> dict[bytes, bytes]:
    lines = info.splitlines() if isinstance(info, bytes) else []
    return {name: value for name, _, value in (line.partition(b":") for line in lines)}


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
