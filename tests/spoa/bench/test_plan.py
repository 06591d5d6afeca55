from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from spoa.bench import plan
from spoa.bench.options import parse_options
from spoa.bench.player import Job
from spoa.bench.result import Round
from spoa.bench.rounds import Measured
from spoa.bench.scenario import Scenario


@dataclass
class Standing:
    """A server that is said to run."""

    socket: str

    def cpu_s(self) -> float:
        return 0.0

    def pin(self, cores: object) -> None:
        """Stay where we are."""


@contextmanager
def standing(directory: Path, *others: object) -> Iterator[Standing]:
    yield Standing(f"{directory.name} {others[-1]}" if others else directory.name)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Play nothing, and note what would have been played."""
    jobs: list[Job] = []

    def play_round(job: Job, _generators: int, _measured: Mapping[str, Measured]) -> Round:
        jobs.append(job)
        return Round({"requests_per_s": 1000.0}, Counter())

    monkeypatch.setattr(plan, "private_redis", standing)
    monkeypatch.setattr(plan, "real_agent", standing)
    monkeypatch.setattr(plan, "play_round", play_round)
    return jobs


def run(*arguments: str, directory: Path) -> None:
    plan.run(parse_options(arguments), directory, lambda _: None)


def test_every_other_round_goes_backwards(tmp_path: Path, played: list[Job]) -> None:
    """What is compared is measured side by side, and neither is always the first."""
    scenarios = ("--scenario", "consume", "--scenario", "session", "--scenario", "bound")
    run(*scenarios, "--rounds", "3", directory=tmp_path)
    a, b, c = "consume", "session", "bound"
    assert [job.scenario for job in played] == [a, b, c, a, b, c, c, b, a, a, b, c]


def test_agents_differ_in_the_audit_alone(tmp_path: Path, played: list[Job]) -> None:
    """One agent answers all, another one what is measured without audit; they share a Redis."""
    run("--rounds", "1", directory=tmp_path)
    settings = {job.scenario: job.agent_socket for job in played if job.redis_socket}
    without = settings.pop(Scenario.UNAUDITED)
    (with_audit,) = set(settings.values())
    assert "STREAM" in without
    assert "STREAM" not in with_audit
    assert len({job.redis_socket for job in played if job.redis_socket}) == 1


def test_a_round_is_as_long_as_asked(tmp_path: Path, played: list[Job]) -> None:
    """So many requests as the warm-up says fit into the time; at a fixed rate as it says."""
    arguments = ("--seconds", "2", "--rounds", "1", "--rate", "700")
    run("--scenario", "consume", "--scenario", "open", *arguments, directory=tmp_path)
    assert [job.requests for job in played[2:]] == [2000, 1400]
