"""TLS before something that speaks none: what a client of a rediss:// port needs to see."""

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

CERTIFICATE = Path(__file__).parents[1] / "e2e" / "localhost.pem"
"""Of `localhost`, with its key; signed by itself, so it is its own CA."""


@contextlib.contextmanager
def tls_front(port: int) -> Iterator[int]:
    """Listen with TLS on a free port of 127.0.0.1, which is given, and pass all on to `port`.

    One connection after the other: its clients have no more than one at a time.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context, port))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            raw, _ = listener.accept()
        except OSError:
            return
        # A stranger who does not like our certificate, or leaves in the middle, is no error.
        with (
            raw,
            contextlib.suppress(OSError),
            context.wrap_socket(raw, server_side=True) as client,
        ):
            _carry(client, port)


def _carry(client: ssl.SSLSocket, port: int) -> None:
    """Pass on until either side ends."""
    with socket.create_connection(("127.0.0.1", port)) as server:
        ways: dict[socket.socket, socket.socket] = {client: server, server: client}
        while True:
            readable, _, _ = select.select(ways, [], [])
            for source in readable:
                data = source.recv(65536)  # more than a TLS record: nothing stays behind unseen
                if not data:
                    return
                ways[source].sendall(data)
