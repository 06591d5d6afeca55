"""What the workers count, in memory that the supervisor reads.

One block of 64-bit cells per worker. A block has a single writer, so nothing is locked; the
supervisor only reads, and an aligned 8-byte cell is never seen half written. A restarted worker
goes on in its predecessor's block: counters never fall back. What the numbers are called stands
in metrics.py, which workers do not import: prometheus_client costs 14 MB per process.
"""

import multiprocessing
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from ctypes import c_uint64

from spoa.spop.constants import StatusCode

REASONS = (
    *("ok", "session", "grant"),
    *("missing", "session_expired", "no_grant", "logged_out"),
    *("malformed", "unknown", "replayed", "fenced", "early"),
    *("wrong_acl", "wrong_host", "wrong_method", "wrong_path", "wrong_src", "wrong_nonce"),
    *("bad_record", "revoked", "blocked"),
    *("overloaded", "deadline", "store_unavailable", "unknown_acl", "unknown_message"),
)
"""Every `reason` that the agent may report: the decision table of the gate."""

UNKNOWN_ACL = "(unknown)"
"""Counts for every ACL that is not configured. No ACL can be called so: parentheses are refused."""

STORE_ERRORS = (
    *("connect", "closed", "timeout", "reply"),
    *("auth", "readonly", "oom", "misconf", "noreplicas", "loading", "fence", "script"),
    *("cut", "mode", "other"),
)
"""Why the store failed: `cut`, the revocations cannot be read; `mode`, it is a Sentinel, say.

What is not listed counts as `other`.
"""

CLOSED_BY = ("agent", "haproxy", "reset", "eof")
"""Who ended an SPOP connection, and how; `eof` is an end without DISCONNECT, usual since 3.1."""

# Decisions take 0.1-2 ms, a batch waits for one Redis round trip of 0.1 ms or more; the default
# deadline is 80 ms.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

_CELL_BYTES = 8
_STATUSES = tuple(StatusCode)


class Layout:
    """Which cell holds what. A function of the ACL names alone, so both sides agree on it."""

    def __init__(self, acls: Iterable[str]) -> None:
        self.acls = (*acls, UNKNOWN_ACL)
        self._size = 0
        self.requests = self._take(len(self.acls) * len(REASONS))
        self.latency = self._take(len(SECONDS) + 2)
        self.redis = self._take(len(SECONDS) + 2)
        self.batch = self._take(len(BATCH_SIZES) + 2)
        self.store_errors = self._take(len(STORE_ERRORS))
        self.disconnects = self._take(len(_STATUSES) * len(CLOSED_BY))
        self.protocol_errors = self._take(len(_STATUSES))
        self.opened = self._take(1)
        self.sessions_opened = self._take(1)
        self.grants_opened = self._take(1)
        self.asked_again = self._take(1)
        self.fence_moves = self._take(1)
        self.audit_lost = self._take(1)
        # The gauges come last: they die with their worker, the counters above do not.
        self.connections = self._take(1)
        self.in_flight = self._take(1)
        self.store_up = self._take(1)
        self.heartbeat = self._take(1)
        self.cells = self._size

    def _take(self, cells: int) -> int:
        start = self._size
        self._size += cells
        return start

    def request(self, acl: str, reason: str) -> int:
        return self.requests + self.acls.index(acl) * len(REASONS) + REASONS.index(reason)

    def disconnect(self, status: StatusCode, by: str) -> int:
        row = _STATUSES.index(status) * len(CLOSED_BY)
        return self.disconnects + row + CLOSED_BY.index(by)

    def protocol_error(self, status: StatusCode) -> int:
        return self.protocol_errors + _STATUSES.index(status)


class Counters:
    """The blocks of all workers. Can be handed to a process that is being spawned."""

    def __init__(self, acls: Sequence[str], workers: int) -> None:
        self.acls = tuple(acls)
        self.workers = workers
        self.layout = Layout(self.acls)
        size = self.layout.cells * workers
        self._memory = multiprocessing.get_context("spawn").RawArray(c_uint64, size)

    def worker(self, index: int) -> "WorkerCounters":
        return WorkerCounters(self.layout, *self.block(index))

    def block(self, index: int) -> "tuple[memoryview[int], memoryview[float]]":
        """Give one worker's cells twice: as integers, and as the floats that sums and times are."""
        size_bytes = self.layout.cells * _CELL_BYTES
        whole = memoryview(self._memory).cast("B")
        block = whole[index * size_bytes : (index + 1) * size_bytes]
        return block.cast("Q"), block.cast("d")

    def forget(self, index: int) -> None:
        """Clear the gauges of a worker that is gone; its counters stay."""
        cells, _ = self.block(index)
        for cell in range(self.layout.connections, self.layout.cells):
            cells[cell] = 0

    def heartbeat(self, index: int) -> float:
        """Tell when this worker's loop last turned, by the monotonic clock; 0.0 before it ran."""
        return self.block(index)[1][self.layout.heartbeat]

    def is_store_up(self, index: int) -> bool:
        return bool(self.block(index)[0][self.layout.store_up])


