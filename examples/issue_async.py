"""Issue a token from asyncio: `issue_async.py USER ACL TTL`. Prints the token and nothing else.

REDIS_URL says where Redis is, and holds the password if there is one; REDIS_CA names the PEM file
of a CA of your own, for rediss://. Besides this project, which brings `redis` along, nothing is
needed.
"""

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path

import redis

from tokens.issue import AsyncIssuer, NotIssued, TlsFiles, connect_async, explain

ATTEMPTS = 3
TIMEOUT_S = 5


async def issue(issuer: AsyncIssuer, user: str, acl: str, ttl_s: int) -> str:
    """Issue one token; in doubt whether it stands, another, never the same one again."""
    for left in reversed(range(ATTEMPTS)):
        try:
            async with asyncio.timeout(TIMEOUT_S):
                # More can be said: groups=["staff"], src="192.0.2.7", path="/wiki", ...
                return (await issuer.issue(user, acl, ttl_s)).token
        except (NotIssued, redis.RedisError, TimeoutError):
            if not left:
                raise
    raise AssertionError


async def main() -> int:
    """Read the arguments, and say what is wrong in one sentence."""
    try:
        user, acl, ttl = sys.argv[1:]
        ttl_s = int(ttl)
    except ValueError:
        return _told("give it a user, an ACL and the seconds that the token lives", 2)
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1")
    ca = os.environ.get("REDIS_CA")
    tls = TlsFiles(ca_file=Path(ca) if ca else None)
    try:
        # Once per program, not per token: the client keeps its connections.
        async with aclosing(connect_async(url, tls=tls)) as client:
            print(await issue(AsyncIssuer(client), user, acl, ttl_s))
    except ValueError as error:  # which field, its value, and what is allowed
        return _told(str(error), 2)
    except (NotIssued, redis.RedisError, TimeoutError) as error:
        return _told(f"Redis did not confirm a token: {explain(url, error)}; see REDIS_URL", 1)
    return 0


def _told(sentence: str, code: int) -> int:
    print(f"issue_async.py: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
