r"""What is asked of one primary: each call is settled exactly once, whatever becomes of replies.

    execute --> written --> replies ---------------------------------> settled
       |           \-> no reply; or KATFENCE, NOSCRIPT --> again --\
       \-> kept until there is a connection <----------------------/

Not a client library, on purpose. A library's retry is wrong here: if a consume ran and only its
reply was lost, a blind second try meets the tombstone and refuses an honest visitor. Who executes
says whether a batch `is_repeatable`: its tokens then carry claim ids, by which Redis knows the
second asking for what it is. There is never a third.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from hiredis import ReplyError

from tokens.question import Fence, Question, Reply
from tokens.store.fence import Fences
from tokens.store.line import SILENCE, Line, Locate
from tokens.store.wire import Observer, Settle, StoreUnavailable, Wire, error_kind

# How often the line is looked at within a silence: so one is noticed after 0.4 to 0.5 of the
# deadline. One timer for all calls; one for each would cost 0.5 us more.
_LOOKS_PER_SILENCE = 4

# The connection itself is in order, but what was found when it was greeted holds no more: the
# server was promoted or demoted, is out of memory, disk or replicas, or its users were changed.
# Until a greeting, which meets the same refusal, finds it well again the store is down: operators
# see that, and nobody loses a token.
_GREET_AGAIN = frozenset(
    {"fence", "readonly", "auth", "oom", "misconf", "noreplicas", "cut", "reply"}
)

_TOO_LATE = StoreUnavailable("timeout", "the deadline has passed")
_PAST_DEADLINE = StoreUnavailable("timeout", "Redis is past the deadline with an earlier batch")


class _Call:
    """One `execute` that is not settled."""

    __slots__ = (
        *("awaited", "give_up_at", "is_repeatable", "questions", "settle", "times"),
        "was_without_script",
    )

    def __init__(
        self,
        questions: Sequence[Question],
        settle: Settle,
        give_up_at: float,
        is_repeatable: bool,  # noqa: FBT001 - as it was said
    ) -> None:
        self.questions = questions
        self.settle = settle
        self.give_up_at = give_up_at
        self.is_repeatable = is_repeatable
        self.times = 0
        """How often it was asked; not counting what Redis refused unread."""
        self.awaited = 0
        """How many of these may still be answered. With none it waits for a connection."""
        self.was_without_script = False


class Primary:
    """Runs forever; heals by itself; never makes anybody wait beyond the deadline.

    While there is no connection and no good hope of one, or one whose oldest batch is past the
    deadline, `execute` settles at once with StoreUnavailable: what were sent then could only
    consume tokens of visitors who have been refused already.
    """

    def __init__(
        self,
        locate: Locate,
        fences: Fences,
        scripts: Sequence[bytes],
        deadline_s: float,
        observer: Observer,
        *,
        probe: Question | None = None,
    ) -> None:
        self._line = Line(locate, fences, scripts, deadline_s, observer, probe=probe)
        self._observer = observer
        self._deadline_s = deadline_s
        self._calls: dict[_Call, None] = {}  # those that are not settled, in order
        self._timer: asyncio.TimerHandle | None = None

    @property
    def fence(self) -> Fence:
        """That of the server which is written to now."""
        return self._line.fence

    def raise_fence(self, since_ms: int) -> None:
        """Believe this server from later on: another one of its cluster has forgotten more."""
        self._line.fence = Fence(self._line.fence.replid, since_ms)

    def execute(
        self,
        questions: Sequence[Question],
        settle: Settle,
        give_up_at: float,
        *,
        is_repeatable: bool = True,
    ) -> None:
        """Ask all in one write. `settle` is called exactly once, now or later.

        After `give_up_at`, a time.monotonic(), nothing is written.
        """
        call = _Call(questions, settle, give_up_at, is_repeatable)
        self._calls[call] = None
        self._ask(call, _TOO_LATE)

    def distrust(self, kind: str, message: str) -> None:
        """Hear of an error reply, or of one that fits no question; start anew if that helps."""
        self._observer.store_error(kind)
        wire = self._line.wire
        if wire is not None and kind in _GREET_AGAIN:
            wire.abandon(StoreUnavailable(kind, message))

    async def run(self) -> None:
        """Keep a greeted connection for as long as the worker lives."""
        try:
            await self._line.run(self)
        finally:
            if self._timer:
                self._timer.cancel()

    # Asking.

    def _ask(self, call: _Call, too_late: StoreUnavailable) -> None:
        """Write a call, or keep it for the connection that is being made; else settle it."""
        line = self._line
        wire = line.wire
        if time.monotonic() >= call.give_up_at:
            self._settle(call, too_late)
        elif wire is not None:
            if wire.waits_longer_than(self._deadline_s):
                self._settle(call, _PAST_DEADLINE)
            else:
                self._write(wire, call)
        elif line.is_hopeful:
            self._look_soon()
        else:
            self._settle(call, line.fault)

    def _write(self, wire: Wire, call: _Call) -> None:
        if call.times:
            self._observer.asked_again()
        call.times += 1
        call.awaited += 1
        self._look_soon()
        fence = self._line.fence
        commands = [question.write(fence) for question in call.questions]
        wire.send(commands, partial(self._receive, wire, call))

    def _receive(self, wire: Wire, call: _Call, result: list[Reply] | StoreUnavailable) -> None:
        """Take what came of one asking. The first that is answered settles the call."""
        call.awaited -= 1
        if isinstance(result, StoreUnavailable):
            self._line.part(wire, result)
            self._miss(call, result)
        elif call not in self._calls:
            pass  # the other asking was quicker
        elif ReplyError in map(type, result):  # in C, for a hundred replies as quick as for one
            self._consider(wire, call, result)
        else:
            self._settle(call, result)

    def _miss(self, call: _Call, fault: StoreUnavailable) -> None:
        """Ask once more what was not answered, if that cannot do harm."""
        if call.awaited or call not in self._calls:
            return
        if call.is_repeatable and call.times == 1:
            self._ask(call, fault)
        else:
            self._settle(call, fault)

    def _consider(self, wire: Wire, call: _Call, result: list[Reply]) -> None:
        """Look for the two errors of scripts that did not run, and can be made to.

        Then the batch is asked anew, all of it: its last script vouches for what stands before
        it. That is no second asking, as nothing was answered. What cannot be repeated is left.
        """
        errors = {error_kind(str(reply)): reply for reply in result if type(reply) is ReplyError}
        is_mended = False
        if "fence" in errors:
            self._line.part(wire, StoreUnavailable("fence", str(errors["fence"])))
            is_mended = True
        elif "script" in errors and not call.was_without_script:
            self._line.load_scripts()
            is_mended = call.was_without_script = True
        if is_mended and call.is_repeatable:
            call.times -= 1
            self._ask(call, _TOO_LATE)
        else:
            self._settle(call, result)

    def _settle(self, call: _Call, result: list[Reply] | StoreUnavailable) -> None:
        del self._calls[call]
        call.settle(result)

    # What the line tells.

    def take_up(self, silent: Wire | None) -> None:
        """Ask all that waits for a connection; and what waits in vain on a silent one."""
        for call in list(self._calls):
            if call not in self._calls:
                continue  # settled meanwhile, by what another one's settlement did
            if not call.awaited:
                self._ask(call, self._line.fault)
            elif silent is not None and call.is_repeatable and call.times == 1:
                self._ask_beside(call)

    def _ask_beside(self, call: _Call) -> None:
        """Ask a second time while the first may still be answered."""
        wire = self._line.wire
        if wire is not None and time.monotonic() < call.give_up_at:
            self._write(wire, call)

    def give_up(self, fault: StoreUnavailable) -> None:
        """Settle all that waits for a connection."""
        for call in list(self._calls):
            if call in self._calls and not call.awaited:
                self._settle(call, fault)

    def _look_soon(self) -> None:
        if self._timer is None:
            delay_s = SILENCE * self._deadline_s / _LOOKS_PER_SILENCE
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        has_more = self._line.look()
        if self._line.wire is None:
            self._weed()
        if has_more or self._calls:
            self._look_soon()

    def _weed(self) -> None:
        """Settle what waits for a connection in vain: it is too late, or there is no hope."""
        if not self._line.is_hopeful:
            self.give_up(self._line.fault)
        now = time.monotonic()
        for call in [call for call in self._calls if not call.awaited and now >= call.give_up_at]:
            if call in self._calls:
                self._settle(call, self._line.fault)
