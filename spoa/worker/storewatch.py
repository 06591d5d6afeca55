"""What the worker does when something happens to its store: it counts, and tells the audit."""

from spoa.counters import WorkerCounters
from tokens.audit import Journal
from tokens.question import Fence


class StoreWatch:
    """The store's observer."""

    def __init__(self, counters: WorkerCounters, journal: Journal) -> None:
        self.redis_round_trip = counters.redis_round_trip
        self.store_up = counters.store_up
        self.store_error = counters.store_error
        self.asked_again = counters.asked_again
        self._counters = counters
        self._journal = journal
        self._dates: set[int] = set()

    def greeted(self, fence: Fence) -> None:
        """Hear of a connection that is in use from now on."""
        # By its date, not its name: the primaries of a cluster have one together, and without the
        # fence all servers have the same.
        if self._dates and fence.since_ms not in self._dates:
            self._counters.fence_moved()
            self._journal.fence_moved(fence.replid, fence.since_ms)
        self._dates.add(fence.since_ms)
