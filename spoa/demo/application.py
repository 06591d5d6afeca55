"""The small web application that the demo protects: it greets, and it counts who got through."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from spoa.demo.programs import LOOPBACK


class Application:
    """Serves on a free loopback port for as long as the `with` block lasts."""

    def __init__(self) -> None:
        self._server = _Server((LOOPBACK, 0), _Greeting)
        self._thread = threading.Thread(target=self._server.serve_forever, name="application")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where HAProxy finds it, as host:port."""
        return f"{LOOPBACK}:{self._server.server_port}"

    @property
    def requests(self) -> int:
        """How many requests have reached it. HAProxy's health checks connect and ask nothing."""
        return self._server.requests


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    requests = 0

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._counting = threading.Lock()

    def count(self) -> int:
        with self._counting:
            self.requests += 1
            return self.requests

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep silent: a client that went away is no event."""


class _Greeting(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        number = self.server.count()
        user = self.headers.get("X-KAT-User", "stranger")
        text = (
            f"Hello {user}. This is the protected application, and your request is its {number}.\n"
        )
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep silent: the walk says what happens."""
