"""What the agent has in hand: the requests of a turn, and those that Redis is asked about."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from spoa.worker.age import AgeGauge
from tokens.policy.gate import Asking, Judgement
from tokens.policy.opening import Opening

if TYPE_CHECKING:
    import asyncio

    from tokens.check import Check


class Link(Protocol):
    """A connection to HAProxy, as far as answering needs to know it."""

    @property
    def is_open(self) -> bool: ...
    @property
    def max_frame_bytes(self) -> int: ...
    @property
    def ages(self) -> AgeGauge: ...
    @property
    def queue(self) -> Callable[[bytes], None]: ...
    def flush(self) -> None: ...


# No dataclasses: mypyc leaves their __init__ to the interpreter, and of requests that come one by
# one each is a batch, and a flight, of its own.
class Batch:
    """The requests of one turn that Redis must judge, in parallel lists."""

    __slots__ = ("checks", "deadlines", "ids", "links", "started_at")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.links: list[Link] = []
        self.ids: list[bytes] = []
        self.checks: list[Check] = []
        self.deadlines: list[float] = []

    def only(self, indexes: Sequence[int]) -> "Batch":
        """Return a batch of these requests."""
        batch = Batch(self.started_at)
        batch.links = [self.links[index] for index in indexes]
        batch.ids = [self.ids[index] for index in indexes]
        batch.checks = [self.checks[index] for index in indexes]
        batch.deadlines = [self.deadlines[index] for index in indexes]
        return batch


class Flight:
    """A batch that Redis is asked about, and what is to be done with the judgement."""

    __slots__ = ("asking", "batch", "is_over", "land", "openings", "timer", "write_until")

    def __init__(
        self,
        batch: Batch,
        asking: Asking,
        land: "Callable[[Flight, Judgement], None]",
        *,
        write_until: float,
        openings: Sequence[Opening] = (),
    ) -> None:
        self.batch = batch
        self.asking = asking
        self.land = land
        self.write_until = write_until
        self.openings = openings
        self.timer: asyncio.TimerHandle | None = None
        self.is_over = False
