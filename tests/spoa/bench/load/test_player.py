import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from spoa.bench.load.player import Job, Played, play
from spoa.bench.load.prepared import UnexpectedAnswer
from spoa.bench.scenario import ACLS, Scenario
from spoa.bench.servers import Server, private_redis, real_agent

PATIENT = {"KAT_LIMITS__DEADLINE_MS": "10000", "KAT_ACL__IDLE__MODE": "strict"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Give a Redis, and an agent one of whose ACLs is of the wrong mode."""
    directory = tmp_path_factory.mktemp("play")
    with (
        private_redis(directory) as store,
        real_agent(directory / "a", store.socket, 1, {**ACLS, **PATIENT}) as agent,
    ):
        yield store, agent


def job_of(servers: tuple[Server, Server], scenario: Scenario) -> Job:
    store, agent = servers
    cores = tuple(os.sched_getaffinity(0))
    return Job(scenario, 300, 2, 20, 1.0, 10, agent.socket, store.socket, cores)


def said_of(job: Job, meanwhile: Callable[[], object] = lambda: None) -> object:
    """Play a job in a process of its own, and return its last word."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=play, args=(job, theirs))
    process.start()
    try:
        while True:
            assert ours.poll(60)
            match ours.recv():
                case "ready":
                    meanwhile()
                    ours.send(0.0)
                case "finished":
                    continue
                case word:
                    return word
    finally:
        process.terminate()
        process.join()


@pytest.mark.parametrize(("requests", "connections"), [(300, 2), (1, 1)])
def test_every_kind_of_a_mixed_round_is_answered(
    servers: tuple[Server, Server], requests: int, connections: int
) -> None:
    """Each in its own way, and Redis agrees; a round with room for one kind alone is one, too."""
    job = replace(job_of(servers, Scenario.MIXED), requests=requests, connections=connections)
    played = said_of(job)
    assert isinstance(played, Played)
    assert (played.right, played.wrong) == (requests, {})


def test_redis_is_asked_about_each_kind_by_itself(servers: tuple[Server, Server]) -> None:
    """What is not as it should be after a mixed round is told with the kind that it belongs to."""

    def prolong() -> None:
        with redis.Redis(unix_socket_path=servers[0].socket) as client:
            (key, *_) = client.scan_iter("kat:s:*", count=10_000)
            client.expire(key, 10_000)

    played = said_of(job_of(servers, Scenario.MIXED), prolong)
    assert isinstance(played, Played)
    assert played.right == 300
    assert played.wrong == {"session: 1 were prolonged, 0 should be": 1}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"agent_socket": "/nobody.sock"}, OSError), ({"scenario": Scenario.SESSION_IDLE}, None)],
)
def test_what_cannot_be_played_is_said(
    servers: tuple[Server, Server], changes: dict[str, str], fault: type[Exception] | None
) -> None:
    """No round is played against nobody, or against an agent that means something else."""
    said = said_of(replace(job_of(servers, Scenario.SESSION), **changes))
    assert isinstance(said, fault or UnexpectedAnswer)
