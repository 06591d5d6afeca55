"""Grants as `kat grant` writes them, also for addresses that it never would: the test's own."""

import time

import redis

from tokens.policy.grant import write_end, write_open
from tokens.record import Keys

KEYS = Keys()


def grant(client: redis.Redis, acl: str, member: str, ttl_ms: int = 600_000) -> int:
    """Let it in for so long; return the ms at which that ends."""
    command = write_open(
        KEYS, acl.encode(), member.encode(), user=b"user1", by=b"test", ttl_ms=ttl_ms
    )
    return int(client.execute_command(*command))


def end(client: redis.Redis, acl: str, *members: str) -> int:
    command = write_end(KEYS, acl.encode(), b"", b"", [it.encode() for it in members])
    return int(client.execute_command(*command))


def grant_many(client: redis.Redis, acl: str, members: list[str], ttl_ms: int = 600_000) -> None:
    """Write many in one go, as a program may; tell it once."""
    ends = int(time.time() * 1000) + ttl_ms
    for start in range(0, len(members), 1000):
        some = dict.fromkeys(members[start : start + 1000], ends)
        client.zadd(KEYS.grants(acl.encode()), some)
    client.publish(KEYS.grants_channel, acl)
