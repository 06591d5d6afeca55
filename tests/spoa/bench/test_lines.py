import io
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from spoa.bench import lines
from spoa.bench.fault import Fault
from spoa.bench.lines import Line, cores_of, job_of, measure
from spoa.bench.load.player import Job
from spoa.bench.options import Options
from spoa.bench.progress import Progress
from spoa.bench.result import Result, Round
from spoa.bench.rounds import Measured
from spoa.bench.scenario import Scenario
from spoa.bench.servers import private_redis


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Play nothing, and note what would have been played."""
    jobs: list[Job] = []

    def play_round(job: Job, _generators: int, _measured: Mapping[str, Measured]) -> Round:
        jobs.append(job)
        return Round({"requests_per_s": 1000.0}, Counter())

    monkeypatch.setattr(lines, "play_round", play_round)
    return jobs


def line(options: Options, scenario: Scenario, rate: float | None = None) -> Line:
    return Line(job_of(options, scenario, "a", "r", rate), {}, Result("capacity", scenario))


def test_every_other_round_goes_backwards(played: list[Job]) -> None:
    """What is compared is measured side by side, and neither is always the first."""
    a, b, c = Scenario.CONSUME, Scenario.SESSION, Scenario.BOUND
    options = Options(rounds=3)
    results = measure([line(options, one) for one in (a, b, c)], options, Progress(io.StringIO()))
    assert [job.scenario for job in played] == [a, b, c, a, b, c, c, b, a, a, b, c]
    assert [(result.name, len(result.rounds)) for result in results] == [(a, 3), (b, 3), (c, 3)]


def test_a_round_is_as_long_as_asked(played: list[Job]) -> None:
    """So many requests as the warm-up says fit into the time; at a fixed rate as it says."""
    options = Options(rounds=1, seconds=2)
    both = [line(options, Scenario.CONSUME), line(options, Scenario.OPEN, 700.0)]
    measure(both, options, Progress(io.StringIO()))
    assert [job.requests for job in played[2:]] == [2000, 1400]


def test_a_server_that_died_is_named(tmp_path: Path) -> None:
    """Its last words are the reason, not the connection that it refuses."""
    with private_redis(tmp_path) as store:
        store.process.kill()
        store.process.wait()
        job = job_of(Options(), Scenario.CONSUME, "/nobody.sock", store.socket, None)
        line = Line(job, {"redis": store}, Result("capacity", "consume"))
        with pytest.raises(Fault, match=r"^redis ended in the middle"):
            measure([line], Options(), Progress(io.StringIO()))


def test_a_line_says_under_what_it_is_measured() -> None:
    """Who waits sees which rate and which place it is about."""
    job = job_of(Options(), Scenario.OPEN, "a", "r", 700.0)
    assert str(Line(job, {}, Result("x", "open", {"redis": "tcp", "rate": 700.0}))) == (
        "open, redis tcp, 700/s"
    )


def test_a_pinned_agent_has_a_core_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --pin nobody else may run where the agent does; without it, all may run everywhere."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1, 2})
    pinned, free = cores_of(Options(pin=True)), cores_of(Options())
    assert (pinned.agent, pinned.others) == ((3,), (1, 2))
    assert free.agent == free.others == (1, 2, 3)
