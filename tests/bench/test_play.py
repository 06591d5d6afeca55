from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers.play import Duel, Shape
from bench.peers.subjects import PEERS, subjects
from spoa.bench.servers import Server, private_redis

ECHO = subjects()[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def duel(store: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duel]:
    with PEERS[0].start(tmp_path_factory.mktemp("x") / "peer", store.socket) as agent:
        yield Duel(agent, store, PEERS[0].task)


@pytest.mark.parametrize("rate", [None, 2000.0])
def test_every_answer_is_right_and_measured(duel: Duel, rate: float | None) -> None:
    """Each request has its answer, and each process its CPU."""
    played = duel.play(600, Shape(4, 20), rate)
    figures = played.figures
    assert (figures["requests"], played.wrong) == (600, {})
    measured = ("requests_per_s", "agent_us", "redis_us", "generator_us", "p50_ms", "p99_ms")
    assert all(figures[name] > 0 for name in measured)
    assert ("late_p99_ms" in figures) is bool(rate)


def test_what_goes_round_comes_again(store: Server, tmp_path: Path) -> None:
    """More requests than there are different ones: each gets its answer."""
    with ECHO.start(tmp_path / "echo", store.socket) as agent:
        duel = Duel(agent, store, ECHO.task)
        count = ECHO.task.case.goes_round + 500
        played = duel.play(count, Shape(2, 20))
    assert (played.figures["requests"], played.wrong) == (count, {})


def test_who_is_gone_is_a_result(store: Server, tmp_path: Path) -> None:
    """No request was answered, and the reason is counted for each."""
    with ECHO.start(tmp_path / "echo", store.socket) as agent:
        pass
    played = Duel(agent, store, ECHO.task).play(7, Shape(1, 1))
    assert (played.figures, played.wrong.total()) == ({"requests": 0, "wrong": 7}, 7)


def test_another_answer_is_a_result(store: Server, tmp_path: Path) -> None:
    """An agent that answers something else has not answered at all."""
    with ECHO.start(tmp_path / "echo", store.socket) as agent:
        played = Duel(agent, store, PEERS[0].task).play(7, Shape(1, 1))
    assert list(played.wrong) == ["the agent does not answer ok: reason b'echo'"]
