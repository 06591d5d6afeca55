"""Somebody who guesses: tokens that open nothing, over connections of his own, without an end."""

import select
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection
from typing import Final

from spoa.bench.fault import Fault
from spoa.bench.load.channel import Channel, ask_once, connect
from spoa.bench.load.corpus import mint, spoil
from spoa.bench.load.frames import HEAD_BYTES, LENGTH, decode_actions, encode_at, encode_ids
from spoa.bench.load.prepared import encode_request
from spoa.bench.result import Round
from spoa.bench.scenario import Scenario
from spoa.spop.codec import encode_set_var
from spoa.spop.constants import FRAME_LENGTH_BYTES, Scope

GUESSES: Final = 20_000
"""So many go round. An agent remembers no token, so a guess that comes again is as new."""

GUESSED: Final = "a guess: "
"""Begins what is said of a wrong answer to the flood: no honest request has failed."""

_TICK_S = 0.001
_PATIENCE_S = 3.0
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Flood:
    """Who floods. `rate` 0: the next guess leaves when an answer has come."""

    agent: str
    kind: Scenario
    """UNKNOWN or MALFORMED."""
    connections: int
    in_flight: int
    rate: float = 0.0

    def __call__(self, control: Connection) -> Round:
        """Flood until there is anything to hear. Raises OSError, Fault."""
        flooding = _Flooding(self)
        try:
            control.send("ready")
            return flooding.run(control)
        finally:
            flooding.close()


class _Flooding:
    """A flood while it lasts."""

    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        case, reason = flood.kind.case, flood.kind.case.expected.reason
        tokens = mint(GUESSES)
        if flood.kind is Scenario.MALFORMED:
            tokens = list(map(spoil, tokens))
        frames = [encode_request(i, encode_ids(i), one, case) for i, one in enumerate(tokens)]
        self._frames = cycle(frames)
        # All right answers have the size of this one, and say the reason once.
        self._right = encode_set_var(Scope.TRANSACTION, b"reason", reason)
        ack = ask_once(flood.agent, frames[0] + encode_at(time.time()))
        if self._right not in ack or decode_actions(ack).get(b"allow"):
            raise Fault(f"a guess is not answered {reason.decode()}")
        self._ack_bytes = len(ack)
        self._waiting: dict[Channel, int] = {}
        for _ in range(flood.connections):
            self._waiting[connect(flood.agent)] = 0
        self._turns = cycle(self._waiting)
        self._sent = self._answered = 0
        self._wrong: Counter[str] = Counter()

    def run(self, control: Connection) -> Round:
        started = time.perf_counter()
        with select.epoll() as poll:
            by_fd = {channel.sock.fileno(): channel for channel in self._waiting}
            for fd in (*by_fd, control.fileno()):
                poll.register(fd, select.EPOLLIN)
            if not self._flood.rate:
                for channel in self._waiting:
                    self._send(channel, self._flood.in_flight)
            while not control.poll():
                self._turn(poll, by_fd, started)
        elapsed_s = time.perf_counter() - started
        figures = {"flood": self._answered, "flood_per_s": self._answered / elapsed_s}
        return Round(figures, self._wrong)

    def close(self) -> None:
        for channel in self._waiting:
            channel.sock.close()

    def _turn(self, poll: select.epoll, by_fd: dict[int, Channel], started: float) -> None:
        if self._flood.rate:
            self._send_due(started)
        for fd, _ in poll.poll(_TICK_S if self._flood.rate else _PATIENCE_S):
            if fd in by_fd:
                answered = self._receive(by_fd[fd])
                if not self._flood.rate:
                    self._send(by_fd[fd], answered)

    def _send_due(self, started: float) -> None:
        """Send what is due by now, over connections in turn. What finds no room is left out."""
        due = int((time.perf_counter() - started) * self._flood.rate)
        for channel in islice(self._turns, len(self._waiting)):
            room = self._flood.in_flight - self._waiting[channel]
            self._send(channel, min(room, due - self._sent))
        self._sent = due

    def _send(self, channel: Channel, count: int) -> None:
        if count <= 0:
            return
        at = encode_at(time.time())
        data = at.join(islice(self._frames, count)) + at
        if channel.sock.send(data) < len(data):
            raise Fault(f"{count} guesses do not fit the socket's buffer: lower in-flight")
        self._waiting[channel] += count
        self._sent += count

    def _receive(self, channel: Channel) -> int:
        """Take the answers on a connection; return how many they were."""
        data = channel.sock.recv(_READ_BYTES)
        if not data:
            raise Fault("the agent closed a connection of the flood")
        data = channel.rest + data
        count, over = divmod(len(data), self._ack_bytes)
        if over or data.count(self._right) != count:
            count, data = self._judge(data)
        else:
            data = b""
        channel.rest = data
        self._waiting[channel] -= count
        self._answered += count
        return count

    def _judge(self, data: bytes) -> tuple[int, bytes]:
        """Look at each answer: how many there are, and the bytes of one that is cut in two."""
        count = pos = 0
        while len(data) - pos >= HEAD_BYTES:
            end = pos + FRAME_LENGTH_BYTES + LENGTH.unpack_from(data, pos)[0]
            if end > len(data):
                break
            ack = data[pos:end]
            if self._right not in ack:
                self._wrong[f"{GUESSED}reason {decode_actions(ack).get(b'reason')!r}"] += 1
            count += 1
            pos = end
        return count, data[pos:]
