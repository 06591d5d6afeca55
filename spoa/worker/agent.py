r"""Where SPOP meets tokens: NOTIFYs become Checks, Decisions become ACKs.

The batch of the loop turn is the unit of work. What HAProxy sent since the last turn, on whatever
connections, goes to Redis in one write, comes back in one read, and leaves in one write for each
connection. No task, no future, no lock and no log line for a single request.

    receive --> refused without Redis ----------------------------------> answered
        \-> Batch --> _flush --> (late or gone: _weed)
                        \-> gate.judge <--> Redis ------------------------> answered
                                  \-> (had to wait) gate.consume <--> Redis --> answered
                                  \-> (opens something) gate.open <--> Redis --> answered
                                  \-> no reply --> _expire ----------------> answered
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from spoa.config.sections import Limits
from spoa.counters import WorkerCounters
from spoa.spop.codec import Notify, ShapedNotify
from spoa.worker.answers import Answers
from spoa.worker.batch import Batch, Flight, Link
from spoa.worker.requests import CHECK_HTTP, CHECK_TCP, read
from tokens.check import Check, Decision
from tokens.outcome import Outcome
from tokens.policy.gate import Gate, Judgement, Unanswered
from tokens.policy.opening import Opening
from tokens.policy.redeem import MAX_TOKENS_PER_CALL, ReplyMismatch
from tokens.question import Question, Reply
from tokens.store.store import Store
from tokens.store.wire import StoreUnavailable, error_kind

# A batch that fills one script call need not wait for the end of the turn: Redis works while we
# read on. A smaller one waits, so that other connections may still join it: leaving at 32 costs 5 %
# more CPU per consume, at 4 another 10 % (`make bench`, 16 x 20, alternated).
FLUSH_AT_ONCE = MAX_TOKENS_PER_CALL


NOTE_WITHIN_S = 0.01
"""How long what happened may be untold: a worker that is killed takes so much with it. Told at once
it is one in three of all wake-ups, ours and Redis's, where requests come one by one."""

NOTE_AT_ONCE = FLUSH_AT_ONCE
"""Events. More in one entry make nothing cheaper."""

MAX_UNDO = 1024
"""What is still to be ended. So many openings fail in an outage of seconds, never in one reply."""

