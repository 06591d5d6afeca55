"""Another site, over HTTPS: whatever a test has it say, and not of the world."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ELSEWHERE_PORT = 9443
ELSEWHERE = f"https://elsewhere.example:{ELSEWHERE_PORT}/"
SAME_SITE = f"https://wiki.localhost:{ELSEWHERE_PORT}/"
"""The same server as another origin of the application's site: some things are done there alone."""


@dataclass
class Elsewhere:
    """Serves one page at every path."""

    port: int
    page: str = field(default="", repr=False)


@contextmanager
def elsewhere(certificate: Path) -> Iterator[Elsewhere]:
    """Serve until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.site = Elsewhere(int(server.server_address[1]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    # The handshake is the handler's, in its thread: a browser also opens connections in reserve.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Elsewhere

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that a browser gave up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        body = self.server.site.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Stay quiet."""
