import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from spoa.bench import growth
from spoa.bench.growth import ALL_IN_FLIGHT, CONNECTIONS, shared_in_flight, workers_of
from spoa.bench.load.player import Job
from spoa.bench.options import Options
from spoa.bench.progress import Progress
from spoa.bench.result import Result
from spoa.bench.scenario import Scenario
from spoa.bench.stage import Point

SILENT = Progress(io.StringIO())
QUICK = Options(seconds=0.3, rounds=1)


def test_requests_in_flight_are_bounded() -> None:
    """Never more than HAProxy has on a connection, nor than all may have, but one on each."""
    assert [shared_in_flight(count) for count in CONNECTIONS] == [20, 20, 20, 5, 1, 1, 1]
    assert all(n * shared_in_flight(n) <= max(ALL_IN_FLIGHT, n) for n in range(1, 3000))


@pytest.mark.parametrize(
    ("cores", "workers"),
    [(1, [1, 2]), (2, [1, 2, 4]), (6, [1, 2, 4, 6, 8, 12]), (8, [1, 2, 4, 8, 16])],
)
def test_workers_go_beyond_the_cores(cores: int, workers: list[int]) -> None:
    """Doubled from one to twice the cores; the cores themselves are among them."""
    assert workers_of(cores) == workers


@dataclass
class Standing:
    """A server that is said to run."""

    socket: str


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """Start and play nothing, and note what would have been played."""
    noted: list[Point] = []

    @contextmanager
    def standing(options: Options, directory: Path, workers: int = 1) -> Iterator[object]:
        server = Standing(f"{directory.name}, {workers} workers")
        yield _Stage(options, server, server)

    def note(points: Sequence[Point], _options: Options, _progress: Progress) -> list[Result]:
        noted.extend(points)
        return [point.result for point in points]

    monkeypatch.setattr(growth, "stage", standing)
    monkeypatch.setattr(growth, "play_all", note)
    monkeypatch.setattr(growth, "fill", lambda *_: None)
    monkeypatch.setattr(growth, "kinds", lambda *_: {})
    monkeypatch.setattr(growth, "bytes_of", lambda *_: {"token": 310.4})
    monkeypatch.setattr(growth, "_audited", lambda *_: 150.2)
    return noted


@dataclass
class _Stage:
    options: Options
    store: Standing
    agent: Standing

    def job(self, scenario: Scenario, connections: int, in_flight: int) -> Job:
        return Job(scenario, 1, connections, in_flight, 1.0, 1, self.agent.socket, "", ())


def test_each_point_has_a_stage_of_its_own(tmp_path: Path, points: list[Point]) -> None:
    """No worker whose memory is told has seen another point's load."""
    growth.run(Options(), tmp_path, SILENT)
    told = [point for point in points if point.result.name in {"connections", "stored tokens"}]
    assert len({id(point.stage) for point in told}) == len(told) == 7 + 4


def test_all_that_grows_is_told(tmp_path: Path, points: list[Point]) -> None:
    """Connections, requests in flight, stored tokens, workers, and what Redis stores."""
    results = growth.run(Options(), tmp_path, SILENT)
    names = list(dict.fromkeys(result.name for result in results))
    assert names == ["connections", "in flight", "stored tokens", "workers", "stored in Redis"]
    assert {result.part for result in results} == {"growth"}
    assert results[-2].rounds[0].figures == {"redis_bytes": 310}
    assert len(results) == len(points) + 2
    assert all(
        point.job.connections >= 8 * int(point.result.at.get("workers", 0)) for point in points
    )


def test_a_quick_run_is_small(tmp_path: Path, points: list[Point]) -> None:
    """It shows that every kind of point works, without the large ones."""
    growth.run(QUICK, tmp_path, SILENT)
    assert len(points) == 2 + 1 + 2 + 2
    assert max(point.job.connections for point in points) == 64


def test_ten_million_tokens_are_asked_for(
    tmp_path: Path,
    points: list[Point],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are stored when they are wanted and fit; else a sentence says why not."""
    monkeypatch.setenv("KAT_BENCH_LARGE", "1")
    monkeypatch.setattr(growth, "room_for", lambda count: "no room" if count == 10**7 else None)
    growth.run(Options(), tmp_path, SILENT)
    assert capsys.readouterr().err == "no room\n"
    monkeypatch.setattr(growth, "room_for", lambda _: None)
    points.clear()
    growth.run(Options(), tmp_path, SILENT)
    stored = [
        point.result.at["stored_tokens"] for point in points if "stored_tokens" in point.result.at
    ]
    assert stored == [10**3, 10**4, 10**5, 10**6, 10**7]
