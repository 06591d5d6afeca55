"""What is granted and blocked, for those who mirror it: HAProxy's ACLs, a firewall's sets."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import redis
from redis.sentinel import SentinelConnectionPool

from tokens.admin.news import News
from tokens.admin.scan import Scanner
from tokens.policy.cut import Cut
from tokens.policy.grant import read_member
from tokens.record import MAX_INTEGER, Keys
from tokens.spelling import shown
from tokens.store.client import Client

MAX_UNREAD: Final = 20
"""Of an ACL, and how many more: who writes one that nobody can read may write a million."""

_BLOCK: Final = b"addr:"

# The longest network in its canonical spelling has 43.
_MAX_MEMBER_BYTES: Final = 64

# As often as agents do: after a failover in good order the old primary goes on for ten seconds.
_ASK_SENTINELS_S: Final = 1.0

# To read one takes 6 us, and they are the same ones each second. 30 MB when it is full.
_REMEMBERED_MEMBERS: Final = 131_072


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What stood at one moment. Times in ms, by Redis's clock."""

    now_ms: int
    """By the clock that agents judge by, from before the rest was read."""
    grants: Mapping[str, Mapping[str, int]]
    """Each ACL that was asked for -> address or network -> when that ends. None of them is over."""
    blocks: Mapping[str, int]
    """Address or network -> until when it is blocked."""
    unread: Mapping[str, Sequence[str]]
    """ACL -> what stands there and lets nobody in: no agent looks for what is spelt like that."""


class Mirror:
    """Reads grants and blocks as agents judge them, and waits for changes.

    A grant stands while its score is above Redis's time. Agents look for no revocation when they
    judge one: who revokes ends the grants. A block stands while its time is above Redis's, and for
    ever if that cannot be read. Both count by their one spelling; any other matches nobody.

    To put them together is the caller's, as agents do it: a client is refused if its address or any
    network around it is blocked. Not for several threads at once.
    """

    def __init__(self, client: Client, prefix: str, acls: Sequence[str]) -> None:
        """Take a client of `open_client`, which speaks RESP 2; who opened it closes it."""
        self._client = client
        self._keys = Keys(prefix)
        self._acls = tuple(dict.fromkeys(acls))
        self._scanner = Scanner(client)
        self._news = News(
            lambda: self._scanner.home(self._keys.cut),
            self._keys.grants_channel,
            frozenset(map(str.encode, self._acls)),
        )
        self._heard_from = ""
        self._ask_sentinels_at = 0.0

    def read(self) -> Snapshot:
        """Read what stands. What changes after this began ends the next `wait`.

        Raises redis.RedisError when Redis does not answer, or refuses.
        """
        try:
            return self._read()
        except (redis.ConnectionError, redis.TimeoutError):
            # Perhaps a replica was promoted in its place: the next reading shall find it.
            with suppress(redis.RedisError):
                self._scanner.look_again()
            raise

    def wait(self, timeout_s: float) -> bool:
        """Wait until told that something changed; False when the time is over.

        All that came meanwhile is one change, and so is a subscription that was lost. Never raises:
        the next reading subscribes again, or says why it cannot.
        """
        return self._news.wait(timeout_s)

    def close(self) -> None:
        """Stop listening. The client stays open."""
        self._news.close()

    def _read(self) -> Snapshot:
        self._follow_sentinels()
        is_new = self._news.confirm()
        cut = self._scanner.fields(self._keys.cut, _BLOCK + b"*")
        if is_new:
            self._heard_from = cut.server
        elif cut.server != self._heard_from:
            self._news.close()  # the next reading subscribes where this one went
        grants: dict[str, dict[str, int]] = {}
        unread: dict[str, list[str]] = {}
        for acl in self._acls:
            grants[acl], odd = self._grants(acl, cut.now_ms)
            if odd:
                unread[acl] = odd
        return Snapshot(cut.now_ms, grants, _blocks(cut.found, cut.now_ms), unread)

    def _follow_sentinels(self) -> None:
        """Let connections to a primary of yesterday go. A client asks only when it connects."""
        if (
            isinstance(self._client, redis.RedisCluster)
            or time.monotonic() < self._ask_sentinels_at
        ):
            return
        pool = self._client.connection_pool
        if isinstance(pool, SentinelConnectionPool):
            # Those that name nobody keep nobody from reading: agents go on as well.
            with suppress(redis.RedisError):
                pool.get_master_address()  # type: ignore[no-untyped-call]
            self._ask_sentinels_at = time.monotonic() + _ASK_SENTINELS_S

    def _grants(self, acl: str, now_ms: int) -> tuple[dict[str, int], list[str]]:
        """Return what stands, and what nobody can read."""
        key = self._keys.grants(acl.encode())
        try:
            found = self._scanner.scores(key).found
        except redis.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            # To agents no grant of this ACL stands; those of others do.
            return {}, [f"{shown(key.decode())} is no sorted set"]
        ends: dict[str, int] = {}
        odd: list[bytes] = []
        for member, score in found.items():
            if score > now_ms:
                if (name := _spelt(member)) is not None:
                    # Up, so that it is over exactly when agents, who compare, find it over.
                    ends[name] = math.ceil(min(score, MAX_INTEGER))
                else:
                    odd.append(member)
        return ends, _listed(odd)


def _blocks(fields: Mapping[bytes, bytes], now_ms: int) -> dict[str, int]:
    """Read blocks by the agents' own reading."""
    cut = Cut(fields=[part for pair in fields.items() for part in pair])
    ends: dict[str, int] = {}
    for field in fields:
        name = _spelt(field.removeprefix(_BLOCK))
        if name is not None and (until_ms := cut.blocked_until(name.encode())) > now_ms:
            ends[name] = int(min(until_ms, MAX_INTEGER))
    return ends


def _spelt(member: bytes) -> str | None:
    """Read the name of an address or a network; None for what no agent looks for."""
    return _read(member) if len(member) <= _MAX_MEMBER_BYTES else None


@lru_cache(_REMEMBERED_MEMBERS)
def _read(member: bytes) -> str | None:
    try:
        text = member.decode()
        return text if read_member(text) == text else None
    except ValueError:
        return None


def _listed(members: Sequence[bytes]) -> list[str]:
    """Show some of them, always the same ones."""
    some = [shown(member.decode(errors="replace")) for member in sorted(members)[:MAX_UNREAD]]
    more = len(members) - len(some)
    return [*some, f"and {more} more"] if more else some
