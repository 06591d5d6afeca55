"""An agent that thinks nothing: every NOTIFY gets the same ACK. It shows the generator's ceiling.

It walks the frames by their length and copies four bytes of ids, which is less than any agent can
do; so what the generator reaches against it bounds what it can say about a real one.
"""

import os
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path

from spoa.bench.load.channel import Transport
from spoa.bench.load.corpus import ACL
from spoa.bench.load.frames import HEAD_BYTES, IDS_BYTES, LENGTH
from spoa.bench.servers import Child, child
from spoa.spop.codec import encode_ack, encode_set_var
from spoa.spop.constants import (
    DEFAULT_MAX_FRAME_BYTES,
    FRAME_LENGTH_BYTES,
    PIPELINING,
    FrameType,
    Scope,
)
from spoa.spop.hello import Agreement

HELLO = Agreement(DEFAULT_MAX_FRAME_BYTES, (PIPELINING,), b"", is_health_check=False).frame
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


@contextmanager
def echo_agent(directory: Path, cores: Sequence[int], transport: Transport) -> Iterator[Child]:
    """Run one, in a process of its own."""
    is_unix = transport is Transport.UNIX
    with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET) as listener:
        listener.bind(str(directory / "echo.sock") if is_unix else ("127.0.0.1", 0))
        listener.listen(512)
        with child(listener, serve, cores) as running:
            yield running


def serve(listener: socket.socket, cores: Sequence[int]) -> None:
    """Answer every connection of a listener until the process is ended, or its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.sched_setaffinity(0, cores)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    parent = parent_process()
    if parent:
        poll.register(parent.sentinel, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    rests: dict[int, bytes] = {}
    while True:
        for fd, _ in poll.poll():
            peer = peers.get(fd)
            if parent and fd == parent.sentinel:
                return
            if peer is None:
                peer, _address = listener.accept()
                if listener.family == socket.AF_INET:
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        return HELLO, b""
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
