"""A line of any length: what goes in at one end comes out at the other a fixed time later.

It stands between the agent and a Redis on this machine, as if that were elsewhere. A process of its
own forwards chunks as they come, in both directions, each after half of the round trip. It holds
back time alone: however much is on its way, nothing waits for room. Its own CPU time is one of the
figures, and its wake-ups (25 to 50 us each) come on top of what is asked for.
"""

import os
import select
import signal
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from multiprocessing import parent_process
from time import perf_counter

from spoa.bench.load.channel import dial
from spoa.bench.load.player import sharpen_timer
from spoa.bench.servers import Child, child

_READ_BYTES = 1024 * 1024
# Neither end has to wait for us to be awake: more than either ever has under way.
_BUFFER_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Lane:
    """One direction: chunks on their way, each with the moment when it arrives."""

    one_way_s: float
    chunks: deque[tuple[float, bytes]] = field(default_factory=deque)

    def put(self, chunk: bytes, now: float) -> None:
        self.chunks.append((now + self.one_way_s, chunk))

    def take(self, now: float) -> list[bytes]:
        """Take what has arrived by now, in order."""
        arrived = []
        while self.chunks and self.chunks[0][0] <= now:
            arrived.append(self.chunks.popleft()[1])
        return arrived

    @property
    def due(self) -> float:
        """When the next chunk arrives."""
        return self.chunks[0][0] if self.chunks else inf


@contextmanager
def delay_line(target: str, round_trip_s: float, cores: Sequence[int]) -> Iterator[Child]:
    """Run a line to `target` (host:port), at a loopback port of its own."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        child(listener, serve, target, round_trip_s / 2, cores) as running,
    ):
        yield running


def serve(listener: socket.socket, target: str, one_way_s: float, cores: Sequence[int]) -> None:
    """Forward every connection of a listener until the process is ended, or its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.sched_setaffinity(0, cores)
    sharpen_timer()
    parent = parent_process()
    assert parent
    ends = _Ends(target, one_way_s)
    for fd in (listener.fileno(), int(parent.sentinel)):
        ends.poll.register(fd, select.EPOLLIN)
    while True:
        wait_s = max(ends.due - perf_counter(), 0)
        # select(2) counts microseconds, Python's epoll_wait(2) milliseconds.
        if select.select((ends.poll,), (), (), None if wait_s == inf else wait_s)[0]:
            now = perf_counter()
            for fd, _ in ends.poll.poll(0):
                if fd == parent.sentinel:
                    return
                if fd == listener.fileno():
                    ends.join(listener.accept()[0])
                else:
                    ends.read(fd, now)
        ends.deliver(perf_counter())


@dataclass(slots=True)
class _Way:
    """From where to where a lane leads."""

    source: socket.socket
    sink: socket.socket
    lane: Lane


class _Ends:
    """All connections of a line."""

    def __init__(self, target: str, one_way_s: float) -> None:
        self.poll = select.epoll()
        self._target = target
        self._one_way_s = one_way_s
        self._ways: dict[int, _Way] = {}

    @property
    def due(self) -> float:
        return min((way.lane.due for way in self._ways.values()), default=inf)

    def join(self, near: socket.socket) -> None:
        """Lead a connection to the target."""
        try:
            far = dial(self._target)
        except OSError:
            near.close()
            return
        for source, sink in ((near, far), (far, near)):
            source.settimeout(None)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            self._ways[source.fileno()] = _Way(source, sink, Lane(self._one_way_s))
            self.poll.register(source, select.EPOLLIN)

    def read(self, fd: int, now: float) -> None:
        """Put what came on its way; the end of a connection travels as everything else does."""
        way = self._ways.get(fd)
        if way is None:
            return
        try:
            chunk = way.source.recv(_READ_BYTES)
        except OSError:
            chunk = b""
        way.lane.put(chunk, now)
        if not chunk:
            self.poll.unregister(way.source)

    def deliver(self, now: float) -> None:
        """Write what has arrived. Agent and Redis never stop to read: nobody is waited for."""
        for way in list(self._ways.values()):
            chunks = way.lane.take(now)
            try:
                if chunks:
                    way.sink.sendall(b"".join(chunks))
            except OSError:
                self._part(way)
            else:
                if chunks and not chunks[-1]:
                    self._part(way)

    def _part(self, way: _Way) -> None:
        """End a connection in both directions."""
        for sock in (way.source, way.sink):
            if self._ways.pop(sock.fileno(), None):
                sock.close()  # which leaves the poll, too
