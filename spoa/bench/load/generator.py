"""The hot part of the load generator: it must cost less than anything it measures.

No asyncio and no object per request. A write is one `join` of frames encoded beforehand, stamped
with `at`; a read is one comparison with the ACKs that are due on that connection. Only when that
comparison fails are the frames taken one by one, put to the requests they name, and judged by
meaning; so order is free, and whatever is wrong is counted by its reason.
"""

import gc
import select
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor
from time import perf_counter, time

from spoa.bench.fault import Fault
from spoa.bench.load.channel import Channel
from spoa.bench.load.frames import HEAD_BYTES, IDS_BYTES, LENGTH, encode_at
from spoa.bench.load.prepared import Load, blanked, fault_of
from spoa.spop.constants import DEFAULT_MAX_FRAME_BYTES, FRAME_LENGTH_BYTES, FrameType

PATIENCE_S = 3.0
"""A round ends when nothing came for so long: an agent that hangs is a result, too."""

_READ_BYTES = 256 * 1024
_IDS = slice(HEAD_BYTES, HEAD_BYTES + IDS_BYTES)


@dataclass(slots=True)
class Tally:
    """What came back. Only right answers count as requests and have a latency."""

    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """How far behind its own schedule the generator sent (open loop)."""
    fresh: list[tuple[int, bytes]] = field(default_factory=list)
    """What right answers said that nobody could foresee, by request."""
    settled: list[int] = field(default_factory=list)
    """Which requests of a mixed load were answered rightly."""
    finished: float = 0.0


