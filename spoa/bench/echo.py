"""An agent that thinks nothing: every NOTIFY gets the same ACK. It shows the generator's ceiling.

It walks the frames by their length and copies four bytes of ids, which is less than any agent can
do; so what the generator reaches against it bounds what it can say about a real one.
"""

import os
import select
import signal
import socket
from collections.abc import Sequence

from spoa.bench.corpus import ACL
from spoa.bench.frames import HEAD_BYTES, IDS_BYTES, LENGTH
from spoa.spop.codec import encode_ack, encode_frame, encode_set_var
from spoa.spop.constants import (
    DEFAULT_MAX_FRAME_BYTES,
    FRAME_LENGTH_BYTES,
    PIPELINING,
    SPOP_VERSION,
    DataType,
    FrameType,
    Scope,
)

_HELLO = encode_frame(
    FrameType.AGENT_HELLO,
    (
        (b"version", DataType.STRING, SPOP_VERSION),
        (b"max-frame-size", DataType.UINT32, DEFAULT_MAX_FRAME_BYTES),
        (b"capabilities", DataType.STRING, PIPELINING),
    ),
)
_ACTIONS = b"".join(
    encode_set_var(Scope.TRANSACTION, name, value)
    for name, value in (
        (b"class", b"denied"),
        (b"reason", b"echo"),
        (b"acl", ACL),
        (b"user", b"somebody000"),
        (b"groups", b"staff,vpn-users"),
        (b"kid", b"000000000000"),
    )
)
_ACK_HEAD = encode_ack(bytes(IDS_BYTES), _ACTIONS)[:HEAD_BYTES]
_BETWEEN_IDS = _ACTIONS + _ACK_HEAD
_READ_BYTES = 256 * 1024


def serve(listener: socket.socket, cores: Sequence[int]) -> None:
    """Answer every connection of a listener until the process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.sched_setaffinity(0, cores)
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
            elif data := peer.recv(_READ_BYTES):
                answers, rests[fd] = answer(rests[fd] + data)
                peer.sendall(answers)
            else:
                poll.unregister(peer)
                peers.pop(fd).close()


def answer(data: bytes) -> tuple[bytes, bytes]:
    """Answer the whole frames in `data`: (their ACKs, the bytes of a frame cut in two)."""
    if data[FRAME_LENGTH_BYTES] == FrameType.HAPROXY_HELLO:
        return _HELLO, b""
    ids = []
    pos = 0
    while len(data) - pos >= FRAME_LENGTH_BYTES:
        end = pos + FRAME_LENGTH_BYTES + LENGTH.unpack_from(data, pos)[0]
        if end > len(data):
            break
        ids.append(data[pos + HEAD_BYTES : pos + HEAD_BYTES + IDS_BYTES])
        pos = end
    answers = _ACK_HEAD + _BETWEEN_IDS.join(ids) + _ACTIONS if ids else b""
    return answers, data[pos:]
