"""What Redis stores: tokens by the million, and how many bytes one thing of each kind takes.

Every value is a copy of a real one: what an issuer wrote, what the agent made of it. The keys
differ, and are as long as real ones.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import redis

from spoa.bench.fault import Fault
from spoa.bench.load.channel import ask_once
from spoa.bench.load.corpus import CLIENTS, TTL_S, Issued, issue, mint
from spoa.bench.load.frames import decode_actions, encode_at, encode_ids
from spoa.bench.load.holdings import grant_all
from spoa.bench.load.prepared import encode_request
from spoa.bench.memory import MB
from spoa.bench.scenario import Scenario
from spoa.bench.servers import private_redis
from tokens.policy.session import session_digest
from tokens.record import Keys

GRANTED: Final = Scenario.GRANT.case.acl

TOKEN_BYTES: Final = 600
"""What a stored token takes at most, its share of a table that has just been doubled included."""

_KEYS: Final = Keys()
_PER_CALL: Final = 5_000
"""So many per script call: Redis serves nobody else meanwhile (20 ms)."""

# 64 digits that no real name has: a SHA-1, and its first 24 digits once more.
_COPY = """
for i = tonumber(ARGV[4]), tonumber(ARGV[5]) do
  local digits = redis.sha1hex(i)
  local key = ARGV[1] .. digits .. string.sub(digits, 1, 24)
  redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
end
"""
# A list as `session` writes it: one for each user, whose name is no digest.
_COPY_LIST = """
for i = tonumber(ARGV[4]), tonumber(ARGV[5]) do
  local key = ARGV[1] .. string.format('user%07d', i)
  redis.call('ZADD', key, redis.call('TIME')[1] * 1000 + ARGV[3], ARGV[2])
  redis.call('PEXPIRE', key, ARGV[3])
end
"""

Tell = Callable[[int], None]
"""Hears how many there are by now."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that is stored: how its keys begin, and a real value."""

    prefix: bytes
    value: bytes
    is_list: bool = False


def fill(redis_socket: str, count: int, tell: Tell) -> None:
    """Store so many tokens that nobody asks for."""
    (token,) = mint(1)
    issue(redis_socket, [token])
    with redis.Redis(unix_socket_path=redis_socket) as client:
        _copy(client, Kind(_KEYS.token(b""), _get(client, _KEYS.token(token.digest))), count, tell)


def room_for(count: int) -> str | None:
    """Say why so many tokens would not fit into this machine's memory, or None."""
    needed_mb = count * TOKEN_BYTES / MB
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free_mb = int(line.split()[1]) / 1024
            if needed_mb > free_mb / 2:
                return (
                    f"{count:,} stored tokens are left out: they need {needed_mb:,.0f} MB, "
                    f"and half of what is free is {free_mb / 2:,.0f} MB"
                )
    return None


def kinds(agent_socket: str, redis_socket: str) -> dict[str, Kind]:
    """Have an agent make one of each, and look what stands in Redis."""
    strict, session = mint(2)
    opened = Scenario.SESSION_OPEN.case
    issue(redis_socket, [strict])
    issue(redis_socket, [session], opened.acl)
    with redis.Redis(unix_socket_path=redis_socket) as client:
        token = _get(client, _KEYS.token(strict.digest))
        _ask(agent_socket, strict, Scenario.CONSUME)
        tombstone = _get(client, _KEYS.token(strict.digest))
        digest = session_digest(_ask(agent_socket, session, Scenario.SESSION_OPEN))
        return {
            "token": Kind(_KEYS.token(b""), token),
            "consumed token": Kind(_KEYS.token(b""), tombstone),
            "session": Kind(_KEYS.session(b""), _get(client, _KEYS.session(digest))),
            "session, listed for its user": Kind(_KEYS.sub(b""), b"s:" + digest, is_list=True),
        }


def bytes_of(made: Mapping[str, Kind], directory: Path, count: int, tell: Tell) -> dict[str, float]:
    """Say what one of each takes: the growth of an empty Redis's `used_memory` by `count` of them.

    So key, value, end, and the places in Redis's tables are included.
    """
    found = {}
    for number, (name, kind) in enumerate(made.items()):
        with _scratch(directory / f"kind-{number}") as (_, client):
            found[name] = _growth(client, partial(_copy, client, kind, count, tell)) / count
    with _scratch(directory / "grants") as (path, client):
        found["grant"] = _growth(client, partial(grant_all, path, GRANTED)) / CLIENTS
    return found


def audit_event_bytes(redis_socket: str, events: int) -> float:
    """Say what one event takes in the audit, if so many were written into it."""
    with redis.Redis(unix_socket_path=redis_socket) as client:
        size = client.memory_usage(_KEYS.audit, samples=0)
    if not size:
        raise Fault("no audit was written")
    return int(size) / events


def _copy(client: "redis.Redis", kind: Kind, count: int, tell: Tell) -> None:
    script = client.register_script(_COPY_LIST if kind.is_list else _COPY)
    for first in range(1, count + 1, _PER_CALL):
        last = min(first + _PER_CALL - 1, count)
        script(args=[kind.prefix, kind.value, TTL_S * 1000, first, last])
        tell(last)


def _get(client: "redis.Redis", key: bytes) -> bytes:
    value = client.get(key)
    if not isinstance(value, bytes):
        raise Fault("what was just written is not in Redis")
    return value


def _ask(agent_socket: str, token: Issued, scenario: Scenario) -> bytes:
    """Have a token consumed; return the id of the session that this has opened, if any."""
    frame = encode_request(0, encode_ids(0), token, scenario.case) + encode_at(time.time())
    answer = decode_actions(ask_once(agent_socket, frame))
    if not answer.get(b"allow"):
        raise Fault(f"the agent refuses a fresh token: {answer.get(b'reason')!r}")
    session = answer.get(b"session")
    return session if isinstance(session, bytes) else b""


@contextmanager
def _scratch(directory: Path) -> Iterator[tuple[str, "redis.Redis"]]:
    """Start an empty Redis: its socket, and a client."""
    directory.mkdir(parents=True)
    with (
        private_redis(directory) as store,
        redis.Redis(unix_socket_path=store.socket) as client,
    ):
        yield store.socket, client


def _growth(client: "redis.Redis", act: Callable[[], None]) -> int:
    before = _used(client)
    act()
    return _used(client) - before


def _used(client: "redis.Redis") -> int:
    return int(client.info("memory")["used_memory"])
