"""PyPI's haproxyspoa, as its README shows it, with redis.asyncio.

Three things are not as the README has them, all in its favour: a unix socket instead of TCP,
uvloop, and silence (it logs three lines per request unless told otherwise).

It announces no capability and awaits one answer before it reads the next frame, so HAProxy gives
it one request per connection at a time. It has no way to say a bool: True leaves as the integer 1.
"""

import asyncio
import logging
import sys

import uvloop
from haproxyspoa.payloads.ack import AckPayload
from haproxyspoa.spoa_server import SpoaServer
from redis.asyncio import Redis

from bench.peers.asyncio_baseline import REDIS_CONNECTIONS


async def main(spop_socket: str, redis_socket: str) -> None:
    logging.getLogger("haproxyspoa").setLevel(logging.ERROR)
    store = Redis(
        unix_socket_path=redis_socket, max_connections=REDIS_CONNECTIONS, decode_responses=True
    )
    agent = SpoaServer()

    async def consume(token: str, **_others: object) -> object:
        user = str(await store.getdel(f"token:{token}") or "")
        return (
            AckPayload()
            .set_txn_var("allow", bool(user))
            .set_txn_var("user", user)
            .set_txn_var("reason", "ok" if user else "unknown")
        )

    agent.handler("check-http")(consume)
    server = await asyncio.start_unix_server(agent.handle_connection, spop_socket, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
