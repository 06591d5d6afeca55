r"""A cluster: each question goes to the primary that has its slot, on a connection of its own.

    execute --> one call for each primary --> replies ------------------> settled, when all are in
                     ^                            \-> MOVED, ASK: there --\
                     \-> kept until it is greeted <-----------------------/

Redis says MOVED and ASK in place of running a command: to follow them asks nothing a second time.
A question without an answer has StoreUnavailable in its place, so that a primary that is down
costs nobody the answers of the others.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from hiredis import ReplyError

from tokens.question import Question, Reply
from tokens.store.primaries import Node, Primaries
from tokens.store.settings import StoreSettings
from tokens.store.slots import key_slot, read_detour
from tokens.store.url import ClusterUrl
from tokens.store.wire import Observer, Settle, StoreUnavailable

# A slot that moves back and forth faster than we can follow is not worth more.
_MAX_DETOURS = 8

# After TRYAGAIN: two keys of one slot are on both sides while it moves, for some milliseconds.
_TRY_AGAIN_S = 0.005

# These say something about our standing with every server, not about the one that said it.
_OF_ALL = frozenset({"auth", "readonly", "fence", "reply"})

# These mean all writes of the one that said it.
_NO_WRITES = frozenset({"oom", "misconf", "noreplicas"})

_MARK = "KATNODE "
"""Begins what stands in place of an answer. It has been counted as an error already."""

_ASKING = Question(b"", (b"ASKING",))


@dataclass(slots=True, eq=False)
class _Batch:
    """One `execute`: what was asked, and the answers so far."""

    questions: Sequence[Question]
    settle: Settle
    give_up_at: float
    is_repeatable: bool
    replies: list[Reply]
    missing: int
    detours_left: int

    def fill(self, places: Sequence[int], replies: Iterable[Reply]) -> None:
        """Take answers; with the last one the batch is settled."""
        for place, reply in zip(places, replies, strict=True):
            self.replies[place] = reply
        self.missing -= len(places)
        if not self.missing:
            fault = self.replies[0]
            is_lost = all(isinstance(reply, StoreUnavailable) for reply in self.replies)
            self.settle(fault if is_lost and isinstance(fault, StoreUnavailable) else self.replies)

    def fail(self, places: Sequence[int], kind: str, why: str) -> None:
        self.fill(places, [StoreUnavailable(kind, _MARK + why)] * len(places))


@dataclass(slots=True, eq=False)
class _Parked:
    """A question that a redirection sent to a primary which cannot be asked yet."""

    batch: _Batch
    place: int
    is_asking: bool


class Cluster:
    """Asks everybody what is theirs; follows when slots move or primaries fall."""

    def __init__(self, url: ClusterUrl, settings: StoreSettings, observer: Observer) -> None:
        """Take the URL as it was read; look at the TLS files now.

        Raises ValueError when they cannot be used.
        """
        self._observer = observer
        self._probe = settings.probe
        self._primaries = Primaries(url, settings, observer, self)
        self._parked: dict[Node, dict[_Parked, None]] = {}

    def execute(
        self,
        questions: Sequence[Question],
        settle: Settle,
        give_up_at: float,
        *,
        is_repeatable: bool = True,
    ) -> None:
        """Ask each primary its questions, in one write. `settle` is called exactly once."""
        somebody = self._primaries.any()
        if somebody is None:
            settle(self._primaries.fault)
            return
        size = len(questions)
        detours = _MAX_DETOURS * size
        batch = _Batch(questions, settle, give_up_at, is_repeatable, [None] * size, size, detours)
        owners = self._primaries.owners
        shares: dict[Node | None, list[int]] = {}
        for place, question in enumerate(questions):
            node = owners[key_slot(question.key)] if question.key else somebody
            shares.setdefault(node, []).append(place)
        for node, places in shares.items():
            if node is None:
                self._primaries.doubt()
                batch.fail(places, "connect", "no primary has this slot")
            else:
                self._ask(node, batch, places, is_asking=False)

    def distrust(self, kind: str, message: str) -> None:
        """Hear of an error reply, or of one that fits no question; start anew if that helps."""
        if message.startswith(_MARK):
            return
        if kind in _OF_ALL:
            for node in self._primaries.all():
                node.primary.distrust(kind, message)
        elif kind == "cut" and self._probe and (has := self._owner(self._probe)):
            has.primary.distrust(kind, message)
        else:  # one primary is full, say: the others need not suffer
            self._observer.store_error(kind)
            if kind in _NO_WRITES:
                self._primaries.refused(message)

    async def run(self) -> None:
        """Keep all connections for as long as the worker lives."""
        await self._primaries.run()

    def _owner(self, question: Question) -> Node | None:
        return self._primaries.owners[key_slot(question.key)]

    # Asking.

    def _ask(self, node: Node, batch: _Batch, places: Sequence[int], *, is_asking: bool) -> None:
        questions = [batch.questions[place] for place in places]
        if is_asking:
            # Holds for the next command of its connection: within a write nothing gets between.
            questions = [part for question in questions for part in (_ASKING, question)]
        receive = partial(self._receive, node, batch, places, is_asking)
        node.primary.execute(
            questions, receive, batch.give_up_at, is_repeatable=batch.is_repeatable
        )

    def _receive(
        self,
        node: Node,
        batch: _Batch,
        places: Sequence[int],
        is_asking: bool,  # noqa: FBT001 - for partial
        result: list[Reply] | StoreUnavailable,
    ) -> None:
        if isinstance(result, StoreUnavailable):
            batch.fail(places, result.kind, f"{node.host}: {result}")
            return
        if is_asking:
            result = result[1::2]
        if ReplyError not in map(type, result):  # in C, for a hundred replies as quick as for one
            batch.fill(places, result)
            return
        for place, reply in zip(places, result, strict=True):
            if not (isinstance(reply, ReplyError) and self._follow(node, batch, place, reply)):
                batch.fill([place], [reply])

    def _follow(self, node: Node, batch: _Batch, place: int, error: Exception) -> bool:
        """Ask elsewhere, or later, what was not run here. Return whether it is seen to."""
        word = str(error).partition(" ")[0]
        detour = read_detour(error, node.host)
        if word == "CLUSTERDOWN":
            self._primaries.doubt()
            batch.fail([place], "connect", f"{node.host}: {error}")
        elif detour is None and word != "TRYAGAIN":
            return False
        elif not batch.detours_left:
            batch.fail([place], "timeout", f"{node.host}: {error}, and that over and over")
        elif detour is None:
            # Asking is for the side that the slot moves to; the other one takes no notice.
            self._park(node, _Parked(batch, place, is_asking=True))
            asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self.came, node)
        else:
            batch.detours_left -= 1
            there = self._primaries.follow(detour, key_slot(batch.questions[place].key))
            if there.is_up:
                self._ask(there, batch, [place], is_asking=detour.is_asking)
            else:
                self._park(there, _Parked(batch, place, detour.is_asking))
        return True

    # What waits.

    def _park(self, node: Node, parked: _Parked) -> None:
        self._parked.setdefault(node, {})[parked] = None
        wait_s = max(0.0, parked.batch.give_up_at - time.monotonic())
        asyncio.get_running_loop().call_later(wait_s, self._expire, node, parked)

    def _expire(self, node: Node, parked: _Parked) -> None:
        """Settle what has waited until its deadline."""
        if self._parked.get(node, {}).pop(parked, parked) is None:
            parked.batch.fail([parked.place], "timeout", f"{node.host}: not in time")

    def came(self, node: Node) -> None:
        for parked in self._parked.pop(node, {}):
            self._ask(node, parked.batch, [parked.place], is_asking=parked.is_asking)

    def left(self, node: Node, fault: StoreUnavailable) -> None:
        for parked in self._parked.pop(node, {}):
            parked.batch.fail([parked.place], fault.kind, str(fault))
