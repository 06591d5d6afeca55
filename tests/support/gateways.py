"""A server of AirWatch: TLS or plain TCP, looked after by HEAD, and it tells who it is.

Run as a program it serves plain TCP until its stdin ends:

    python tests/support/gateways.py NAME ADDRESS PORT
"""

import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from tokens.store.tls import TlsFiles

_BACKLOG = 256


class Gateway:
    """Answers each line with its name, the client's address and the line, and HEAD as HTTP wants.

    `is_ill` makes it answer HEAD with 503: connections that are open notice nothing. `heads` are
    the lines of each HEAD, `heard` the other lines, `asked_for` the name that each TLS client asked
    for.
    """

    def __init__(self, name: str, files: TlsFiles | None = None) -> None:
        self.name = name
        self.is_ill = False
        self.heads: list[list[str]] = []
        self.heard: list[bytes] = []
        self.asked_for: list[str | None] = []
        self._context = _context(files, self.asked_for) if files else None
        self._listener: socket.socket | None = None
        self._place = ("", 0)
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.refuse()
        with self._lock:
            for client in self._open:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def listen(self, address: str, port: int = 0) -> int:
        """Serve at this address; return the port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
        self._place = self._listener.getsockname()[:2]
        self._start(self._accept, self._listener)
        return int(self._place[1])

    def listen_again(self) -> None:
        """Serve where it was before it refused."""
        self.listen(*self._place)

    def refuse(self) -> None:
        """Refuse connections from now on. Those that are open stay."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            self._listener.close()
            self._listener = None

    def _start(self, run: Callable[[socket.socket], None], on: socket.socket) -> None:
        thread = threading.Thread(target=run, args=(on,))
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context is not None:
                    client = self._context.wrap_socket(
                        client, server_side=True, do_handshake_on_connect=False
                    )
                with self._lock:
                    self._open.add(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        # Checks of bare TCP leave without a word, strangers in the middle of a handshake.
        with suppress(OSError), ExitStack() as stack:
            stack.enter_context(client)
            stack.callback(self._forget, client)
            me = f"{self.name} {client.getpeername()[0]} ".encode()
            if isinstance(client, ssl.SSLSocket):
                client.do_handshake()
            lines = stack.enter_context(client.makefile("rb"))
            for line in lines:
                if line.startswith(b"HEAD "):
                    self._answer_head(client, [line, *iter(lines.readline, b"\r\n")])
                    return
                self.heard.append(line)
                client.sendall(me + line)

    def _forget(self, client: socket.socket) -> None:
        with self._lock:
            self._open.discard(client)

    def _answer_head(self, client: socket.socket, head: list[bytes]) -> None:
        self.heads.append([line.decode().rstrip() for line in head])
        status = b"503 Service Unavailable" if self.is_ill else b"200 OK"
        client.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)


def _context(files: TlsFiles, asked_for: list[str | None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert_file, files.key_file)
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    return context


if __name__ == "__main__":
    with Gateway(sys.argv[1]) as gateway:
        gateway.listen(sys.argv[2], int(sys.argv[3]))
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        sys.stdin.read()
