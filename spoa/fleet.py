"""What the supervisor knows of its workers, for those who ask: health and metrics.

Written by the supervisor's main thread, read by the threads that answer HTTP. Every field is one
reference or number, replaced whole, so a reader sees the old or the new one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spoa.counters import Counters
from spoa.listen import Listener

# A worker's loop beats every second. Ten missed beats are no load, they are a stuck loop: with
# every bound at its limit a turn takes well below a second.
STALE_AFTER_S = 10.0


@dataclass(slots=True)
class Fleet:
    """The workers: which run, since when, and how often one was started again."""

    counters: Counters
    listeners: Sequence[Listener] = ()
    started: list[float | None] = field(init=False)
    restarts: int = 0
    is_draining: bool = False
    store_fault: Callable[[], str | None] = lambda: None
    """Why the store cannot be up, if its process is ours and we know."""

    def __post_init__(self) -> None:
        self.started = [None] * self.counters.workers

    @property
    def running(self) -> int:
        return sum(started is not None for started in self.started)

    @property
    def serving(self) -> list[int]:
        """The workers that run and have said so since they were started."""
        return [
            index
            for index, started in enumerate(self.started)
            if started is not None and self.counters.heartbeat(index) > 0
        ]

    def why_not_alive(self) -> str | None:
        """Name the workers whose loop is stuck. One that is dead is being replaced: no fault."""
        now = time.monotonic()
        stuck = [
            str(index)
            for index, started in enumerate(self.started)
            if started is not None
            and now - max(started, self.counters.heartbeat(index)) > STALE_AFTER_S
        ]
        if not stuck:
            return None
        return f"no heartbeat for {STALE_AFTER_S:.0f} s from worker {', '.join(stuck)}"

    def why_not_ready(self) -> str | None:
        """Say why a request sent now would not be answered, or None when it would.

        Whichever worker it meets, and in a cluster whichever slot: what operators wait for, and not
        a reason to take the agent away, as all agents see the same Redis.
        """
        if self.is_draining:
            return "shutting down"
        now = time.monotonic()
        fresh = [
            index for index in self.serving if now - self.counters.heartbeat(index) <= STALE_AFTER_S
        ]
        if not fresh:
            return f"none of {self.counters.workers} workers is serving"
        if faults := [fault for listener in self.listeners if (fault := listener.fault())]:
            return faults[0]
        return self._why_no_store(fresh)

    def _why_no_store(self, fresh: Sequence[int]) -> str | None:
        """Name the workers without a store. HAProxy asks any of them: those answer 503."""
        without = [index for index in fresh if not self.counters.is_store_up(index)]
        if not without:
            return None
        if fault := self.store_fault():
            return fault
        if len(without) == len(fresh):
            return "no worker can use the store: its log says why"
        return f"no store for worker {', '.join(map(str, without))}: its log says why"