_CHECKS = frozenset({CHECK_HTTP, CHECK_TCP})
_UNAVAILABLE = Decision(Outcome.STORE_UNAVAILABLE)


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
        self._undo: list[Question] = []
        self._is_undoing = False
        self._is_to_note = False

    async def drain(self) -> None:
        """Wait until nothing is in flight: the deadline at most, if nothing is added."""
        await self._is_idle.wait()

    def receive(self, link: Link, notifies: Sequence[Notify | ShapedNotify]) -> None:
        """Take what one connection sent in one read; answer at once what needs no Redis."""
        now = time.monotonic()  # not the loop's time: uvloop's has whole milliseconds
        unix_now = time.time()
        room_bytes = self._answers.room_bytes(link.max_frame_bytes)
        batch = self._batch or self._begin(now)
        refused = 0
        # Local names for what is used for each request.
        look, in_flight = self._gate.look, self._in_flight
        add_link, add_ids = batch.links.append, batch.ids.append
        add_check, add_deadline = batch.checks.append, batch.deadlines.append
        deadline, last_at_ms = now + self._deadline_s, None
        punctual = deadline
        for notify in notifies:
            name, check, at_ms = read(notify, room_bytes)
            # Before anything is refused: each message tells of HAProxy's clock. What was asked in
            # the same millisecond has the same age.
            if at_ms != last_at_ms:
                age_s = 0.0 if at_ms is None else link.ages.age_s(at_ms, unix_now)
                deadline, last_at_ms = punctual - age_s, at_ms
            if in_flight >= self._max_in_flight or name not in _CHECKS:
                refusal = self._refuse(name, check, is_full=in_flight >= self._max_in_flight)
            else:
                refusal = look(check)
            if refusal is not None:
                self._answer(link, notify.ids, check.acl, Decision(refusal))
                refused += 1
                continue
            in_flight += 1
            add_link(link)
            add_ids(notify.ids)
            add_check(check)
            add_deadline(deadline)
        self._in_flight = in_flight
        if refused:
            self._finish((link,), now, refused)
        if len(batch.ids) >= FLUSH_AT_ONCE:
            self._flush(batch)

    def _begin(self, now: float) -> Batch:
        batch = self._batch = Batch(now)
        self._is_idle.clear()
        self._loop.call_soon(self._flush, batch)
        return batch

    def _refuse(self, message: bytes, check: Check, *, is_full: bool) -> Outcome | None:
        """Look at what is no usual check, or comes when there is no room."""
        if not message:
            return Outcome.UNKNOWN_MESSAGE
        return Outcome.OVERLOADED if is_full else self._gate.look_logout(check)

    def _flush(self, batch: Batch) -> None:
        """Send the batch of this turn to Redis. A second call for the same batch does nothing."""
        if batch is not self._batch:
            return
        self._batch = None
        now = time.monotonic()
        are_open = all(link.is_open for link in set(batch.links))
        if not are_open or min(batch.deadlines, default=now) < now:
            batch = batch.only(self._weed(batch, now))
        if not batch.ids:
            self._rest_if_idle()
            return
        self._counters.batch(len(batch.ids))
        self._counters.in_flight(self._in_flight)
        # Nothing is consumed once the first of them is too late.
        flight = Flight(
            batch,
            self._gate.judge(batch.checks),
            self._land,
            write_until=min(batch.deadlines),
        )
        self._depart(flight, now + self._deadline_s)

    def _depart(self, flight: Flight, give_up_at: float) -> None:
        """Begin to ask Redis about a batch."""
        wait_s = max(0.0, give_up_at - time.monotonic())
        flight.timer = self._loop.call_later(wait_s, self._expire, flight)
        self._advance(flight)

    def _advance(self, flight: Flight, replies: list[Reply] | None = None) -> None:
        """Give the gate what Redis replied, and ask what it asks next, if anything."""
        try:
            questions = next(flight.asking) if replies is None else flight.asking.send(replies)
        except StopIteration as end:
            flight.land(flight, end.value)
        except ReplyMismatch as mismatch:
            self._fail(flight, "reply", str(mismatch))
        except Unanswered as fault:
            # Nothing but the key of the revocations is behind an error of no known kind.
            kind = error_kind(str(fault))
            self._fail(flight, "cut" if kind == "other" else kind, str(fault))
        else:
            self._store.execute(
                questions,
                partial(self._hear, flight),
                flight.write_until,
                is_repeatable=not flight.openings,
            )

    def _hear(self, flight: Flight, result: list[Reply] | StoreUnavailable) -> None:
        """Take what Redis replied. After the deadline it is too late."""
        if flight.is_over:
            if not isinstance(result, StoreUnavailable):
                self._gate.hear_late(result)
        elif isinstance(result, StoreUnavailable):
            self._give_up(flight)
        else:
            self._advance(flight, result)

    def _weed(self, batch: Batch, now: float) -> list[int]:
        """Find who still waits; answer `deadline` to those who are late and still connected.

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
        return kept

    def _land(self, flight: Flight, judgement: Judgement) -> None:
        """Answer all but those whose token is still to be consumed, or opens something."""
        self._report(judgement.faults)
        if not judgement.openings and not judgement.cleared:
            self._settle(flight, judgement.decisions)
            return
        batch, decisions = flight.batch, judgement.decisions
        openings = dict(judgement.openings)
        waiting = {*openings, *judgement.cleared}
        rest = [place for place in range(len(decisions)) if place not in waiting]
        flight.batch = batch.only(rest)
        self._settle(flight, [decisions[place] for place in rest])
        if openings:
            self._open(batch.only(list(openings)), list(openings.values()))
        if judgement.cleared:
            self._consume(batch, judgement)

    def _consume(self, batch: Batch, judgement: Judgement) -> None:
        """Go on with the tokens that had to wait, and only with them: the others are answered."""
        held = batch.only(judgement.cleared)
        punctual = self._weed(held, time.monotonic())
        if not punctual:
            self._note_soon()
            self._rest_if_idle()
            return
        held = held.only(punctual)
        places = [judgement.cleared[index] for index in punctual]
        flight = Flight(
            held,
            self._gate.consume(judgement, places),
            self._land,
            write_until=min(held.deadlines),
        )
        self._depart(flight, batch.started_at + self._deadline_s)

    def _open(self, batch: Batch, openings: Sequence[Opening]) -> None:
        """Have Redis write what these requests open."""
        give_up_at = batch.started_at + self._deadline_s
        flight = Flight(
            batch,
            self._gate.open(openings, time.monotonic()),
            self._land_opened,
            # Their tokens are consumed: one of them that is too late is no harm to the others.
            write_until=give_up_at,
            openings=openings,
        )
        self._depart(flight, give_up_at)

    def _land_opened(self, flight: Flight, judgement: Judgement) -> None:
        self._report(judgement.faults)
        opened = [decision for decision in judgement.decisions if decision.outcome is Outcome.OK]
        sessions = sum(map(bool, (decision.session for decision in opened)))
        self._counters.sessions_opened(sessions)
        self._counters.grants_opened(len(opened) - sessions)
        self._counters.audit_lost(judgement.notes_lost)
        self._settle(flight, judgement.decisions)
        self._take_back(judgement.undo)

    def _report(self, faults: Iterable[str]) -> None:
        for fault in faults:
            self._store.distrust(error_kind(fault), fault)

    def _note_soon(self) -> None:
        """Have it written down together with what else happens soon; at once if it is much."""
        waiting = self._gate.notes_waiting
        if waiting >= NOTE_AT_ONCE:
            self.note()
        elif waiting and not self._is_to_note:
            self._is_to_note = True
            self._loop.call_later(NOTE_WITHIN_S, self._note_in_time)

    def _note_in_time(self) -> None:
        self._is_to_note = False
        self.note()

    def note(self, *, is_last: bool = False) -> None:
        """Have Redis write down what was judged. Nobody waits for it.

        Of a flood the journal keeps what it counted in this second, unless this is the last time.
        """
        self._take_back()
        now = time.monotonic()
        if questions := self._gate.take_notes(math.inf if is_last else now):
            self._store.execute(questions, self._noted, now + self._deadline_s, is_repeatable=False)

    def _noted(self, result: list[Reply] | StoreUnavailable) -> None:
        # Not distrusted: a Redis that takes no audit from us may judge tokens as well as ever.
        if isinstance(result, StoreUnavailable):
            self._counters.audit_lost(1)
        else:
            self._counters.audit_lost(sum(isinstance(reply, Exception) for reply in result))

    def _expire(self, flight: Flight) -> None:
        if not flight.is_over:
            self._fail(flight, "timeout", "no reply within the deadline")

    def _fail(self, flight: Flight, kind: str, message: str) -> None:
        self._give_up(flight)
        self._store.distrust(kind, message)

    def _give_up(self, flight: Flight) -> None:
        self._settle(flight, [_UNAVAILABLE] * len(flight.batch.ids))
        if flight.openings:
            self._counters.audit_lost(1)  # it went with what they wanted to open
            self._take_back([opening.undo for opening in flight.openings])

    def _take_back(self, undo: Sequence[Question] = ()) -> None:
        """End what may have been opened. Nobody waits for it; asked until Redis confirms it.

        Whether it was written is not known, and a revocation of that moment may have missed it.
        What was not announced must not stand.
        """
        self._undo += undo[: MAX_UNDO - len(self._undo)]
        if self._undo and not self._is_undoing:
            self._is_undoing = True
            asked = list(self._undo)
            settle = partial(self._undone, len(asked))
            self._store.execute(asked, settle, time.monotonic() + self._deadline_s)

    def _undone(self, number: int, result: list[Reply] | StoreUnavailable) -> None:
        """Forget what Redis has ended. The rest is asked again a second later."""
        self._is_undoing = False
        if not isinstance(result, StoreUnavailable):
            failed = zip(self._undo[:number], result, strict=True)
            kept = [undo for undo, reply in failed if isinstance(reply, Exception)]
            self._undo[:number] = kept

    def _settle(self, flight: Flight, decisions: Sequence[Decision]) -> None:
        flight.is_over = True
        flight.asking.close()  # it may still wait for replies, and nobody will bring them
        if flight.timer:
            flight.timer.cancel()
        self._in_flight -= len(flight.batch.ids)
        self._answer_all(flight.batch, decisions)
        self._note_soon()
        self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        if not self._in_flight:
            self._is_idle.set()

    def _answer_all(self, batch: Batch, decisions: Sequence[Decision]) -> None:
        encode = self._answers.encode
        columns = (batch.links, batch.ids, batch.checks, decisions)
        # Counted in runs: what comes together has mostly asked for the same and been told the same.
        last_acl, last_outcome, run = b"", None, 0
        for link, ids, check, decision in zip(*columns, strict=True):
            acl, outcome = check.acl, decision.outcome
            link.queue(encode(ids, acl, decision))
            if outcome is not last_outcome or acl != last_acl:
                self._count(last_acl, last_outcome, run)
                last_acl, last_outcome, run = acl, outcome, 0
            run += 1
        self._count(last_acl, last_outcome, run)
        self._finish(set(batch.links), batch.started_at, len(batch.ids))

    def _count(self, acl: bytes, outcome: Outcome | None, times: int) -> None:
        if outcome is not None:
            self._decided[acl, outcome.reason] += times

    def _answer(self, link: Link, ids: bytes, acl: bytes, decision: Decision) -> None:
        link.queue(self._answers.encode(ids, acl, decision))
        self._count(acl, decision.outcome, 1)

    def _finish(self, links: Iterable[Link], started_at: float, number: int) -> None:
        """Write what was answered, one write per connection, and count it."""
        for link in links:
            link.flush()
        for (acl, reason), times in self._decided.items():
            self._counters.decided(acl, reason, times)
        self._decided.clear()
        self._counters.latency(time.monotonic() - started_at, number)
        self._counters.in_flight(self._in_flight)