class Generator:
    """Drives one load over some connections, once."""

    def __init__(self, channels: Sequence[Channel], load: Load, in_flight: int) -> None:
        self.tally = Tally()
        self._channels = {channel.sock.fileno(): channel for channel in channels}
        self._turns = list(channels)
        self._frames, self._acks = load.frames, load.acks
        # 0: they differ.
        self._ack_bytes = 0 if load.is_mixed else len(load.acks[0])
        self._fresh = load.fresh
        self._in_flight = in_flight
        self._next = 0
        self._pending = len(load.frames)
        self._at, self._at_until = b"", 0.0
        self._poll = select.epoll()
        for fd in self._channels:
            self._poll.register(fd, select.EPOLLIN)

    def run_closed(self) -> Tally:
        """Keep every connection full: the next request leaves when an ACK has come."""
        gc.disable()  # a round makes no cycles, and a pause would look like the agent's
        for channel in self._turns.copy():
            self._send(channel, self._in_flight, perf_counter())
        while self._pending and (events := self._poll.poll(PATIENCE_S)):
            now = perf_counter()
            for fd, _ in events:
                channel = self._channels[fd]
                if settled := self._receive(channel, now):
                    self._send(channel, settled, now)
        return self._finish()

    def run_open(self, rate: float, start: float) -> Tally:
        """Send on schedule whatever the answers do; latency counts from the scheduled moment.

        A request that finds all connections full waits, and its waiting counts: no coordinated
        omission. Connections take turns; what is due together leaves in one write.
        """
        gc.disable()
        self.tally.finished = max(start, perf_counter())
        while self._pending and perf_counter() - self.tally.finished < PATIENCE_S:
            wait_s = self._send_due(rate, start)
            # select(2) counts microseconds, Python's epoll_wait(2) milliseconds.
            if select.select((self._poll,), (), (), wait_s)[0]:
                now = perf_counter()
                for fd, _ in self._poll.poll(0):
                    self._receive(self._channels[fd], now)
        return self._finish()

    def _send_due(self, rate: float, start: float) -> float:
        """Send what is due and return how long nothing will be."""
        now = perf_counter()
        due = min(floor((now - start) * rate) + 1, len(self._frames))
        while self._next < due:
            channel = self._with_room()
            if channel is None:
                return PATIENCE_S
            first = self._next
            room = min(due - first, self._in_flight - len(channel.waiting))
            scheduled = [start + index / rate for index in range(first, first + room)]
            self.tally.late.extend([now - moment for moment in scheduled])
            self._send(channel, room, now, scheduled)
        if self._next == len(self._frames):
            return PATIENCE_S
        return max(start + self._next / rate - perf_counter(), 0.0)

    def _with_room(self) -> Channel | None:
        """Return the next connection that is not full, and move it to the end of the row."""
        for position, channel in enumerate(self._turns):
            if len(channel.waiting) < self._in_flight:
                self._turns.append(self._turns.pop(position))
                return channel
        return None

    def _send(
        self, channel: Channel, count: int, now: float, since: list[float] | None = None
    ) -> None:
        """Write the next requests, if there are so many, as one segment."""
        frames = self._frames[self._next : self._next + count]
        if not frames:
            return
        if now >= self._at_until:
            # The wall clock of the millisecond, encoded once for all its writes.
            self._at, self._at_until = encode_at(time()), now + 0.001
        data = self._at.join(frames) + self._at
        channel.waiting.extend(range(self._next, self._next + len(frames)))
        channel.since.extend(since or [now] * len(frames))
        self._next += len(frames)
        try:
            sent = channel.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(channel, "connection closed")
            return
        if sent < len(data):
            raise Fault(f"{count} requests do not fit a socket's buffer: lower --in-flight")

    def _receive(self, channel: Channel, now: float) -> int:
        """Settle what came on a connection; return how many requests that were."""
        try:
            data = channel.sock.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(channel, "connection closed")
            return 0
        data = channel.rest + data
        if not self._ack_bytes:
            return self._pick(channel, data, now)
        count = len(data) // self._ack_bytes
        acks = self._acks
        plain = self._blanked(data, count) if self._fresh.stop else data
        if plain != b"".join([acks[index] for index in channel.waiting[:count]]):
            return self._judge(channel, data, now)
        if self._fresh.stop:
            self._keep(channel.waiting[:count], data)
        self.tally.latencies.extend([now - since for since in channel.since[:count]])
        del channel.waiting[:count], channel.since[:count]
        channel.rest = b""
        self.tally.right += count
        self._settle(count, now)
        return count

    def _pick(self, channel: Channel, data: bytes, now: float) -> int:
        """Settle ACKs of several lengths: each is, byte for byte, one of those that are due.

        The first one, mostly; what is refused without Redis comes before its turn.
        """
        acks, waiting, since = self._acks, channel.waiting, channel.since
        starts_with, tally = data.startswith, self.tally
        pos = settled = 0
        while pos < len(data):
            for place, index in enumerate(waiting):  # noqa: B007 - `place` is of use below
                if starts_with(acks[index], pos):
                    break
            else:
                return settled + self._judge(channel, data[pos:], now)
            del waiting[place]
            tally.settled.append(index)
            tally.latencies.append(now - since.pop(place))
            tally.right += 1
            self._settle(1, now)
            pos += len(acks[index])
            settled += 1
        channel.rest = b""
        return settled

    def _blanked(self, data: bytes, count: int) -> bytes:
        """Take out of ACKs what nobody can foresee. 0.2 us for each."""
        start, stop = self._fresh.start, self._fresh.stop
        blank = bytes(stop - start)
        plain = bytearray(data)
        for ack in range(0, count * self._ack_bytes, self._ack_bytes):
            plain[ack + start : ack + stop] = blank
        return bytes(plain)

    def _keep(self, indexes: Sequence[int], data: bytes) -> None:
        size, start, stop = self._ack_bytes, self._fresh.start, self._fresh.stop
        self.tally.fresh += [
            (index, data[size * place + start : size * place + stop])
            for place, index in enumerate(indexes)
        ]

    def _judge(self, channel: Channel, data: bytes, now: float) -> int:
        """Settle frame by frame: out of order, cut in two, or wrong."""
        settled = pos = 0
        while len(data) - pos >= FRAME_LENGTH_BYTES:
            (length,) = LENGTH.unpack_from(data, pos)
            if length > DEFAULT_MAX_FRAME_BYTES:
                self._drop(channel, f"frame of {length} bytes")
                return settled
            end = pos + FRAME_LENGTH_BYTES + length
            if end > len(data):
                break
            settled += self._judge_frame(channel, data[pos:end], now)
            pos = end
        channel.rest = data[pos:]
        return settled

    def _judge_frame(self, channel: Channel, frame: bytes, now: float) -> int:
        kind = frame[FRAME_LENGTH_BYTES]
        if kind != FrameType.ACK:
            self.tally.wrong[f"frame of type {kind} instead of ACK"] += 1
            return 0
        acks = self._acks
        ids = [acks[index][_IDS] for index in channel.waiting]
        if frame[_IDS] not in ids:
            self.tally.wrong["ACK for no request in flight"] += 1
            return 0
        position = ids.index(frame[_IDS])
        index = channel.waiting.pop(position)
        expected = acks[index]
        since = channel.since.pop(position)
        plain = blanked(frame, self._fresh) if len(frame) == self._ack_bytes else frame
        fault = fault_of(plain, expected)
        if fault:
            self.tally.wrong[fault] += 1
        else:
            if self._fresh.stop:
                self._keep([index], frame)
            if not self._ack_bytes:
                self.tally.settled.append(index)
            self.tally.right += 1
            self.tally.latencies.append(now - since)
        self._settle(1, now)
        return 1

    def _settle(self, count: int, now: float) -> None:
        self._pending -= count
        self.tally.finished = now

    def _drop(self, channel: Channel, reason: str) -> None:
        """Give up a connection: what waits on it is lost, the others carry on."""
        self._poll.unregister(channel.sock)
        del self._channels[channel.sock.fileno()]
        self._turns.remove(channel)
        channel.sock.close()
        self.tally.wrong[reason] += len(channel.waiting)
        self._pending -= len(channel.waiting)

    def _finish(self) -> Tally:
        gc.enable()
        unanswered = sum(len(channel.waiting) for channel in self._turns)
        never_sent = len(self._frames) - self._next
        self.tally.wrong.update({"unanswered": unanswered, "never sent": never_sent})
        self.tally.wrong = +self.tally.wrong  # without the zeros
        for channel in self._turns:
            channel.sock.close()
        self._poll.close()
        return self.tally
