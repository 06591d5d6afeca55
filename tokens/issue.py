"""Issue tokens, for services of all kinds: `Issuer` and, for asyncio, `AsyncIssuer`.

    issuer = Issuer(connect("redis://127.0.0.1"))
    issued = issuer.issue("user1", "confluence", 60)
    redirect(f"https://wiki.example/?kat={issued.token}")

One atomic command per token. Its text is in the answer and nowhere else: not in Redis, not in
the answer's repr.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict, Unpack

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from tokens.record import BadRecord, Keys, Record, SessionTerms, read_record, write_record
from tokens.token import digest, kid, mint

Texts = str | Iterable[str]
"""One text, or several."""


class Bindings(TypedDict, total=False):
    """What else a record may say: the optional fields of docs/redis-contract.md.

    For type checkers, and for both issuers; at run time `_prepare` refuses other names.
    """

    groups: Texts
    src: Texts
    host: Texts
    method: Texts
    path: Texts
    nbf_ms: int | None
    session: SessionTerms | Literal[False] | None
    nonce: str | None
    meta: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that Redis has confirmed. `kid` is its name for logs."""

    token: str = field(repr=False)
    kid: str
    ttl_s: int


class NotIssued(Exception):
    """The key was taken. Nothing was changed; issue anew.

    190 random bits do not repeat: a client that retries sent the command twice, and the first
    reply was lost. Whether that token stands is unknown to everybody; it will expire unseen.
    """


def connect(url: str) -> redis.Redis:
    """Make a client that sends no command twice. Close it when done."""
    # RESP 2: in RESP 3 the password travels in HELLO, and a server without it echoes both back,
    # into the text of an exception.
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)


def connect_async(url: str) -> redis.asyncio.Redis:
    """Make an asyncio client that sends no command twice. Close it when done."""
    return redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), protocol=2)


class Issuer:
    """Issues tokens through a Redis client of the caller's.

    `issue` raises ValueError for what the contract forbids, redis.RedisError when Redis did not
    confirm. No retry: in doubt whether a token was written, issue another.
    """

    def __init__(self, client: redis.Redis, *, prefix: str = "kat:") -> None:
        self._client = client
        self._keys = Keys(prefix)

    def issue(self, user: str, acl: Texts, ttl_s: int, **bindings: Unpack[Bindings]) -> Issued:
        """Issue a token that lets `user` through the gates `acl` once, within `ttl_s` seconds."""
        order = _prepare(self._keys, user, acl, ttl_s, **bindings)
        return _confirm(order, self._client.set(order.key, order.raw, ex=order.ttl_s, nx=True))


class AsyncIssuer:
    """The same as `Issuer`, for asyncio."""

    def __init__(self, client: redis.asyncio.Redis, *, prefix: str = "kat:") -> None:
        self._client = client
        self._keys = Keys(prefix)

    async def issue(
        self, user: str, acl: Texts, ttl_s: int, **bindings: Unpack[Bindings]
    ) -> Issued:
        """Issue a token that lets `user` through the gates `acl` once, within `ttl_s` seconds."""
        order = _prepare(self._keys, user, acl, ttl_s, **bindings)
        done = await self._client.set(order.key, order.raw, ex=order.ttl_s, nx=True)
        return _confirm(order, done)


class _Order(NamedTuple):
    """One SET that is about to be sent."""

    key: bytes
    raw: bytes
    ttl_s: int
    issued: Issued


def _prepare(
    keys: Keys,
    user: str,
    acl: Texts,
    ttl_s: int,
    *,
    groups: Texts = (),
    src: Texts = (),
    host: Texts = (),
    method: Texts = (),
    path: Texts = (),
    nbf_ms: int | None = None,
    session: SessionTerms | Literal[False] | None = None,
    nonce: str | None = None,
    meta: Mapping[str, object] | None = None,
) -> _Order:
    """Mint a token and word its record. Pure, but for the random source.

    Raises ValueError with a sentence that names the field, its value and what is allowed.
    """
    raw = _write(
        Record(
            sub=user,
            acl=_tuple(acl),
            ttl_s=ttl_s,
            groups=_tuple(groups),
            src=_tuple(src),
            host=_tuple(host),
            method=_tuple(method),
            path=_tuple(path),
            nbf_ms=nbf_ms,
            session=session,
            nonce=nonce,
            meta=None if meta is None else dict(meta),
        )
    )
    # Read as strictly as an agent will: no issuer of ours can write what no agent accepts.
    ttl_s = read_record(raw).ttl_s
    token = mint()
    name = digest(token.encode())
    return _Order(keys.token(name), raw, ttl_s, Issued(token, kid(name).decode(), ttl_s))


def _write(record: Record) -> bytes:
    try:
        return write_record(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRecord(f"not to be written as JSON: {error}") from None


def _tuple(texts: Texts) -> tuple[str, ...]:
    """Take a lone text for a list of one, not for a list of letters."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _confirm(order: _Order, done: object) -> Issued:
    if not done:
        raise NotIssued(f"kid {order.issued.kid} is taken: nothing was changed, issue anew")
    return order.issued
