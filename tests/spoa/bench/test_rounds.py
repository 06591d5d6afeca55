import os
from pathlib import Path

import pytest

from spoa.bench.load.channel import Transport
from spoa.bench.load.echo import echo_agent
from spoa.bench.load.player import Job
from spoa.bench.rounds import play_round
from spoa.bench.scenario import Scenario

CORES = tuple(os.sched_getaffinity(0))


class Clock:
    """A server whose CPU time is ours to say."""

    def __init__(self, *readings: float) -> None:
        self.readings = list(readings)

    def cpu_s(self) -> float:
        return self.readings.pop(0)


def job(path: str, requests: int) -> Job:
    return Job(Scenario.CEILING, requests, 4, 5, 1000.0, 10, path, "", CORES)


@pytest.mark.parametrize(
    ("generators", "transport"), [(1, Transport.UNIX), (3, Transport.UNIX), (1, Transport.TCP)]
)
def test_all_requests_are_played_once(
    tmp_path: Path, generators: int, transport: Transport
) -> None:
    """However many processes share a round, every request is answered once and verified."""
    with echo_agent(tmp_path, CORES, transport) as echo:
        played = play_round(job(echo.address, 1001), generators, {"agent": Clock(10.0, 12.002)})
    assert (played.figures["requests"], played.wrong) == (1001, {})
    assert played.figures["agent_us"] == pytest.approx(2000)
    assert played.figures["requests_per_s"] > 0
    assert 0 < played.figures["p50_ms"] <= played.figures["p99_ms"] <= played.figures["max_ms"]


def test_a_fault_of_a_process_is_ours(tmp_path: Path) -> None:
    """A generator process that cannot start ends the round with its own exception."""
    with pytest.raises(FileNotFoundError):
        play_round(job(str(tmp_path / "nobody.sock"), 10), 2, {})
