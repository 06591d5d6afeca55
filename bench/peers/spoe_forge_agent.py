"""PyPI's spoe-forge, as its README shows it, with redis.asyncio.

Three things are not as the README has them, all in its favour: a unix socket instead of TCP,
uvloop, and silence (it logs a line per request unless told otherwise).
"""

import asyncio
import logging
import sys

import uvloop
from redis.asyncio import Redis
from spoe_forge import ActionScope, AgentContext, SetVarAction, SpoeForge

from bench.peers.asyncio_baseline import REDIS_CONNECTIONS


async def main(spop_socket: str, redis_socket: str) -> None:
    logging.getLogger("spoe_forge").setLevel(logging.ERROR)
    store = Redis(
        unix_socket_path=redis_socket, max_connections=REDIS_CONNECTIONS, decode_responses=True
    )
    agent = SpoeForge(name="peer")

    async def consume(asked: AgentContext) -> list[SetVarAction]:
        user = str(await store.getdel(f"token:{asked.get_arg('token')}") or "")
        return [
            _set("allow", bool(user)),
            _set("user", user),
            _set("reason", "ok" if user else "unknown"),
        ]

    agent.message("check-http")(consume)
    # Its public `serve` knows TCP only; this is what `serve` hands to asyncio.start_server.
    handle = agent._handler  # noqa: SLF001
    server = await asyncio.start_unix_server(handle, spop_socket, backlog=512)
    await server.serve_forever()


def _set(name: str, value: bool | str) -> SetVarAction:  # noqa: FBT001 - a value, not a flag
    return SetVarAction(scope=ActionScope.TRANSACTION, name=name, value=value)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