class WorkerCounters:
    """The pen of one worker. Counting is a few list look-ups and one addition in shared memory."""

    def __init__(
        self, layout: Layout, cells: "memoryview[int]", floats: "memoryview[float]"
    ) -> None:
        self._layout = layout
        self._cells = cells
        self._floats = floats
        self._requests = {
            acl.encode(): {reason.encode(): layout.request(acl, reason) for reason in REASONS}
            for acl in layout.acls
        }
        self._unknown = self._requests[UNKNOWN_ACL.encode()]
        self._status = {int(status): status for status in StatusCode}

    # Per batch. 0.04-0.21 us each (2 cores, Debian 12, CPython 3.11, version 0.1.0):
    #   python -m timeit -s 'from spoa.counters import Counters
    #   pen = Counters(["a"], 1).worker(0)' 'pen.latency(0.001, 5)'

    def decided(self, acl: bytes, reason: bytes, number: int) -> None:
        """Count `number` decisions. An ACL that is not configured counts as "(unknown)"."""
        self._cells[self._requests.get(acl, self._unknown)[reason]] += number

    def latency(self, seconds: float, number: int) -> None:
        """Count `number` requests that took this long from their arrival to their ACK."""
        start = self._layout.latency
        self._cells[start + bisect_left(SECONDS, seconds)] += number
        self._floats[start + len(SECONDS) + 1] += seconds * number

    def redis_round_trip(self, seconds: float) -> None:
        start = self._layout.redis
        self._cells[start + bisect_left(SECONDS, seconds)] += 1
        self._floats[start + len(SECONDS) + 1] += seconds

    def batch(self, size: int) -> None:
        start = self._layout.batch
        self._cells[start + bisect_left(BATCH_SIZES, size)] += 1
        self._floats[start + len(BATCH_SIZES) + 1] += size

    def sessions_opened(self, number: int) -> None:
        self._cells[self._layout.sessions_opened] += number

    def grants_opened(self, number: int) -> None:
        self._cells[self._layout.grants_opened] += number

    def in_flight(self, number: int) -> None:
        self._cells[self._layout.in_flight] = number

    # Rare.

    def connection_opened(self) -> None:
        self._cells[self._layout.opened] += 1
        self._cells[self._layout.connections] += 1

    def connection_closed(self, status: int, by: str) -> None:
        """Count an end. `by` is one of CLOSED_BY; a status that SPOP does not know is UNKNOWN."""
        self._cells[self._layout.connections] -= 1
        known = self._status.get(status, StatusCode.UNKNOWN)
        self._cells[self._layout.disconnect(known, by)] += 1

    def protocol_error(self, status: StatusCode) -> None:
        self._cells[self._layout.protocol_error(status)] += 1

    def store_up(self, is_up: bool) -> None:  # noqa: FBT001 - a gauge takes its value
        self._cells[self._layout.store_up] = is_up

    def store_error(self, kind: str) -> None:
        known = kind if kind in STORE_ERRORS else "other"
        self._cells[self._layout.store_errors + STORE_ERRORS.index(known)] += 1

    def asked_again(self) -> None:
        """Count a batch that was sent a second time, because the replies to the first were lost."""
        self._cells[self._layout.asked_again] += 1

    def fence_moved(self) -> None:
        """Count a Redis that was found to be another than before: older tokens are refused."""
        self._cells[self._layout.fence_moves] += 1

    def audit_lost(self, number: int) -> None:
        """Count entries of the audit that Redis did not take. Nobody waits for them."""
        self._cells[self._layout.audit_lost] += number

    def heartbeat(self, monotonic: float) -> None:
        """Say that the loop turns. The first one tells the supervisor that this worker serves."""
        self._floats[self._layout.heartbeat] = monotonic


def merged(counters: Counters) -> "tuple[list[int], list[float]]":
    """Add up the cells of all workers, as integers and as floats; each cell has a sense in one."""
    blocks = [counters.block(index) for index in range(counters.workers)]
    cells = [sum(column) for column in zip(*(block[0] for block in blocks), strict=True)]
    floats = [sum(column) for column in zip(*(block[1] for block in blocks), strict=True)]
    return cells, floats
