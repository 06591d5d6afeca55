"""One connection to Redis: a batch of commands is one write and one settlement.

Redis answers in order, so a reply belongs to the oldest batch that still waits. A batch that
nobody waits for any more keeps its place in that queue. That every batch got its own replies, all
of them and nothing else, is not believed but seen: each ends with an ECHO of a mark of its own.
"""

import asyncio
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, Protocol, cast

import hiredis

from tokens.question import Command, Fence, Reply, without_arguments
from tokens.store.advice import NO_WORD, NO_WORD_TLS, SPEAKS_TLS, of_tls
from tokens.store.resp import pack

_TYPES: Final = frozenset({type(None), int, bytes, list, hiredis.ReplyError})

STALL_S = 1.0
"""A connection whose oldest batch waits longer is given up. Ten deadlines."""

# RFC 8446, 5.1: a record of type alert (21), of a version that is called 3.x.
_ALERT = b"\x15\x03"

# What the reader gives when no reply is whole. Its default, False, is a reply as well: "#f".
_NOT_YET = object()

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
    def asked_again(self) -> None: ...
    def greeted(self, fence: Fence, /) -> None: ...


class _Batch:
    """What was written together, and the replies that have come so far."""

    __slots__ = ("mark", "replies", "sent_at", "settle", "size")

    def __init__(self, size: int, mark: bytes, settle: Settle, sent_at: float) -> None:
        self.size = size
        self.mark = mark
        self.settle = settle
        self.sent_at = sent_at
        self.replies: list[Reply] = []


class Wire(asyncio.Protocol):
    """One connection: commands out, replies in, in order. Dead once lost; never reused."""

    def __init__(self, observer: Observer) -> None:
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._waiting: deque[_Batch] = deque()
        self._heard_at = time.monotonic()
        self._has_heard = False
        # No value in Redis looks like one, and no two connections have the same: also who is given
        # the replies of another connection, by a proxy that mixes them up, finds out.
        self._marks = map(b"mark:%b.%%x".__mod__(secrets.token_hex(4).encode()).__mod__, count())
        self.lost: asyncio.Future[StoreUnavailable] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by isinstance

    def send(self, commands: Sequence[Command], settle: Settle) -> None:
        """Write all commands at once; settle when their last reply is in.

        On a connection that is lost, settle at once: nobody will come to do it later.
        """
        if self.lost.done():
            settle(self.lost.result())
            return
        # The mark stands behind the commands. In front it would not see a reply that is lost or
        # doubled within the batch, only what earlier batches left behind; here it sees both.
        mark = next(self._marks)
        written = [*commands, (b"ECHO", mark)]
        self._waiting.append(_Batch(len(written), mark, settle, time.monotonic()))
        self._transport.write(pack(written))

    def begin(self, *commands: Command) -> "asyncio.Future[list[Reply] | StoreUnavailable]":
        """Send now, to wait later. For greetings, never on the hot path."""
        answered: asyncio.Future[list[Reply] | StoreUnavailable] = self._loop.create_future()
        self.send(commands, lambda result: _answer(answered, result))
        return answered

    async def hear(self, *commands: Command) -> list[Reply]:
        """Send and wait; error replies are values. Raises StoreUnavailable."""
        result = await self.begin(*commands)
        if isinstance(result, StoreUnavailable):
            raise result
        return result

    async def ask(self, *commands: Command) -> list[Reply]:
        """Send and wait. Raises StoreUnavailable, for an error reply as well."""
        replies = await self.hear(*commands)
        raise_refusal(replies)
        return replies

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self._has_heard = True
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
            # A TypeError is how hiredis meets a map with a list for a key, a MemoryError how it
            # meets an array of a thousand million.
            except (hiredis.ProtocolError, TypeError, MemoryError) as error:
                self.abandon(_gibberish(data, error))
                return
            if reply is _NOT_YET:
                return
            if not _is_resp2(reply):
                self.abandon(StoreUnavailable("reply", "Redis sent what RESP 2 does not have"))
                return
            self._take(reply)

    def _take(self, reply: Reply) -> None:
        """Add a reply to the oldest batch; settle it if that was its last one."""
        if not self._waiting:
            self.abandon(_unasked(reply))
            return
        batch = self._waiting[0]
        replies = batch.replies
        replies.append(reply)
        if len(replies) < batch.size:
            return
        if replies.pop() != batch.mark:
            # One was lost, doubled or moved, and nobody can tell which: none of them is used,
            # nor any that is still to come.
            self.abandon(_unmarked(reply, replies))
            return
        self._waiting.popleft()
        self._observer.redis_round_trip(time.monotonic() - batch.sent_at)
        batch.settle(replies)

    @property
    def is_waiting(self) -> bool:
        """Whether a batch has not got all of its replies."""
        return bool(self._waiting)

    def waits_longer_than(self, seconds: float) -> bool:
        """Whether the oldest batch has waited so long for its replies."""
        return bool(self._waiting) and time.monotonic() - self._waiting[0].sent_at > seconds

    def is_silent_for(self, seconds: float) -> bool:
        """Whether the oldest batch has waited so long, and nothing came at all meanwhile."""
        is_quiet = time.monotonic() - self._heard_at > seconds
        return is_quiet and self.waits_longer_than(seconds)

    def abandon(self, why: StoreUnavailable) -> None:
        """Close at once; whoever waits is told why."""
        self._lose(why)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        why = f": {exc}{of_tls(exc)}" if exc else ""
        if not self._has_heard and not isinstance(exc, ssl.SSLError):
            is_tls = self._transport.get_extra_info("sslcontext") is not None
            why += NO_WORD_TLS if is_tls else NO_WORD
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


