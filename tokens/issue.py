"""Issue tokens, for services of all kinds: `Issuer` and, for asyncio, `AsyncIssuer`.

    issuer = Issuer(connect("redis://127.0.0.1"))
    issued = issuer.issue("user1", "confluence", 60)
    redirect(f"https://wiki.example/?kat={issued.token}")

One atomic command per token. Its text is in the answer and nowhere else: not in Redis, not in
the answer's repr. Everything a service needs is a name of this module; it needs `redis` alone.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Unpack

import redis
from redis.asyncio.sentinel import MasterNotFoundError as AsyncMasterNotFoundError
from redis.exceptions import RedisClusterException
from redis.sentinel import MasterNotFoundError

from tokens.audit import MAX_ENTRIES
from tokens.order import Bindings, Desk, Issued, Order, Texts, word_record
from tokens.record import BadRecord, Keys, SessionTerms
from tokens.store.client import (
    SYSTEM_CAS,
    TIMEOUT_S,
    AsyncClient,
    Client,
    open_async_client,
    open_client,
    sentence,
)
from tokens.store.tls import TlsFiles
from tokens.store.url import parse_store_url

__all__ = [
    "AsyncClient",
    "AsyncIssuer",
    "BadRecord",
    "Bindings",
    "Client",
    "Issued",
    "Issuer",
    "NotIssued",
    "SessionTerms",
    "Texts",
    "TlsFiles",
    "connect",
    "connect_async",
    "explain",
]


class NotIssued(Exception):
    """The key was taken. Nothing was changed; issue anew.

    190 random bits do not repeat: a client that retries sent the command twice, and the first
    reply was lost. Whether that token stands is unknown to everybody; it will expire unseen.
    """


def connect(url: str, *, tls: TlsFiles = SYSTEM_CAS, timeout_s: float | None = TIMEOUT_S) -> Client:
    """Make a client that sends no command twice. Close it when done.

    tokens/store/url.py has the forms of URLs: redis, rediss, unix, redis+sentinel, redis+cluster.
    With TLS, `tls=TlsFiles(ca_file=Path("ca.pem"))` names a CA of your own, and `cert_file` and
    `key_file` say who you are.
    Raises ValueError for one, or for TLS files, that cannot be used; redis.RedisError when a
    cluster, which is asked for its nodes at once, does not answer.
    """
    with _one_family_of_errors():
        return open_client(url, tls=tls, timeout_s=timeout_s)


def connect_async(
    url: str, *, tls: TlsFiles = SYSTEM_CAS, timeout_s: float | None = TIMEOUT_S
) -> AsyncClient:
    """Make an asyncio client that sends no command twice. Close it when done, with `aclose`."""
    return open_async_client(url, tls=tls, timeout_s=timeout_s)


def explain(url: str, error: Exception) -> str:
    """Say which Redis did what, for logs and for people: one sentence, without any secret.

    `error` is what an issuer or `connect` raised. Raises ValueError for a URL that is none.
    """
    place = parse_store_url(url)
    match error:
        case NotIssued():
            return str(error)
        case TimeoutError():
            return f"Redis at {place} does not answer in time"
        case AsyncMasterNotFoundError():  # a class of its own, which quotes the whole client
            return sentence(place, MasterNotFoundError(str(error)))
        case _:
            return sentence(place, error)


class Issuer:
    """Issues tokens through a Redis client of the caller's.

    `issue` raises ValueError for what the contract forbids, redis.RedisError when Redis did not
    confirm. No retry: in doubt whether a token was written, issue another.

    With `audit` each token is told to the audit stream, in a second command: a Redis that refuses
    it (`Issued.is_audited`) costs nobody the token.

    A token bound to the loopback address is refused: a portal that sees its visitors there has a
    proxy before it, and would bind all of them to each other. `allow_loopback` is for trying
    things out on one machine.
    """

    def __init__(
        self,
        client: Client,
        *,
        prefix: str = "kat:",
        audit: bool = False,
        max_audit_entries: int = MAX_ENTRIES,
        allow_loopback: bool = False,
    ) -> None:
        self._client = client
        self._desk = Desk(Keys(prefix), max_audit_entries if audit else 0, allow_loopback)

    def issue(self, user: str, acl: Texts, ttl_s: int, **bindings: Unpack[Bindings]) -> Issued:
        """Issue a token that lets `user` through the gates `acl` once, within `ttl_s` seconds."""
        order = self._desk.take(word_record(user, acl, ttl_s, **bindings))
        with _one_family_of_errors():
            done = self._client.set(order.key, order.raw, ex=order.issued.ttl_s, nx=True)
        issued = _confirmed(order, done)
        if not order.event:
            return issued
        try:
            with _one_family_of_errors():
                self._client.execute_command(*order.event)  # type: ignore[no-untyped-call]
        except redis.RedisError:
            return issued
        return replace(issued, is_audited=True)


class AsyncIssuer:
    """The same as `Issuer`, for asyncio."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        prefix: str = "kat:",
        audit: bool = False,
        max_audit_entries: int = MAX_ENTRIES,
        allow_loopback: bool = False,
    ) -> None:
        self._client = client
        self._desk = Desk(Keys(prefix), max_audit_entries if audit else 0, allow_loopback)

    async def issue(
        self, user: str, acl: Texts, ttl_s: int, **bindings: Unpack[Bindings]
    ) -> Issued:
        """Issue a token that lets `user` through the gates `acl` once, within `ttl_s` seconds."""
        order = self._desk.take(word_record(user, acl, ttl_s, **bindings))
        with _one_family_of_errors():
            done = await self._client.set(order.key, order.raw, ex=order.issued.ttl_s, nx=True)
        issued = _confirmed(order, done)
        if not order.event:
            return issued
        try:
            with _one_family_of_errors():
                await self._client.execute_command(*order.event)
        except redis.RedisError:
            return issued
        return replace(issued, is_audited=True)


def _confirmed(order: Order, done: object) -> Issued:
    if not done:
        raise NotIssued(f"kid {order.issued.kid} is taken: nothing was changed, issue anew")
    return order.issued


@contextlib.contextmanager
def _one_family_of_errors() -> Iterator[None]:
    """Let whoever catches redis.RedisError catch what a cluster's client says, too."""
    try:
        yield
    except RedisClusterException as error:
        raise redis.ConnectionError(str(error)) from error
