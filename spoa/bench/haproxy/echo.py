"""An agent that thinks nothing and lets everybody in: what HAProxy's SPOE costs by itself.

It walks the frames by their length and copies their ids, which are as long as HAProxy makes them
(those of spoa.bench.load.echo have four bytes). All ACKs of a read leave in one write.
"""

import select
import signal
import socket
from typing import Final

from spoa.bench.load.corpus import ACL
from spoa.bench.load.echo import HELLO
from spoa.bench.load.frames import HEAD_BYTES, LENGTH
from spoa.spop.codec import encode_ack, encode_set_var
from spoa.spop.constants import (
    FRAME_LENGTH_BYTES,
    FrameType,
    Scope,
)
from spoa.spop.varint import skip_varint

# As many and as long as those of the real agent.
_ACTIONS: Final = b"".join(
    encode_set_var(Scope.TRANSACTION, name, value)
    for name, value in (
        (b"class", b"allow"),
        (b"reason", b"ok"),
        (b"acl", ACL),
        (b"user", b"user0000000"),
        (b"groups", b"staff,vpn-users"),
        (b"kid", b"000000000000"),
        (b"allow", True),
    )
)
_READ_BYTES: Final = 256 * 1024


def serve(listener: socket.socket) -> None:
    """Answer every connection of a listener until the process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    rests: dict[int, bytes] = {}
    while True:
        for fd, _ in poll.poll():
            peer = peers.get(fd)
            if peer is None:
                peer, _address = listener.accept()
                peers[peer.fileno()], rests[peer.fileno()] = peer, b""
                poll.register(peer, select.EPOLLIN)
                continue
            try:
                answers, rests[fd] = answer(rests[fd] + _receive(peer))
                peer.sendall(answers)
            except ConnectionError:
                poll.unregister(peer)
                peers.pop(fd).close()


def _receive(peer: socket.socket) -> bytes:
    data = peer.recv(_READ_BYTES)
    if not data:
        raise ConnectionResetError("the peer has closed")
    return data


def answer(data: bytes) -> tuple[bytes, bytes]:
    """Answer the whole frames in `data`: (the answers, the bytes of a frame cut in two).

    Raises ConnectionAbortedError for a DISCONNECT.
    """
    answers = []
    pos = 0
    while len(data) - pos >= FRAME_LENGTH_BYTES:
        end = pos + FRAME_LENGTH_BYTES + LENGTH.unpack_from(data, pos)[0]
        if end > len(data):
            break
        kind = data[pos + FRAME_LENGTH_BYTES]
        if kind == FrameType.NOTIFY:
            ids = pos + HEAD_BYTES
            ids_end = skip_varint(data, skip_varint(data, ids))
            answers.append(encode_ack(data[ids:ids_end], _ACTIONS))
        elif kind == FrameType.HAPROXY_HELLO:
            answers.append(HELLO)
        else:
            raise ConnectionAbortedError(f"frame of type {kind}")
        pos = end
    return b"".join(answers), data[pos:]
