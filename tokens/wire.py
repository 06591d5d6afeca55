"""One connection to Redis: a batch of commands is one write and one settlement.

Redis answers in order, so a reply belongs to the oldest batch that still waits. A batch that
nobody waits for any more keeps its place in that queue.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import hiredis

from tokens.gate import Command, Reply

STALL_S = 1.0
"""A connection whose oldest batch waits longer is given up and made anew. Ten deadlines."""

# What the reader gives when no reply is whole. Its default, False, is a reply as well: "#f".
_NOT_YET = object()

# hiredis's stub knows tuples of one element only.
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]

Settle = Callable[["list[Reply] | StoreUnavailable"], None]
"""Takes all replies of a batch in order, or why there are none. Called exactly once."""


class StoreUnavailable(Exception):
    """Redis gave no answer. `kind` is one word for the metrics; the message is for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Observer(Protocol):
    """Who wants to know how the store fares. Called on the worker's loop: must be quick."""

    def redis_round_trip(self, seconds: float, /) -> None: ...
    def store_up(self, is_up: bool) -> None: ...  # noqa: FBT001 - a gauge
    def store_error(self, kind: str, /) -> None: ...


@dataclass(slots=True)
class _Batch:
    """Commands that were written together and the replies that have come so far."""

    commands: Sequence[Command]
    settle: Settle
    sent_at: float
    began_at: float
    replies: list[Reply] = field(default_factory=list)


class Wire(asyncio.Protocol):
    """One connection: commands out, replies in, in order. Dead once lost; never reused."""

    def __init__(self, observer: Observer) -> None:
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._waiting: deque[_Batch] = deque()
        self.lost: asyncio.Future[StoreUnavailable] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by isinstance

    def send(self, commands: Sequence[Command], settle: Settle) -> None:
        """Write all commands, one at least, at once; settle when their last reply is in.

        On a connection that is lost, settle at once: nobody will come to do it later.
        """
        if self.lost.done():
            settle(self.lost.result())
            return
        self._waiting.append(_Batch(commands, settle, self._loop.time(), time.perf_counter()))
        self._transport.write(b"".join(map(_pack, commands)))

    async def ask(self, *commands: Command) -> list[Reply]:
        """Send and wait. For greetings, never on the hot path. Raises StoreUnavailable."""
        answered: asyncio.Future[list[Reply] | StoreUnavailable] = self._loop.create_future()
        self.send(commands, lambda result: _answer(answered, result))
        result = await answered
        if isinstance(result, StoreUnavailable):
            raise result
        for reply in result:
            if isinstance(reply, Exception):
                raise _refusal(reply)
        return result

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
            # A TypeError is how hiredis meets a map with a list for a key, a MemoryError how it
            # meets an array of a thousand million.
            except (hiredis.ProtocolError, TypeError, MemoryError) as error:
                self.abandon(StoreUnavailable("reply", f"Redis sent what is not RESP 2: {error}"))
                return
            if reply is _NOT_YET:
                return
            self._take(reply)

    def _take(self, reply: Reply) -> None:
        """Add a reply to the oldest batch; settle it if that was its last one."""
        if not self._waiting:
            self.abandon(_unasked(reply))
            return
        batch = self._waiting[0]
        batch.replies.append(reply)
        if len(batch.replies) == len(batch.commands):
            self._waiting.popleft()
            # Not the loop's time: uvloop's has whole milliseconds.
            self._observer.redis_round_trip(time.perf_counter() - batch.began_at)
            batch.settle(batch.replies)

    def now(self) -> float:
        """Tell the loop's time, in seconds: what deadlines are written in."""
        return self._loop.time()

    def waits_longer_than(self, seconds: float) -> bool:
        """Whether the oldest batch has waited so long for its replies."""
        return bool(self._waiting) and self._loop.time() - self._waiting[0].sent_at > seconds

    def watch(self) -> None:
        """Give the connection up when it is stalled; else make sure that it still answers."""
        if self.waits_longer_than(STALL_S):
            self.abandon(StoreUnavailable("timeout", f"no reply from Redis for {STALL_S} s"))
        elif not self._waiting:
            self.send(((b"PING",),), lambda _: None)

    def abandon(self, why: StoreUnavailable) -> None:
        """Close at once; whoever waits is told why."""
        self._lose(why)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        why = f": {exc}" if exc else ""
        self._lose(StoreUnavailable("closed", f"Redis closed the connection{why}"))

    def _lose(self, why: StoreUnavailable) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        while self._waiting:
            self._waiting.popleft().settle(why)


def _answer(
    waiting: "asyncio.Future[list[Reply] | StoreUnavailable]",
    result: "list[Reply] | StoreUnavailable",
) -> None:
    if not waiting.done():  # its deadline may have cancelled it
        waiting.set_result(result)


def _refusal(reply: Exception) -> StoreUnavailable:
    """Word an error reply, without the arguments that Redis echoes: AUTH's hold a password."""
    text, _, _ = str(reply).partition(", with args beginning with")
    return StoreUnavailable(error_kind(text), f"Redis refuses: {text}")


def _unasked(reply: Reply) -> StoreUnavailable:
    """Word a reply that no command waits for: an error may say why we are not welcome."""
    if isinstance(reply, Exception):
        return _refusal(reply)
    return StoreUnavailable("reply", "Redis sent a reply that nothing asked for")


_KINDS = {
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "auth",
    "READONLY": "readonly",
    "MASTERDOWN": "readonly",
    "OOM": "oom",
    "MISCONF": "misconf",
    "LOADING": "loading",
    "KATFENCE": "fence",
    "NOSCRIPT": "script",
}


def error_kind(reply: str) -> str:
    """Sort an error reply by its first word. What is not known is `other`."""
    return _KINDS.get(reply.partition(" ")[0], "other")