def raise_refusal(replies: Sequence[Reply]) -> None:
    """Raise StoreUnavailable for the first error reply, if there is one."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise _refusal(reply)


def _is_resp2(reply: object) -> bool:
    """Tell whether a reply is of the types that we read on: hiredis knows more of them.

    Compiled code takes its types for granted: a float among them would be an exception of ours.
    """
    if type(reply) is not list:
        return type(reply) in _TYPES
    kinds = set(map(type, reply))  # in C, for a hundred answers
    return kinds <= _TYPES and (list not in kinds or all(map(_is_resp2, reply)))


def _gibberish(data: bytes, error: Exception) -> StoreUnavailable:
    if data.startswith(_ALERT):
        return StoreUnavailable("reply", SPEAKS_TLS)
    return StoreUnavailable("reply", f"Redis sent what is not RESP 2: {error}")


def _refusal(reply: Exception) -> StoreUnavailable:
    text = without_arguments(reply)
    return StoreUnavailable(error_kind(text), f"Redis refuses: {text}")


def _unasked(reply: Reply) -> StoreUnavailable:
    """Word a reply that no command waits for: an error may say why we are not welcome."""
    if isinstance(reply, Exception):
        return _refusal(reply)
    return StoreUnavailable("reply", "Redis sent a reply that nothing asked for")


def _unmarked(last: Reply, replies: Sequence[Reply]) -> StoreUnavailable:
    """Word a batch without its mark: who may not even ECHO has a reason, and the first one tells.

    A wrong password, for one, is the reply to AUTH; all behind it say that there was none.
    """
    if isinstance(last, Exception):
        first = next((reply for reply in replies if isinstance(reply, Exception)), last)
        return _refusal(first)
    return StoreUnavailable("reply", "Redis's replies are not those to the questions")


_KINDS = {
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "auth",
    "READONLY": "readonly",
    "MASTERDOWN": "readonly",
    "OOM": "oom",
    "MISCONF": "misconf",
    "NOREPLICAS": "noreplicas",
    "LOADING": "loading",
    "KATFENCE": "fence",
    "NOSCRIPT": "script",
}


def error_kind(reply: str) -> str:
    """Sort an error reply by its first word. What is not known is `other`."""
    return _KINDS.get(reply.partition(" ")[0], "other")
