"""Redis for commands that a human waits for: one try, a short wait, a sentence.

Not for the hot way (store.py), and not needed by services that issue (issue.py).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ResponseError,
)
from redis.retry import Retry

TIMEOUT_S = 2.0
"""For connecting and for each reply: who waits longer for a store has none."""

MIN_VERSION = (6, 2)
"""Redis of the contract. Valkey's INFO tells a redis_version of 7.2 or later."""


class StoreFault(Exception):
    """Redis cannot be used. The message is a sentence, and holds no secret."""


class StoreUnreachable(StoreFault):
    """No Redis was there to refuse anything."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a Redis says of itself."""

    server: str
    version: str
    role: str
    eviction: str
    is_open: bool
    """Whether it let us in over TCP without a password."""
    is_full: bool
    """Whether it has reached its maxmemory, and refuses to store more."""
    refusal: str
    """Why it takes no commands just now: it is loading, or its disk is full. Mostly empty."""

    def faults(self) -> list[str]:
        """Say why tokens would not be safe in this Redis, or not consumable at all."""
        faults = []
        if tuple(int(part) for part in self.version.split(".")[:2]) < MIN_VERSION:
            faults.append(f"version {self.version} is too old: 6.2 or later is needed")
        if self.role != "master":
            faults.append(f"it is a {self.role}: tokens can be consumed on a primary only")
        if self.eviction != "noeviction":
            faults.append(
                f"maxmemory-policy is {self.eviction}: an evicted tombstone makes a consumed "
                "token whole again; set noeviction"
            )
        if self.is_full:
            faults.append("it is full: used_memory has reached maxmemory; raise maxmemory")
        if self.refusal:
            faults.append(f"it takes no commands: {self.refusal}")
        return faults


@contextlib.contextmanager
def connect(url: str) -> Iterator[redis.Redis]:
    """Open a client that sends no command twice. Raises StoreFault for whatever Redis does."""
    client = redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # in RESP 3 the password travels in HELLO, which an old server echoes
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
    )
    try:
        yield client
    except redis.RedisError as error:
        # Not chained: the sentence says all, and the URL behind it may hold a password.
        raise _fault(error)(_sentence(url, error)) from None
    finally:
        client.close()


def describe_store(url: str) -> StoreFacts:
    """Ask a Redis what it is. Raises StoreFault when it does not answer."""
    with connect(url) as client:
        info: dict[str, object] = client.info("everything")
        return StoreFacts(
            server="valkey" if "valkey_version" in info else "redis",
            version=str(info.get("redis_version", "0.0")),
            role=str(info.get("role", "unknown")),
            eviction=str(info.get("maxmemory_policy", "unknown")),
            is_open=urlsplit(url).scheme == "redis" and "@" not in url,
            is_full=0 < _number(info, "maxmemory") <= _number(info, "used_memory"),
            refusal=_refusal(client),
        )


def _number(info: dict[str, object], name: str) -> int:
    value = info.get(name)
    return value if isinstance(value, int) else 0


def _refusal(client: redis.Redis) -> str:
    """Ask for a PONG. Redis refuses it for what makes it refuse writes: MISCONF and the like.

    The server's own verdict, and so more than INFO's rdb_last_bgsave_status tells: what that
    leads to depends on `save`, `stop-writes-on-bgsave-error` and `appendonly`.
    """
    try:
        client.ping()
    except NoPermissionError:
        return ""  # a user of the contract need not have PING
    except (BusyLoadingError, ResponseError) as error:
        return str(error)
    return ""


def _fault(error: redis.RedisError) -> type[StoreFault]:
    is_answer = isinstance(error, AuthenticationError | BusyLoadingError)
    is_away = isinstance(error, redis.ConnectionError | redis.TimeoutError) and not is_answer
    return StoreUnreachable if is_away else StoreFault


def _sentence(url: str, error: redis.RedisError) -> str:
    match error:
        case AuthenticationError() if "@" not in url:
            return f"Redis at {_place(url)} asks for a password"
        case AuthenticationError():
            return f"Redis at {_place(url)} refuses the user or the password"
        case redis.TimeoutError():
            return f"Redis at {_place(url)} does not answer within {TIMEOUT_S:.0f} s"
        case redis.ConnectionError():
            return f"Redis at {_place(url)} cannot be reached: {_reason(error)}"
        case _:
            # Without the arguments that Redis may echo: HELLO's and AUTH's hold the password.
            said = str(error).partition(", with args")[0]
            return f"Redis at {_place(url)} says: {said}"


def _reason(error: redis.RedisError) -> str:
    """Cut the library's sentence down to the system's: the place stands in ours already."""
    cause = error.__context__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)


def _place(url: str) -> str:
    """Name a Redis without its password."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return unquote(parts.path)
    return f"{parts.hostname}:{parts.port or 6379}"
