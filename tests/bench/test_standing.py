from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from bench.peers import standing
from bench.peers.play import Shape
from bench.peers.standing import Fallen, stand
from bench.peers.subjects import PEERS, Subject, program, subjects
from bench.peers.task import Plain
from spoa.bench.load import generator
from spoa.bench.servers import Server, private_redis

# redis.asyncio raises where it would need another connection: what is beyond gets no answer.
SMALL_POOL = """
import sys, uvloop
from bench.peers import asyncio_baseline as agent
agent.REDIS_CONNECTIONS = 20
uvloop.run(agent.main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two loads, and less patience with those who fall."""
    monkeypatch.setattr(standing, "PIPELINED", (Shape(4, 16), Shape(4, 4)))
    monkeypatch.setattr(generator, "PATIENCE_S", 0.3)


def test_who_stands_is_asked_most(store: Server, tmp_path: Path) -> None:
    """An agent that answers everything runs on, under the first load, and fell under none."""
    with ExitStack() as stack:
        found = stand(PEERS[0], tmp_path, store, stack)
        assert (found.shape, found.is_pipelined, found.falls) == (Shape(16, 20), True, ())
        assert found.requests_per_s > 0
        assert found.duel.agent.process.poll() is None
    assert found.duel.agent.process.poll() is not None


@pytest.mark.usefixtures("few")
def test_who_falls_is_asked_less(store: Server, tmp_path: Path) -> None:
    """The next smaller load is taken, by a new process, and what was wrong is told."""
    weak = Subject("weak", partial(program, ("-c", SMALL_POOL)), Plain())
    with ExitStack() as stack:
        found = stand(weak, tmp_path, store, stack)
        assert found.shape == Shape(4, 4)
        (fall,) = found.falls
    assert fall.startswith("4 x 16: ")
    assert "unanswered" in fall


@pytest.mark.usefixtures("few")
def test_who_never_answers_rightly_does_not_stand(store: Server, tmp_path: Path) -> None:
    """Then nothing of it runs, and each load says why."""
    wrong = Subject("wrong", subjects()[0].start, Plain())
    with ExitStack() as stack, pytest.raises(Fallen, match=r"4 x 16: .*echo.*; 4 x 4: .*echo"):
        stand(wrong, tmp_path, store, stack)
