"""Answers Prometheus and whoever asks for health: /metrics, /livez, /readyz over HTTP.

Runs in threads of the supervisor, so a scrape never costs a worker a turn of its loop.
"""

import io
import socket
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from spoa.config.endpoint import TcpEndpoint
from spoa.fleet import Fleet
from spoa.listen import Listener, bind
from spoa.metrics import Exposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

# Prometheus, an orchestrator and a human or two. Whoever comes on top of it waits in the backlog.
MAX_REQUESTS = 8
# A request must be there as a whole within this time, however its bytes trickle in; so must its
# answer be taken. It is one packet: that leaves time to lose it once (RFC 6298: sent again after
# a second), and what waits in the backlog behind MAX_REQUESTS slow peers is answered soon.
REQUEST_TIMEOUT_S = 2.0

_TEXT = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, bytes]
Routes = dict[str, "Callable[[str], Answer]"]
_Request = socket.socket | tuple[bytes, socket.socket]


class HealthServer:
    """Serves at `endpoint` from its construction until `close`. Raises ListenError."""

    def __init__(self, endpoint: TcpEndpoint, fleet: Fleet) -> None:
        self._listener = bind(endpoint)
        self._is_closed = False
        self._server = _Server(self._listener, _routes(fleet))
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> TcpEndpoint:
        """Where it listens; the kernel chose the port if 0 was asked for."""
        host, port, *_ = self._listener.socket.getsockname()
        return TcpEndpoint(host, port)

    def close(self) -> None:
        self._is_closed = True
        # Wakes the accept below; closing the socket alone would not.
        self._listener.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._is_closed:
            self._server.handle_request()


def _routes(fleet: Fleet) -> Routes:
    exposition = Exposition(fleet)

    def metrics(accept: str) -> Answer:
        body, content_type = exposition.text(accept)
        return HTTPStatus.OK, content_type, body

    return {
        "/metrics": metrics,
        "/livez": lambda _: _verdict(fleet.why_not_alive()),
        "/readyz": lambda _: _verdict(fleet.why_not_ready()),
    }


def _verdict(fault: str | None) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK
    return status, _TEXT, f"{fault or 'ok'}\n".encode()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: Listener, routes: Routes) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener.socket
        self.routes = routes
        self._room = threading.BoundedSemaphore(MAX_REQUESTS)

    def process_request(self, request: _Request, client_address: object) -> None:
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        """Keep silent: a client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Hurried(self.connection, REQUEST_TIMEOUT_S))

    def do_GET(self) -> None:
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._answer(*route(self.headers.get("Accept", "")))

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(
        self,
        code: int,
        message: str | None = None,  # noqa: ARG002 - the base class's parameters
        explain: str | None = None,  # noqa: ARG002
    ) -> None:
        """Refuse in plain text. The base class calls this too, and 501 for an unknown method."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._answer(status, _TEXT, f"{status.phrase.lower()}\n".encode())

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        # For all bytes of a write together; for a read the socket's timeout is not.
        self.connection.settimeout(REQUEST_TIMEOUT_S)
        self.send_response(status)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "kat"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep silent: a scrape is no event."""


class _Hurried(io.RawIOBase):
    """Reads a socket until a deadline for all reads together; then raises TimeoutError."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        # Never 0: to a socket that means "do not block".
        self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
        return self._connection.recv_into(buffer)
