"""Latency at a fixed rate: requests leave on schedule whatever the answers do (open loop).

A tool of the distribution would be welcome. wrk and h2load measure from when a request leaves, so
a stall hides those that would have come meanwhile, and h2load's clock ticks in milliseconds: what
is due in one of them leaves together. So here is a small one; 20,000 requests/s are near its end.
"""

import gc
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import floor
from time import perf_counter
from typing import Final

from spoa.bench.fault import Fault
from spoa.bench.haproxy.front import OK, Front, is_whole, question
from spoa.bench.haproxy.seen import Seen
from spoa.bench.haproxy.visitors import Visitors, invite
from spoa.bench.latency import summarise

PATIENCE_S: Final = 3.0
"""A round ends when nothing came for so long."""

_READ_BYTES: Final = 64 * 1024
_TIMER_SLACK_NS: Final = 1000
_DEFAULT_SLACK: Final = 0


def prepare(
    front: Front, visitors: Visitors, connections: int, requests: int, rate: float
) -> Callable[[], Seen]:
    """Return what asks at a rate, on connections that are open by then. Raises OSError, Fault."""
    lines = visitors.lines()
    asks, answers = [question(line) for line in lines], _answers(front, visitors)
    times = -(-requests // len(lines))
    clients = Clients(front.address, connections, (asks * times)[:requests], answers * times)
    return lambda: _seen(clients.run(rate))


def _answers(front: Front, visitors: Visitors) -> list[bytes]:
    """Say what each must be answered: as somebody was who came before, but by their own names."""
    first = invite(visitors.subject, visitors.redis_socket, 1)
    answer = front.ask(first.lines()[0])
    wrong = Counter[str]()
    first.verify(1, 0, wrong)
    if wrong or not answer.startswith(OK):
        raise Fault(f"HAProxy ({visitors.subject}) does not let in who should be: {answer[:80]!r}")
    if not visitors.subject.names_user:
        return [answer] * len(visitors.tokens)
    before, _, after = answer.partition(first.tokens[0].user)
    return [before + token.user + after for token in visitors.tokens]


def _seen(tally: "Tally") -> Seen:
    elapsed_s = tally.finished - tally.started
    figures: dict[str, float] = {"elapsed_s": elapsed_s}
    if tally.right:
        figures["requests_per_s"] = tally.right / elapsed_s
        figures["generator_us"] = 1e6 * tally.cpu_s / tally.right
        figures |= {f"{name}_ms": ms for name, ms in summarise([tally.latencies]).items()}
        figures |= {f"late_{name}_ms": ms for name, ms in summarise([tally.late]).items()}
    return Seen(tally.right, tally.unknown, tally.wrong, figures)


@dataclass(slots=True, eq=False)
class Line:
    """A connection that is kept alive, and the one request that may be on its way on it."""

    sock: socket.socket
    index: int = -1
    since: float = 0.0
    rest: bytes = b""


@dataclass(slots=True)
class Tally:
    """What came back. Only right answers have a latency."""

    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """How far behind the schedule a request left: for want of a free connection, too."""
    wrong: Counter[str] = field(default_factory=Counter)
    started: float = 0.0
    finished: float = 0.0
    cpu_s: float = 0.0
    unknown: int = 0
    """So many requests left, and nobody knows what became of them."""

    @property
    def right(self) -> int:
        return len(self.latencies)


class Clients:
    """Asks each question once, on schedule, and compares each answer with the one expected."""

    def __init__(
        self, address: tuple[str, int], count: int, asks: Sequence[bytes], answers: Sequence[bytes]
    ) -> None:
        self.tally = Tally()
        self._asks, self._answers = asks, answers
        self._free = deque(Line(_dial(address)) for _ in range(count))
        self._lines = {line.sock.fileno(): line for line in self._free}
        self._next = 0
        self._pending = len(asks)
        self._poll = select.epoll()
        for fd in self._lines:
            self._poll.register(fd, select.EPOLLIN)

    def run(self, rate: float) -> Tally:
        """Ask at this rate. A question that finds no free connection waits, and that counts."""
        tally = self.tally
        with _undisturbed():
            cpu_s = time.process_time()
            tally.started = tally.finished = perf_counter()
            while self._pending and perf_counter() - tally.finished < PATIENCE_S:
                wait_s = self._ask_due(rate)
                # select(2) counts microseconds, Python's epoll_wait(2) milliseconds.
                if select.select((self._poll,), (), (), wait_s)[0]:
                    now = perf_counter()
                    for fd, _ in self._poll.poll(0):
                        self._receive(self._lines[fd], now)
            tally.cpu_s = time.process_time() - cpu_s
        return self._finish()

    def _ask_due(self, rate: float) -> float:
        """Ask what is due and return how long nothing will be."""
        started, asks = self.tally.started, self._asks
        due = min(floor((perf_counter() - started) * rate) + 1, len(asks))
        while self._next < due:
            if not self._free:
                return PATIENCE_S
            line, index = self._free.popleft(), self._next
            self._next += 1
            line.index, line.since = index, started + index / rate
            self.tally.late.append(perf_counter() - line.since)
            try:
                line.sock.send(asks[index])
            except OSError:
                self._drop(line)
        if self._next == len(asks):
            return PATIENCE_S
        return max(started + self._next / rate - perf_counter(), 0.0)

    def _receive(self, line: Line, now: float) -> None:
        try:
            data = line.rest + line.sock.recv(_READ_BYTES)
        except OSError:
            data = line.rest
        if line.index >= 0 and data == self._answers[line.index]:
            self.tally.latencies.append(now - line.since)
        elif data == line.rest:
            self._drop(line)
            return
        elif not is_whole(data):
            line.rest = data
            return
        else:
            self.tally.wrong[fault_of(data)] += 1
        line.index, line.rest = -1, b""
        self._free.append(line)
        self._pending -= 1
        self.tally.finished = now

    def _drop(self, line: Line) -> None:
        """Give up a connection; the others carry on."""
        del self._lines[line.sock.fileno()]
        line.sock.close()
        if line.index < 0:
            self._free.remove(line)
            self.tally.wrong["idle connection closed"] += 1
        else:
            self._pending -= 1
            self.tally.unknown += 1
            self.tally.wrong["connection closed"] += 1

    def _finish(self) -> Tally:
        unanswered = sum(line.index >= 0 for line in self._lines.values())
        never_asked = len(self._asks) - self._next
        self.tally.unknown += unanswered
        self.tally.wrong.update({"unanswered": unanswered, "never asked": never_asked})
        self.tally.wrong = +self.tally.wrong  # without the zeros
        for line in self._lines.values():
            line.sock.close()
        self._poll.close()
        return self.tally


def fault_of(answer: bytes) -> str:
    """Say what is wrong with an answer that is not the expected one."""
    status = answer[:12].partition(b" ")[2].decode(errors="replace")
    return "another user" if status == "200" else f"status {status}"


def _dial(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address, PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(0)
    return sock


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Collect no garbage, and wake up when asked: the default slack adds 50 us to every wait."""
    gc.disable()
    _set_timer_slack(_TIMER_SLACK_NS)
    try:
        yield
    finally:
        _set_timer_slack(_DEFAULT_SLACK)  # what is started from here on inherits it
        gc.enable()


def _set_timer_slack(slack_ns: int) -> None:
    with open("/proc/self/timerslack_ns", "wb", buffering=0) as file:  # noqa: PTH123 - unbuffered
        file.write(b"%d" % slack_ns)
