"""asyncio on one side, `spop.Connection` on the other: bytes, back-pressure, time-outs."""

import asyncio
from typing import cast

from spoa.config.sections import Limits
from spoa.counters import WorkerCounters
from spoa.log import fields, log
from spoa.spop.connection import Connection, EndedBy, Ending, State
from spoa.spop.constants import StatusCode
from spoa.spop.template import Templates
from spoa.worker.age import AgeGauge
from spoa.worker.agent import Agent
from spoa.worker.requests import WANTED

# HAProxy needs three or four connections in steady state and one per waiting request in a cold
# burst; `bench` saw 1,676 at once. At 20 KB each, 8,192 silent ones hold 160 MB, and no more.
MAX_CONNECTIONS = 8192

# How long HAProxy has for closing after our last word. It must go first: 3.2 misses a DISCONNECT
# that is followed at once by our FIN, and its requests then wait for the whole time-out (16 of
# 25 tries; none of 25 when HAProxy closes). Whoever is no HAProxy stays no longer than this.
CLOSE_TIMEOUT_S = 2.0

# HAProxy processes that are remembered, the oldest forgotten first: each reload is a new one.
MAX_ENGINES = 256

COMPLAINT_INTERVAL_S = 1.0
"""A peer that is no HAProxy is worth one line a second, not one for each attempt."""


class SpopServer:
    """What the connections of one worker share. Call it for a new connection's protocol."""

    def __init__(self, agent: Agent, limits: Limits, counters: WorkerCounters) -> None:
        self.loop = asyncio.get_running_loop()
        self.agent = agent
        self.limits = limits
        self.counters = counters
        self.links: set[SpopLink] = set()
        self.templates = Templates(WANTED)
        self.is_draining = False
        self._has_none = asyncio.Event()
        self._ages: dict[bytes, AgeGauge] = {}
        self._complained_at = -COMPLAINT_INTERVAL_S
        self._unsaid = 0

    def __call__(self, *, is_local: bool) -> "SpopLink":
        """Make one. `is_local`: it has no peers but HAProxies on this host."""
        return SpopLink(self, is_local=is_local)

    def ages_of(self, engine_id: bytes, *, is_local: bool) -> AgeGauge:
        """Find the gauge of a HAProxy process, or of its thread: its connections share one."""
        if not engine_id:
            return AgeGauge(is_local=is_local)
        if engine_id not in self._ages and len(self._ages) >= MAX_ENGINES:
            del self._ages[next(iter(self._ages))]
        return self._ages.setdefault(engine_id, AgeGauge(is_local=is_local))

    def complain(self, ending: Ending) -> None:
        """Log that a peer broke the protocol, and how many more did since the last line."""
        self.counters.protocol_error(StatusCode(ending.status))
        now = self.loop.time()
        if now - self._complained_at < COMPLAINT_INTERVAL_S:
            self._unsaid += 1
            return
        facts = fields(status=ending.status, reason=ending.message, unsaid=self._unsaid)
        log.warning("spop peer refused", extra=facts)
        self._complained_at, self._unsaid = now, 0

    def stop_taking(self) -> None:
        """Drop what arrives from now on: `disconnect_all` follows, and HAProxy asks elsewhere.

        Under load there is always something in flight. Waiting for a moment without took the
        whole `drain_s`, and then cut off what was asked last.
        """
        self.is_draining = True

    def disconnect_all(self, message: str) -> None:
        """Say AGENT-DISCONNECT on every connection and close it."""
        for link in tuple(self.links):
            link.disconnect(StatusCode.NORMAL, message)

    async def wait_closed(self) -> None:
        """Wait until no connection is left."""
        while self.links:
            self._has_none.clear()
            await self._has_none.wait()

    def forget(self, link: "SpopLink") -> None:
        self.links.discard(link)
        if not self.links:
            self._has_none.set()

    def abort_all(self) -> None:
        for link in tuple(self.links):
            link.abort()


class SpopLink(asyncio.Protocol):
    """One connection to HAProxy."""

    def __init__(self, server: SpopServer, *, is_local: bool) -> None:
        self._server = server
        self._is_local = is_local
        self._connection = Connection(server.limits.max_frame_bytes, server.templates)
        self._acks: list[bytes] = []
        self.queue = self._acks.append
        """Takes an ACK for the next `flush`."""
        self.ages = AgeGauge()

    @property
    def is_open(self) -> bool:
        return self._connection.state is State.OPEN and not self._transport.is_closing()

    @property
    def max_frame_bytes(self) -> int:
        return self._connection.max_frame_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by isinstance
        server = self._server
        server.counters.connection_opened()
        server.links.add(self)
        timeout_s = server.limits.handshake_timeout_s
        self._handshake = server.loop.call_later(timeout_s, self._miss_handshake)
        if len(server.links) > MAX_CONNECTIONS:
            message = f"{MAX_CONNECTIONS} connections are the limit"
            self.disconnect(StatusCode.RESOURCE_ALLOCATION, message)

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection.is_closing or self._server.is_draining:
            return
        notifies = connection.receive_data(data)
        if connection.has_outgoing:
            self._control()
        if notifies:
            self._server.agent.receive(self, notifies)

    def flush(self) -> None:
        """Write all queued ACKs at once; to a peer that is gone, nothing."""
        acks = b"".join(self._acks)
        self._acks.clear()
        if self.is_open:
            self._transport.write(acks)

    def disconnect(self, status: StatusCode, message: str) -> None:
        """Say AGENT-DISCONNECT and close, unless the last word is already said."""
        if not self._connection.is_closing:
            self._connection.disconnect(status, message)
            self._control()

    def abort(self) -> None:
        self._transport.abort()

    # A peer that does not read its ACKs is not read from: what it may have in flight is bounded,
    # so is what it can make us hold.
    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handshake.cancel()
        self._server.forget(self)
        ending = self._connection.ending
        if ending is None:
            # A bare end is usual: HAProxy 3.1+ lets idle connections go without a word.
            self._server.counters.connection_closed(StatusCode.NORMAL, "reset" if exc else "eof")
        else:
            by = "haproxy" if ending.by is EndedBy.HAPROXY else "agent"
            self._server.counters.connection_closed(ending.status, by)
        self._connection.disconnect(StatusCode.IO_ERROR, "connection lost")

    def _control(self) -> None:
        """Write the control frames; greet an opened connection, close an ended one."""
        for frame in self._connection.take_outgoing():
            self._transport.write(frame)
        self._handshake.cancel()
        ending = self._connection.ending
        if ending is None:
            engine_id = self._connection.engine_id
            self.ages = self._server.ages_of(engine_id, is_local=self._is_local)
            return
        if ending.by is EndedBy.AGENT and ending.status != StatusCode.NORMAL:
            self._server.complain(ending)
        if ending.by is EndedBy.HEALTH_CHECK:
            self._transport.close()
        self._server.loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _miss_handshake(self) -> None:
        timeout_s = self._server.limits.handshake_timeout_s
        self.disconnect(StatusCode.TIMEOUT, f"no HELLO within {timeout_s} s")
