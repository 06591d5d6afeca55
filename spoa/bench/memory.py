"""Memory of the agent's workers and of Redis, looked at again and again while a round is played.

A worker's memory is its PSS: what it has alone, and its part of what processes share (the pages of
the interpreter and its libraries). Those of all workers add up to what the machine has to give.
Its RSS, which `ps` and `top` show, counts what is shared as if it were the worker's alone. A MB is
1,048,576 bytes, as there.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from spoa.bench.result import Figures
from spoa.bench.servers import family

MB: Final = 1024 * 1024
INTERVAL_S: Final = 0.1
"""One look takes a millisecond, most of it the kernel's adding up."""

MINUTE_S: Final = 60.0
_STOP_TIMEOUT_S = 10.0
# How the supervisor starts a worker; its other child is the resource tracker of multiprocessing.
_WORKER = b"spawn_main"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. The worker is the largest one, the agent all its processes."""

    at_s: float
    worker_mb: float
    worker_rss_mb: float
    agent_mb: float
    redis_mb: float


class Watch:
    """Looks at the memory of an agent and its Redis as long as its block runs."""

    def __init__(self, agent_pid: int, redis_socket: str, interval_s: float = INTERVAL_S) -> None:
        self.samples: list[Sample] = []
        self._agent_pid = agent_pid
        self._redis = redis.Redis(unix_socket_path=redis_socket, retry=Retry(NoBackoff(), 0))
        self._interval_s = interval_s
        self._is_over = threading.Event()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.end()
        except Exception:
            if not error:  # what broke the block tells more
                raise

    def end(self) -> None:
        """Look no more. Raises what kept it from looking, once."""
        self._is_over.set()
        self._thread.join(_STOP_TIMEOUT_S)
        self._redis.close()
        fault, self._fault = self._fault, None
        if fault:
            raise fault

    def _run(self) -> None:
        try:
            while not self._is_over.wait(self._interval_s):
                self._look()
            self._look()  # a round that was over at once has an end, too
        except Exception as fault:  # noqa: BLE001 - raised where the block ends
            self._fault = fault

    def _look(self) -> None:
        used = int(self._redis.info("memory")["used_memory"])
        self.samples.append(look(self._agent_pid, time.monotonic(), used))


def look(agent_pid: int, at_s: float, redis_bytes: int) -> Sample:
    """Look at an agent once. Raises ProcessLookupError when it has no worker."""
    found = {pid: memory for pid in family(agent_pid) if (memory := memory_mb(pid))}
    workers = [memory for pid, memory in found.items() if _is_worker(pid)]
    if not workers:
        raise ProcessLookupError(f"process {agent_pid} has no worker")
    largest = max(workers)
    return Sample(
        at_s, *largest, agent_mb=sum(pss for pss, _ in found.values()), redis_mb=redis_bytes / MB
    )


def peak(samples: Sequence[Sample]) -> Figures:
    """Return the most that was seen."""
    return {
        "memory_mb": max(one.worker_mb for one in samples),
        "rss_mb": max(one.worker_rss_mb for one in samples),
        "agent_memory_mb": max(one.agent_mb for one in samples),
        "redis_memory_mb": max(one.redis_mb for one in samples),
    }


def trend(samples: Sequence[Sample]) -> Figures:
    """Say how memory went: medians of the first and the last minute, and the slope between.

    Of a run shorter than three minutes, of its first and last third. The slope is that of the
    straight line with the smallest squares, after the first minute: a worker that has just
    begun still learns what HAProxy sends.
    """
    first_s, last_s = samples[0].at_s, samples[-1].at_s
    span_s = min(MINUTE_S, (last_s - first_s) / 3)
    first = [one for one in samples if one.at_s <= first_s + span_s]
    last = [one for one in samples if one.at_s >= last_s - span_s]
    settled = [one for one in samples if one.at_s >= first_s + span_s]
    return {
        "first_mb": median(one.worker_mb for one in first),
        "last_mb": median(one.worker_mb for one in last),
        "per_minute_mb": slope([(one.at_s / MINUTE_S, one.worker_mb) for one in settled]),
        "redis_first_mb": median(one.redis_mb for one in first),
        "redis_last_mb": median(one.redis_mb for one in last),
        "redis_per_minute_mb": slope([(one.at_s / MINUTE_S, one.redis_mb) for one in settled]),
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line with the smallest squares; 0 for points at one place."""
    if not points:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def memory_mb(pid: int) -> tuple[float, float] | None:
    """Return PSS and RSS of a process, or None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    fields = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
    return int(fields["Pss"]) / 1024, int(fields["Rss"]) / 1024


def _is_worker(pid: int) -> bool:
    try:
        return _WORKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
