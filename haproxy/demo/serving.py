"""Serves an application on a loopback port, in a thread of this process."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# For requests that are under way. WebSockets are told at once.
_PATIENCE_S = 2


@dataclass(frozen=True, slots=True)
class Served:
    """An application that answers."""

    address: str
    """As host:port."""


@contextmanager
def serving(app: Starlette) -> Iterator[Served]:
    """Serve it until the block ends. Raises RuntimeError if it does not start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(_config(app))
        thread = Thread(target=server.run_on, args=(listener,), name="serving")
        thread.start()
        try:
            server.wait_until_up()
            yield Served("{}:{}".format(*listener.getsockname()))
        finally:
            server.should_exit = True
            thread.join()


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        loop="asyncio",
        http="h11",
        ws=WebSocketsSansIOProtocol,  # not by its name: what is missing is missed at import
        # It would log whole URLs, the query with its token too.
        access_log=False,
        # It would change the logging of the whole process.
        log_config=None,
        # Whom to believe is a question for the gate, which stands in front.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE_S,
    )


class _Server(uvicorn.Server):
    """Says when it is up, or has given up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._is_decided = Event()

    def run_on(self, listener: socket.socket) -> None:
        try:
            self.run([listener])
        except SystemExit:
            pass  # uvicorn's word for an application that does not start
        finally:
            self._is_decided.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._is_decided.set()

    def wait_until_up(self) -> None:
        self._is_decided.wait()
        if not self.started:
            raise RuntimeError("the application did not start: its words are in the log")
