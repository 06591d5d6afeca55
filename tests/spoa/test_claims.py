"""Whose second try it is, the agent says by a claim of its own; no client can, by no `id`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.eventually import eventually
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.running_worker import RunningWorker, running_worker
from tests.support.spop_client import Argument, check_http, notify
from tokens.issue import Issuer
from tokens.record import Keys
from tokens.token import digest

DEADLINE_MS = 5_000
"""So long Redis takes a second try of the same claim for one: far longer than a test needs."""

IDS: dict[str, dict[str, Argument]] = {
    "absent": {"without": "id"},
    "null": {"id": None},
    "empty": {"id": ""},
    "constant": {"id": "4bf92f3577b34da6"},
    "the claim itself": {},
}


@pytest.fixture
def proxy(redis_server: RedisServer, place: Path) -> Iterator[RedisProxy]:
    with RedisProxy(redis_server.socket, place) as proxy:
        yield proxy


@pytest.fixture
def worker(proxy: RedisProxy, place: Path) -> Iterator[RunningWorker]:
    with running_worker(place, store={"url": proxy.url}, deadline_ms=DEADLINE_MS) as worker:
        yield worker


def issue(client: redis.Redis) -> str:
    return Issuer(client).issue("user1", "demo", 60).token


def claim_of(client: redis.Redis, token: str) -> str:
    """Read from Redis for which claim a token was consumed. Empty while it is whole."""
    value = client.get(Keys().token(digest(token.encode())))
    assert isinstance(value, bytes)
    return value.split()[1].decode() if value.startswith(b"consumed ") else ""


@pytest.fixture(params=IDS)
def ids(request: pytest.FixtureRequest) -> dict[str, Argument]:
    """Give what a client says of its request's `id`, as arguments of `check_http`."""
    return IDS[request.param]


def test_a_replay_stays_a_replay(
    client: redis.Redis, worker: RunningWorker, ids: dict[str, Argument]
) -> None:
    """The same token with the same `id` opens nothing, on no connection, also right afterwards."""
    token = issue(client)
    with worker.greeted() as first, worker.greeted() as second:
        assert first.ask(token, **ids).reason == "ok"
        again = ids or {"id": claim_of(client, token)}
        assert first.ask(token, **again).reason == "replayed"
        # A new connection counts its streams anew: this is the very frame of the first one.
        assert second.ask(token, **again).reason == "replayed"
        assert second.ask(token, **again).reason == "replayed"


def test_of_two_in_one_batch_one_gets_in(
    client: redis.Redis, worker: RunningWorker, ids: dict[str, Argument]
) -> None:
    """Two requests that nothing tells apart but their stream are two."""
    token = issue(client)
    with worker.greeted() as haproxy:
        asked = [notify(haproxy.next_ids(), check_http(token=token, **ids)) for _ in range(2)]
        haproxy.send(*asked)
        answers = haproxy.answers(2).values()
    assert sorted(answer.reason for answer in answers) == ["ok", "replayed"]


def test_while_a_reply_is_lost_only_its_own_visitor_gets_in(
    client: redis.Redis, proxy: RedisProxy, worker: RunningWorker, ids: dict[str, Argument]
) -> None:
    """Redis has consumed and nobody knows: a thief who says the same meanwhile stays outside."""
    token = issue(client)
    with worker.greeted() as owner, worker.greeted() as thief:
        asked = proxy.count(b"EVALSHA")
        proxy.plan(b"EVALSHA", Step.HOLD)
        owner.send(notify(owner.next_ids(), check_http(token=token, **ids)))
        claim = eventually(lambda: claim_of(client, token), "Redis has consumed it")
        eventually(lambda: proxy.held, "the reply is on its way")
        stolen = ids or {"id": claim}
        thief.send(notify(thief.next_ids(), check_http(token=token, **stolen)))
        # Two scripts each: one redeems, one looks what is revoked.
        eventually(
            lambda: proxy.count(b"EVALSHA") == asked + 4, "Redis has been asked for him, too"
        )
        proxy.cut()
        assert owner.answer().reason == "ok"
        assert thief.answer().reason == "replayed"
        assert claim_of(client, token) == claim
    assert worker.asked_again == 2
