"""One SPOP connection of the generator: the handshake, and who waits for an ACK on it."""

import socket
from dataclasses import dataclass, field
from enum import StrEnum

from spoa.bench.fault import Fault
from spoa.bench.load.frames import HEAD_BYTES, LENGTH, encode_hello
from spoa.spop.constants import FRAME_LENGTH_BYTES, FrameType

HELLO_TIMEOUT_S = 5.0

# All connections of one HAProxy process carry its engine-id, so all of a run carry this one.
_ENGINE_ID = b"5a9e6c1e-0000-4000-8000-00000000bec4"


class Refused(Fault):
    """The agent did not complete the handshake."""


class Transport(StrEnum):
    """What a connection goes over, on one machine."""

    UNIX = "unix"
    TCP = "tcp"
    """Loopback."""


@dataclass(slots=True, eq=False)
class Channel:
    """`waiting` and `since` are parallel: which requests are in flight, counted from when."""

    sock: socket.socket
    waiting: list[int] = field(default_factory=list)
    since: list[float] = field(default_factory=list)
    rest: bytes = b""


def connect(address: str) -> Channel:
    """Open one connection and say HELLO. Raises OSError, Refused."""
    sock = dial(address)
    try:
        _greet(sock)
    except BaseException:
        sock.close()
        raise
    sock.settimeout(0)
    return Channel(sock)


def dial(address: str) -> socket.socket:
    """Connect to the path of a unix socket, or to host:port. Raises OSError."""
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(HELLO_TIMEOUT_S)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock
    sock = socket.create_connection(split_address(address), HELLO_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as HAProxy does
    return sock


def split_address(address: str) -> tuple[str, int]:
    """Split host:port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def _greet(sock: socket.socket) -> None:
    sock.settimeout(HELLO_TIMEOUT_S)
    sock.sendall(encode_hello(_ENGINE_ID))
    kind = read_frame(sock)[FRAME_LENGTH_BYTES]
    if kind != FrameType.AGENT_HELLO:
        raise Refused(f"frame of type {kind} instead of AGENT-HELLO")


def ask_once(address: str, frame: bytes) -> bytes:
    """Send one request on a connection of its own and return its ACK. Raises OSError, Refused."""
    sock = connect(address).sock
    with sock:
        sock.settimeout(HELLO_TIMEOUT_S)
        sock.sendall(frame)
        return read_frame(sock)


def read_frame(sock: socket.socket) -> bytes:
    """Read one frame from a blocking socket, length prefix included."""
    head = _read(sock, HEAD_BYTES)
    (length,) = LENGTH.unpack_from(head)
    return head + _read(sock, length + FRAME_LENGTH_BYTES - HEAD_BYTES)


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise Refused("the connection was closed")
        data += chunk
    return data
