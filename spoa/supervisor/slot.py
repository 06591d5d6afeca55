"""One worker's place: a process now, another one after it died."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Generic, TypeVar

from spoa.supervisor.child import begin
from spoa.supervisor.signals import withheld
from spoa.worker.worker import BOOT_FAILURE

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

# A worker that dies before it ever served is given this many tries: a machine short of memory may
# recover, a broken installation does not.
BOOT_TRIES = 5

# The first restart is at once: HAProxy is waiting. What dies again and again is slowed down, so
# that it cannot eat the machine.
BACK_OFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
HEALTHY_AFTER_S = 10.0

T = TypeVar("T")


@dataclass(slots=True)
class Restarts:
    """When a process may be started: at once the first time, later and later as it keeps dying."""

    due_s: float | None = 0.0
    _started_s: float = 0.0
    _deaths: int = 0

    def started(self) -> None:
        self._started_s, self.due_s = time.monotonic(), None

    def died(self) -> None:
        now = time.monotonic()
        has_lived = now - self._started_s >= HEALTHY_AFTER_S
        self._deaths = 1 if has_lived else self._deaths + 1
        self.due_s = now + BACK_OFF_S[min(self._deaths, len(BACK_OFF_S)) - 1]

    @property
    def is_due(self) -> bool:
        return self.due_s is not None and self.due_s <= time.monotonic()


class Slot(Generic[T]):
    """Runs `run(order)` in one process after another."""

    def __init__(self, index: int, run: Callable[[T], None], order: T) -> None:
        self.index = index
        self.restarts = Restarts()
        self.process: SpawnProcess | None = None
        self.is_hopeless = False
        self._run = run
        self._order = order
        self._failed_boots = 0

    def start(self) -> None:
        process = get_context("spawn").Process(
            name=f"kat-worker-{self.index}",
            target=begin,
            args=(self._run, self._order, os.getpid()),
        )
        with withheld():
            process.start()
        self.process = process
        self.restarts.started()

    def bury(self, *, has_served: bool) -> int:
        """Take note of a death. Returns the exit code, negative for a signal."""
        assert self.process is not None
        self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        self.process = None
        self.restarts.died()
        self._failed_boots = 0 if has_served else self._failed_boots + 1
        self.is_hopeless = not has_served and (
            code == BOOT_FAILURE or self._failed_boots >= BOOT_TRIES
        )
        return code
