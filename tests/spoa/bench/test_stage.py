import io
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from spoa.bench.lines import LEAST_REQUESTS
from spoa.bench.load.channel import Transport
from spoa.bench.load.player import Job
from spoa.bench.options import Options
from spoa.bench.progress import Progress
from spoa.bench.result import Result, Round
from spoa.bench.scenario import Scenario
from spoa.bench.stage import Point, Stage, is_quick, play_all, stage

SILENT = Progress(io.StringIO())


def test_a_job_is_played_and_memory_watched(on: Stage) -> None:
    """Every request is answered rightly, and what it took is told."""
    played = on.play(on.job(Scenario.CONSUME, 2, 5))
    assert (played.figures["requests"], played.wrong) == (LEAST_REQUESTS, {})
    told = ("agent_us", "redis_us", "memory_mb", "rss_mb", "agent_memory_mb", "redis_memory_mb")
    assert all(played.figures[name] > 0 for name in told)


def test_a_stage_is_reached_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agent and Redis stand at loopback ports where that is what is to be measured."""
    monkeypatch.setenv("KAT_LIMITS__DEADLINE_MS", "10000")
    options = Options(transport=Transport.TCP, redis=Transport.TCP)
    with stage(options, tmp_path / "stage") as on:
        assert on.agent.socket.startswith("127.0.0.1:")
        assert on.store.tcp.startswith("127.0.0.1:")
        assert on.play(on.job(Scenario.SESSION, 2, 5)).wrong == {}


@dataclass
class Played:
    """A stage that only notes what was to be played."""

    jobs: list[Job] = field(default_factory=list)

    def sized(self, job: Job, seconds: float) -> Job:
        return replace(job, requests=int(1000 * seconds))

    def play(self, job: Job) -> Round:
        self.jobs.append(job)
        return Round({}, Counter())


def test_every_other_round_goes_backwards() -> None:
    """What is compared is measured side by side, and neither is always the first."""
    on = Played()
    scenarios = (Scenario.CONSUME, Scenario.SESSION, Scenario.GRANT)
    points = [
        Point(
            cast("Stage", on),
            Job(scenario, 1, 1, 1, 1.0, 1, "", "", ()),
            Result("growth", scenario),
        )
        for scenario in scenarios
    ]
    results = play_all(points, Options(rounds=3, seconds=2), SILENT)
    a, b, c = scenarios
    assert [job.scenario for job in on.jobs] == [a, b, c, c, b, a, a, b, c]
    assert {job.requests for job in on.jobs} == {2000}
    assert [len(result.rounds) for result in results] == [3, 3, 3]


def test_a_long_run_is_not_quick() -> None:
    """Only short and single rounds mean that a few points will do."""
    assert is_quick(Options(rounds=1, seconds=0.3))
    assert not is_quick(Options(rounds=5, seconds=0.3))
    assert not is_quick(Options(rounds=1, seconds=0.8))
