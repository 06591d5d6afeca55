r"""Where SPOP meets tokens: NOTIFYs become Checks, Decisions become ACKs.

The batch of the loop turn is the unit of work. What HAProxy sent since the last turn, on whatever
connections, goes to Redis in one write, comes back in one read, and leaves in one write for each
connection. No task, no future, no lock and no log line for a single request.

    receive --> refused without Redis ----------------------------> answered
        \-> Batch --> _flush --> (late or gone: _weed) --> Redis --> _land --> answered
                                                       \-> no reply --> _expire --> answered
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from spoa.config.model import Limits
from spoa.counters import WorkerCounters
from spoa.spop.codec import Address, Notify, Value
from spoa.worker.age import AgeGauge
from spoa.worker.answers import Answers
from tokens.gate import (
    MAX_TOKENS_PER_CALL,
    Check,
    Decision,
    Gate,
    Outcome,
    Redemption,
    Reply,
    ReplyMismatch,
)
from tokens.store import Store
from tokens.wire import StoreUnavailable, error_kind

CHECK_HTTP = b"check-http"
"""The message that asks for a decision; see haproxy/kat.spoe.conf."""

# A batch that fills one script call need not wait for the end of the turn: Redis works while we
# read on. A smaller one waits, so that other connections may still join it: leaving at 32 costs 5 %
# more CPU per consume, at 4 another 10 % (`make bench`, 16 x 20, alternated).
FLUSH_AT_ONCE = MAX_TOKENS_PER_CALL

Args = dict[bytes, Value]


class Link(Protocol):
    """A connection to HAProxy, as far as answering needs to know it."""

    @property
    def is_open(self) -> bool: ...
    @property
    def max_frame_bytes(self) -> int: ...
    @property
    def ages(self) -> AgeGauge: ...
    def queue(self, ack: bytes, /) -> None: ...
    def flush(self) -> None: ...


@dataclass(slots=True)
class Batch:
    """The requests of one turn that Redis must judge, in parallel lists."""

    started_at: float
    links: list[Link] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)

    def only(self, indexes: Sequence[int]) -> "Batch":
        """Return a batch of these requests."""
        return Batch(
            self.started_at,
            [self.links[index] for index in indexes],
            [self.ids[index] for index in indexes],
            [self.checks[index] for index in indexes],
            [self.deadlines[index] for index in indexes],
        )


@dataclass(slots=True)
class _Flight:
    """A batch that Redis is judging."""

    batch: Batch
    redemption: Redemption
    is_over: bool = False


class Agent:
    """Answers every NOTIFY exactly once: at once, when Redis replies, or at the deadline."""

    def __init__(
        self,
        gate: Gate,
        store: Store,
        answers: Answers,
        limits: Limits,
        counters: WorkerCounters,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._gate = gate
        self._store = store
        self._answers = answers
        self._counters = counters
        self._deadline_s = limits.deadline_ms / 1000
        self._max_in_flight = limits.in_flight
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._batch: Batch | None = None
        self._decided: Counter[tuple[bytes, bytes]] = Counter()

    async def drain(self) -> None:
        """Wait until nothing is in flight: the deadline at most, if nothing is added."""
        await self._is_idle.wait()

    def receive(self, link: Link, notifies: Sequence[Notify]) -> None:
        """Take what one connection sent in one read; answer at once what needs no Redis."""
        now = time.monotonic()  # not the loop's time: uvloop's has whole milliseconds
        unix_now = time.time()
        room_bytes = self._answers.room_bytes(link.max_frame_bytes)
        batch = self._batch or self._begin(now)
        refused = 0
        for notify in notifies:
            args = _find_args(notify)
            check = _read_check(args, room_bytes)
            refusal = self._refuse(args, check)
            if refusal is not None:
                self._answer(link, notify.ids, check.acl, Decision(refusal))
                refused += 1
                continue
            at_ms = args.get(b"at")
            age_s = link.ages.age_s(at_ms, unix_now) if type(at_ms) is int else 0.0
            self._in_flight += 1
            batch.links.append(link)
            batch.ids.append(notify.ids)
            batch.checks.append(check)
            batch.deadlines.append(now + self._deadline_s - age_s)
        if refused:
            self._finish((link,), now, refused)
        if len(batch.ids) >= FLUSH_AT_ONCE:
            self._flush(batch)

    def _begin(self, now: float) -> Batch:
        batch = self._batch = Batch(now)
        self._is_idle.clear()
        self._loop.call_soon(self._flush, batch)
        return batch

    def _refuse(self, args: Args, check: Check) -> Outcome | None:
        if not args:
            return Outcome.UNKNOWN_MESSAGE
        if self._in_flight >= self._max_in_flight:
            return Outcome.OVERLOADED
        return self._gate.refuse(check)

    def _flush(self, batch: Batch) -> None:
        """Send the batch of this turn to Redis. A second call for the same batch does nothing."""
        if batch is not self._batch:
            return
        self._batch = None
        now = time.monotonic()
        if min(batch.deadlines, default=now) < now or not all(link.is_open for link in batch.links):
            batch = self._weed(batch, now)
        if not batch.ids:
            self._rest_if_idle()
            return
        self._counters.batch(len(batch.ids))
        self._counters.in_flight(self._in_flight)
        flight = _Flight(batch, self._gate.redeem(batch.checks, self._store.fence))
        timer = self._loop.call_later(self._deadline_s, self._expire, flight)
        self._store.execute(flight.redemption.commands, partial(self._land, flight, timer))

    def _weed(self, batch: Batch, now: float) -> Batch:
        """Take out who waits no more; answer `deadline` to those who are still connected.

        Their tokens stay whole. This is the last moment at which that can be promised.
        """
        kept: list[int] = []
        late: list[int] = []
        for index, (link, deadline) in enumerate(zip(batch.links, batch.deadlines, strict=True)):
            if link.is_open:
                (kept if deadline >= now else late).append(index)
        self._in_flight -= len(batch.ids) - len(kept)
        overdue = batch.only(late)
        self._answer_all(overdue, [Decision(Outcome.DEADLINE)] * len(late))
        return batch.only(kept)

    def _land(
        self, flight: _Flight, timer: asyncio.TimerHandle, result: list[Reply] | StoreUnavailable
    ) -> None:
        """Answer all, now that Redis has replied or cannot. After the deadline it is too late."""
        timer.cancel()
        if not flight.is_over:
            self._settle(flight, self._decide(flight.redemption, result))

    def _expire(self, flight: _Flight) -> None:
        self._store.distrust("timeout", "no reply within the deadline")
        self._settle(flight, [Decision(Outcome.STORE_UNAVAILABLE)] * len(flight.batch.ids))

    def _decide(
        self, redemption: Redemption, result: list[Reply] | StoreUnavailable
    ) -> list[Decision]:
        if not isinstance(result, StoreUnavailable):
            try:
                decisions = redemption.decide(result)
            except ReplyMismatch as mismatch:
                self._store.distrust("reply", str(mismatch))
            else:
                for fault in redemption.faults:
                    self._store.distrust(error_kind(fault), fault)
                return decisions
        return [Decision(Outcome.STORE_UNAVAILABLE)] * sum(map(len, redemption.kids))

    def _settle(self, flight: _Flight, decisions: Sequence[Decision]) -> None:
        flight.is_over = True
        self._in_flight -= len(flight.batch.ids)
        self._answer_all(flight.batch, decisions)
        self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        if not self._in_flight:
            self._is_idle.set()

    def _answer_all(self, batch: Batch, decisions: Sequence[Decision]) -> None:
        columns = (batch.links, batch.ids, batch.checks, decisions)
        for link, ids, check, decision in zip(*columns, strict=True):
            self._answer(link, ids, check.acl, decision)
        self._finish(set(batch.links), batch.started_at, len(batch.ids))

    def _answer(self, link: Link, ids: bytes, acl: bytes, decision: Decision) -> None:
        link.queue(self._answers.encode(ids, acl, decision))
        self._decided[acl, decision.outcome.reason] += 1

    def _finish(self, links: Iterable[Link], started_at: float, number: int) -> None:
        """Write what was answered, one write per connection, and count it."""
        for link in links:
            link.flush()
        for (acl, reason), times in self._decided.items():
            self._counters.decided(acl, reason, times)
        self._decided.clear()
        self._counters.latency(time.monotonic() - started_at, number)
        self._counters.in_flight(self._in_flight)


def _find_args(notify: Notify) -> Args:
    """Return the arguments of our message; none, if it is not there exactly once.

    A NOTIFY has one ACK, so it can ask for one decision. Other messages are not our business.
    """
    found: Args | None = None
    for message in notify.messages:
        if message.name == CHECK_HTTP:
            if found is not None:
                return {}
            found = message.args
    return found or {}


_TEXTS = (b"acl", b"token", b"host", b"method", b"path", b"nonce")


def _read_check(args: Args, room_bytes: int) -> Check:
    """Take the arguments by name. What is absent or of another type counts as not given."""
    # One loop for all of them: a call for each cost 1.5 us of 12 (`make bench`).
    # Not isinstance: an Address is bytes as well, and no text.
    acl, token, host, method, path, nonce = [
        text if type(text) is bytes else b"" for text in map(args.get, _TEXTS)
    ]
    source = args.get(b"src")
    if not isinstance(source, Address):
        source = b""
    return Check(acl, token, host, method, path, nonce, source, room_bytes)
