import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from spoa.bench.memory import MINUTE_S, Sample, Watch, look, memory_mb, peak, slope, trend
from spoa.bench.servers import private_redis
from spoa.bench.stage import Stage


def samples(worker_mb: Callable[[float], float], seconds: int = 600) -> list[Sample]:
    return [Sample(at, worker_mb(at), 50, 90, 2 * worker_mb(at)) for at in range(seconds + 1)]


def test_a_slope_is_that_of_the_line() -> None:
    """Points on a line have its slope; points at one place, or none at all, have none."""
    assert slope([(1, 5), (2, 7), (5, 13)]) == pytest.approx(2)
    assert slope([(3, 5), (3, 9)]) == slope([]) == 0


def test_growth_is_seen() -> None:
    """A worker that takes a MB more each minute is told from one that does not."""
    grown = trend(samples(lambda at: 40 + at / MINUTE_S))
    assert grown["per_minute_mb"] == pytest.approx(1)
    assert grown["redis_per_minute_mb"] == pytest.approx(2)
    assert (grown["first_mb"], grown["last_mb"]) == pytest.approx((40.5, 49.5))
    assert trend(samples(lambda _: 40))["per_minute_mb"] == 0


def test_beginning_is_no_growth() -> None:
    """What a worker learns in its first minute is in the medians, but not in the slope."""
    found = trend(samples(lambda at: 30 if at < MINUTE_S else 40))
    assert (found["first_mb"], found["last_mb"], found["per_minute_mb"]) == (30, 40, 0)


def test_a_short_run_has_thirds() -> None:
    """Of half a minute the first and the last ten seconds are compared."""
    found = trend(samples(lambda at: at, seconds=30))
    assert (found["first_mb"], found["last_mb"]) == (5, 25)


def test_the_peak_is_the_most_of_each() -> None:
    """The largest figures need not come from one look."""
    seen = [Sample(0, 40, 50, 90, 3), Sample(1, 38, 55, 80, 4)]
    assert list(peak(seen).values()) == [40, 55, 90, 4]


def test_shared_pages_are_counted_in_part() -> None:
    """A process's own share is no more than all that it has mapped; a gone one has nothing."""
    pss, rss = memory_mb(os.getpid()) or (0, 0)
    assert 1 < pss <= rss
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert memory_mb(process.pid) is None


def test_an_agent_is_its_processes_and_its_worker_one_of_them(on: Stage) -> None:
    """The supervisor is no worker: what one takes is less than what all take."""
    with Watch(on.agent.process.pid, on.store.socket) as watch:
        pass
    first, *_, last = watch.samples
    assert first.at_s < last.at_s
    assert 5 < first.worker_mb < first.agent_mb
    assert first.worker_mb <= first.worker_rss_mb
    assert first.redis_mb > 0.5


def test_who_has_no_worker_is_no_agent(on: Stage) -> None:
    """Looking at the wrong process is no small memory."""
    with pytest.raises(ProcessLookupError, match="has no worker"):
        look(on.store.process.pid, 0, 0)


def test_a_watch_that_failed_says_so(tmp_path: Path, on: Stage) -> None:
    """A Redis that is gone in the middle is no short list of samples."""
    with ExitStack() as stack:
        store = stack.enter_context(private_redis(tmp_path))
        watch = stack.enter_context(Watch(on.agent.process.pid, store.socket))
        store.process.terminate()
        store.process.wait()
        with pytest.raises(redis.ConnectionError):
            watch.end()
