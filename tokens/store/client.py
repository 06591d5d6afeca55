"""Clients of `redis` for whatever a store URL names, that send no command twice.

`open_client` and `open_async_client` are for services that issue; `connect` is for commands that
a human waits for: one try, a short wait, a sentence. None of them is for the hot way (store.py).
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar, cast

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MovedError,
    RedisClusterException,
)
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from tokens.question import without_arguments
from tokens.store.advice import (
    CLUSTER_NODE,
    NO_CLUSTER,
    NO_SENTINEL,
    NO_TLS,
    NO_WORD,
    SPEAKS_TLS,
    advise,
    of_tls,
)
from tokens.store.tls import TlsFiles, client_context, client_options
from tokens.store.url import ClusterUrl, Login, SentinelUrl, ServerUrl, StoreUrl, parse_store_url

TIMEOUT_S = 2.0
"""For connecting and for each reply: who waits longer for a store has none."""

Client = redis.Redis | redis.RedisCluster
"""Of one server, of what Sentinels watch, or of a cluster."""

AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster

SYSTEM_CAS = TlsFiles()

T = TypeVar("T")


class StoreFault(Exception):
    """Redis cannot be used. The message is a sentence, and holds no secret."""


class StoreUnreachable(StoreFault):
    """No Redis was there to refuse anything."""


def open_client(
    url: str, *, tls: TlsFiles = SYSTEM_CAS, timeout_s: float | None = TIMEOUT_S
) -> Client:
    """Make a client that sends no command twice. Close it when done.

    That of a cluster asks for its nodes at once. Raises ValueError for a URL or TLS files that
    cannot be used; redis.RedisError or redis.RedisClusterException for what Redis does.
    """
    place = parse_store_url(url)
    retry = Retry(NoBackoff(), 0)
    settings = client_settings(place, tls, timeout_s)
    match place:
        case ServerUrl():
            return redis.Redis(**_address(place), **settings, db=place.db, retry=retry)
        case SentinelUrl():
            sentinel = open_sentinels(place, tls=tls, timeout_s=timeout_s)
            master = sentinel.master_for(  # type: ignore[no-untyped-call]
                place.service, **settings, db=place.db, retry=retry
            )
            return cast("redis.Redis", master)
        case ClusterUrl():
            seeds = [ClusterNode(*seed) for seed in place.seeds]  # type: ignore[no-untyped-call]
            return redis.RedisCluster(startup_nodes=seeds, **settings, retry=retry)


def open_sentinels(
    place: SentinelUrl, *, tls: TlsFiles = SYSTEM_CAS, timeout_s: float | None = TIMEOUT_S
) -> Sentinel:
    """Make clients of the Sentinels themselves: `.sentinels`, in the order of the URL."""
    settings = sentinel_settings(place, tls, timeout_s)
    return _Sentinels(  # type: ignore[no-untyped-call]
        list(place.sentinels), sentinel_kwargs={**settings, "retry": Retry(NoBackoff(), 0)}
    )


def open_async_client(
    url: str, *, tls: TlsFiles = SYSTEM_CAS, timeout_s: float | None = TIMEOUT_S
) -> AsyncClient:
    """Make the same for asyncio. Close it when done, with `aclose`."""
    place = parse_store_url(url)
    retry = AsyncRetry(NoBackoff(), 0)
    settings = client_settings(place, tls, timeout_s)
    match place:
        case ServerUrl():
            return redis.asyncio.Redis(**_address(place), **settings, db=place.db, retry=retry)
        case SentinelUrl():
            sentinel = _AsyncSentinels(  # type: ignore[no-untyped-call]
                list(place.sentinels),
                sentinel_kwargs={**sentinel_settings(place, tls, timeout_s), "retry": retry},
            )
            found: redis.asyncio.Redis = sentinel.master_for(
                place.service, _WatchedRedis, **settings, db=place.db, retry=retry
            )
            return found
        case ClusterUrl():
            seeds = [AsyncClusterNode(*seed) for seed in place.seeds]
            return _TidyCluster(startup_nodes=seeds, **settings, retry=retry)


class _Sentinels(Sentinel):
    """Leaves no connection open to the Sentinels, which closing the primary's client would not."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            name, port = super().discover_master(service_name)  # type: ignore[no-untyped-call]
            return name, port
        finally:
            for client in self.sentinels:
                client.close()


class _AsyncSentinels(AsyncSentinel):
    """The same for asyncio."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            name, port = await super().discover_master(service_name)
            return name, port
        finally:
            for client in self.sentinels:
                await client.aclose()


async def finish(asking: Coroutine[object, object, T]) -> T:
    """Let a question of `redis` come to its end also when who asks is cancelled.

    A connection of `redis` that is cancelled while it connects stays open. Only for questions that
    have short time-outs of their own.
    """
    task = asyncio.create_task(asking)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


class _WatchedRedis(redis.asyncio.Redis):
    """Closes, with itself, the connection to the Sentinel that knew the way."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis'
        await super().aclose(close_connection_pool)
        if isinstance(self.connection_pool, AsyncSentinelConnectionPool):
            for sentinel in self.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()


