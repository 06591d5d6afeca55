"""The application that the gate protects: a real web server that remembers what reached it."""

import threading
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha1
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Received:
    """One request as the application saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    trailers: list[str]

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Application:
    """Answers anything with 200 while entered, on a port of its own.

    `statuses` are the status codes of the next answers; a WebSocket handshake gets 101 and an
    echo of what follows.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: list[HTTPStatus] = []
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def take(self) -> list[Received]:
        """Remove and return what was received so far."""
        received, self.received[:] = list(self.received), []
        return received

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening, for good."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # 64 parallel requests, and more than one test

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of HAProxy's health checks, which reset their connection."""


def _handler_of(application: Application) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            """Take any method, known or not; http.server itself would want a do_* for each."""
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            trailers = self._skip_body()
            application.received.append(
                Received(self.command, self.path, list(self.headers.items()), trailers)
            )
            if self.headers.get("Upgrade", "").lower() == "websocket":
                self._echo()
            else:
                self._answer(application.statuses.pop(0) if application.statuses else HTTPStatus.OK)

        def _skip_body(self) -> list[str]:
            """Read the body and return the trailers behind it."""
            if self.headers.get("Transfer-Encoding") != "chunked":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return []
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + len("\r\n"))
            return [line.decode() for line in iter(self.rfile.readline, b"\r\n")]

        def _answer(self, status: HTTPStatus) -> None:
            body = b"" if self.command == "HEAD" else b"the application\n"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _echo(self) -> None:
            self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "websocket")
            # RFC 6455 4.2.2; HAProxy looks.
            key = self.headers.get("Sec-WebSocket-Key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = b64encode(sha1(key.encode(), usedforsecurity=False).digest()).decode()
            self.send_header("Sec-WebSocket-Accept", accept)
            self.end_headers()
            self.wfile.write(self.rfile.read1())
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
            """Stay quiet: the requests are in `received`."""

    return Handler
