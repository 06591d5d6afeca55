"""What the agent has in hand: the requests of a turn, and those that Redis is asked about."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spoa.worker.age import AgeGauge
from tokens.check import Check
from tokens.policy.gate import Asking, Judgement
from tokens.policy.opening import Opening


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
class Flight:
    """A batch that Redis is asked about, and what is to be done with the judgement."""

    batch: Batch
    asking: Asking
    land: "Callable[[Flight, Judgement], None]"
    write_until: float
    openings: Sequence[Opening] = ()
    timer: asyncio.TimerHandle | None = None
    is_over: bool = False
