import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench.peers.hello import announces_pipelining
from bench.peers.subjects import PEERS, Subject, program, subjects
from bench.peers.task import Plain
from spoa.bench.load.channel import ask_once
from spoa.bench.load.frames import decode_actions, encode_at, encode_ids
from spoa.bench.load.prepared import encode_request
from spoa.bench.scenario import Scenario
from spoa.bench.servers import NotStarted, private_redis

INSTALLED = [peer for peer in PEERS if peer.version is not None]
"""One of them wants a newer Python than the oldest that we support."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.socket


@pytest.mark.parametrize("peer", INSTALLED, ids=str)
def test_a_peer_consumes_a_token_once(peer: Subject, store: str, tmp_path: Path) -> None:
    """The first request gets the user, the second a refusal, and Redis has the key no more."""
    token = Plain().prepare(store, 1)[0]
    frame = encode_request(0, encode_ids(0), token, Scenario.CONSUME.case) + encode_at(time.time())
    with peer.start(tmp_path / "peer", store) as agent:
        assert announces_pipelining(agent.socket) is (peer.name != "haproxyspoa")
        first, second = (ask_once(agent.socket, frame) for _ in range(2))
        assert peer.task.template(first, token)
    with redis.Redis(unix_socket_path=store) as client:
        assert client.dbsize() == 0
    refusal = decode_actions(second)
    assert (refusal[b"reason"], refusal[b"user"], bool(refusal[b"allow"])) == (b"unknown", b"", 0)
    assert agent.process.poll() is not None


def test_the_packages_of_the_peers_are_installed() -> None:
    """The lock holds every peer that this Python can run."""
    assert {"asyncio", "haproxyspoa"} <= {peer.name for peer in INSTALLED}


def test_another_build_stands_beside_this_one() -> None:
    """Each of ours comes twice, and the two differ in their build alone."""
    ours = [str(one) for one in subjects(Path("fast")) if one.name.startswith("kat")]
    assert ours == [
        f"kat {scenario}, {build}"
        for build in ("this", "fast")
        for scenario in ("consume", "session")
    ]


def test_what_is_not_installed_has_no_version() -> None:
    """Then its program is not even started."""
    peer = PEERS[0]
    assert peer.version == ""
    missing = Subject("x", peer.start, peer.task, "no-such-package-of-anybody")
    assert missing.version is None


def test_a_program_that_ends_is_told(tmp_path: Path) -> None:
    """Its own words are in the message."""
    with (
        pytest.raises(NotStarted, match=r"ended at once\nTraceback.*\n.*\nValueError: bad"),
        program(("-c", "raise ValueError('bad')"), tmp_path / "x", "redis"),
    ):
        pass
