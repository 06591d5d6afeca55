"""Ending an asyncio server without a trace."""

import asyncio


def stop_accepting(server: asyncio.Server) -> None:
    """Accept nothing more, but let what is being accepted be finished. Close the server only then.

    Of a server that is closed asyncio cannot finish it: half a transport is left, and the garbage
    collector complains of that in whatever test runs then.
    """
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