class _TidyCluster(redis.asyncio.RedisCluster):
    """Closes all of its connections, also after a failure.

    `redis` 8.1 takes itself for closed when a command has failed, and leaves the others open.
    """

    async def aclose(self) -> None:
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")


def client_settings(place: StoreUrl, tls: TlsFiles, timeout_s: float | None) -> dict[str, Any]:
    """Say to a client of `redis` who we are, and how long we wait for a connection or a reply.

    Raises ValueError for TLS files that cannot be used.
    """
    if place.is_tls:
        client_context(tls)  # the library would find faults in the files at the first connection
    return {
        **_login(place.login),
        "protocol": 2,  # in RESP 3 the password travels in HELLO, which an old server echoes
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        **(client_options(tls) if place.is_tls else {}),
    }


def sentinel_settings(place: SentinelUrl, tls: TlsFiles, timeout_s: float | None) -> dict[str, Any]:
    """Say the same for the Sentinels themselves."""
    return {**client_settings(place, tls, timeout_s), **_login(place.sentinel_login)}


@contextlib.contextmanager
def connect(url: str, tls: TlsFiles = SYSTEM_CAS) -> Iterator[Client]:
    """Open a client for a command. Raises StoreFault for whatever Redis does, with a sentence."""
    place = parse_store_url(url)
    client = None
    try:
        client = open_client(url, tls=tls, timeout_s=TIMEOUT_S)
        yield client
    except (redis.RedisError, RedisClusterException) as error:
        # Not chained: the sentence says all, and the URL behind it may hold a password.
        raise _fault(error)(sentence(place, error)) from None
    finally:
        if client is not None:
            client.close()


def _login(login: Login) -> dict[str, str | None]:
    return {"username": login.user, "password": login.password}


def _address(place: ServerUrl) -> dict[str, Any]:
    if place.path:
        return {"unix_socket_path": place.path}
    return {"host": place.host.name, "port": place.host.port}


def _fault(error: Exception) -> type[StoreFault]:
    is_answer = isinstance(error, AuthenticationError | BusyLoadingError)
    is_away = isinstance(error, redis.ConnectionError | redis.TimeoutError) and not is_answer
    return StoreUnreachable if is_away else StoreFault


def sentence(place: StoreUrl, error: Exception) -> str:
    """Say what Redis did, without the secrets that it or the library may quote."""
    match error:
        case AuthenticationError() if not place.login.password:
            return f"Redis at {place} asks for a password"
        case AuthenticationError():
            return f"Redis at {place} refuses the user or the password"
        case redis.TimeoutError():
            hint = NO_TLS if place.is_tls else ""
            return f"Redis at {place} does not answer within {TIMEOUT_S:.0f} s{hint}"
        case MasterNotFoundError():
            return f"Redis cannot be reached: {nobody_named(place, error)}"
        case InvalidResponse():
            return f"Redis at {place} sends what is not its protocol: {_tls_or_not(place)}"
        case redis.ConnectionError():
            hint = of_tls(error) or (NO_WORD if _is_shut(place, error) else "")
            return f"Redis at {place} cannot be reached: {spoken(error)}{hint}"
        case MovedError() if not isinstance(place, ClusterUrl):
            return f"Redis at {place}: {CLUSTER_NODE}"
        case RedisClusterException():
            return f"Redis at {place} {_of_cluster(error)}"
        case _:
            if isinstance(place, SentinelUrl) and "unknown command" in str(error):
                return f"Redis at {place}: {NO_SENTINEL}"
            return advise(f"Redis at {place} says: {spoken(error)}")


def nobody_named(place: StoreUrl, error: Exception) -> str:
    """Say why Sentinels lead nowhere. Not in its words: they quote settings of connections."""
    if not isinstance(place, SentinelUrl):
        return "no Sentinel names a primary"
    # It lists those that did not answer at all, each behind its client.
    if str(error).count(")> - ") < len(place.sentinels):
        return (
            f"nobody names a primary of {place}: those that answer know nothing of that name, "
            "or nothing that is up"
        )
    return f"nobody names a primary of {place}: none of them answers{of_tls(error)}"


def _tls_or_not(place: StoreUrl) -> str:
    return NO_TLS.removeprefix("; ") if place.is_tls else SPEAKS_TLS


def _is_shut(place: StoreUrl, error: Exception) -> bool:
    """Whether it hung up on words in the clear, as a server does that expects TLS."""
    said = spoken(error).lower()
    return not place.is_tls and ("reset" in said or "closed by server" in said)


def _of_cluster(error: Exception) -> str:
    """Say what the client of a cluster means: it quotes others, and them at length."""
    said = f"{error} {error.__cause__ or ''}"
    if "cluster support disabled" in said or "Cluster mode is not enabled" in said:
        return f"cannot be used: {NO_CLUSTER}"
    if "not covered" in said:
        return "cannot be used as a whole: some of its slots have no primary"
    if isinstance(cause := error.__cause__, redis.RedisError):
        return f"cannot be reached: {spoken(cause)}{of_tls(cause)}"
    return f"cannot be reached{of_tls(error)}"


def spoken(error: Exception) -> str:
    """Cut an error down to its own words: the place stands in ours already."""
    cause = error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return without_arguments(error)
