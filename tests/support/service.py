"""A TCP service that speaks first, as SSH and SMTP do, and then says back what it is told."""

import socketserver
import threading
from types import TracebackType
from typing import Self

GREETING = b"220 here I am\r\n"


class Service:
    """Greets and echoes while entered, on a port of its own. `heard` is all that it was told."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of HAProxy's health checks, which reset their connection."""


def _handler_of(service: Service) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(GREETING)
            for line in self.rfile:
                service.heard.append(line)
                self.wfile.write(line)

    return Handler
