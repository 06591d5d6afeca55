"""Listening to a channel of a real Redis, which is lost in every way there is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from redis.exceptions import NoPermissionError

from tests.support.eventually import eventually
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tokens.admin.news import News
from tokens.store.client import open_client

CHANNEL = b"kat:grants"
LONG_S = 30.0
"""For a wait that is known to end."""

SHORT_S = 0.05
"""For one that is known to be in vain."""


@contextmanager
def listening(client: redis.Redis, *names: bytes) -> Iterator[News]:
    news = News(lambda: client, CHANNEL, frozenset(names or [b"tcp"]))
    try:
        yield news
    finally:
        news.close()


@pytest.fixture
def news(client: redis.Redis) -> Iterator[News]:
    """Give a subscription that is confirmed, and old enough to be trusted."""
    with listening(client) as news:
        assert news.confirm()
        yield news


@pytest.fixture
def through(proxy: RedisProxy) -> Iterator[redis.Redis]:
    """Give a client that reaches Redis through the proxy."""
    with open_client(proxy.url) as client:
        assert isinstance(client, redis.Redis)
        yield client


def listeners(client: redis.Redis) -> int:
    ((_, number),) = client.pubsub_numsub(CHANNEL)
    return int(number)


def lose_all(client: redis.Redis) -> None:
    """Cut the listeners off, and wait until they are."""
    client.client_kill_filter(_type="pubsub")
    eventually(lambda: not listeners(client), "nobody listens")


@pytest.mark.parametrize("name", [b"tcp", b"*"])
def test_a_name_that_matters_is_news(client: redis.Redis, news: News, name: bytes) -> None:
    """What was published after the confirmation ends the wait, also if that begins later."""
    client.publish(CHANNEL, name)
    assert news.wait(LONG_S)
    assert not news.wait(0)


@pytest.mark.parametrize(
    ("channel", "name"), [(CHANNEL, b"other"), (b"other:grants", b"tcp"), (CHANNEL, b"")]
)
def test_what_matters_to_others_is_none(
    client: redis.Redis, news: News, channel: bytes, name: bytes
) -> None:
    """Another ACL or another channel wakes nobody."""
    client.publish(channel, name)
    assert not news.wait(SHORT_S)


def test_what_was_before_a_confirmation_is_no_news(client: redis.Redis, news: News) -> None:
    """Whoever confirms reads after it, and needs no second reading for what he saw."""
    for _ in range(1000):
        client.publish(CHANNEL, "tcp")
    assert not news.confirm()
    assert not news.wait(SHORT_S)
    client.publish(CHANNEL, "tcp")
    assert news.wait(LONG_S)


def test_without_a_subscription_the_time_passes(client: redis.Redis) -> None:
    """Before the first confirmation and after the end nothing is heard, and nobody spins."""
    with listening(client) as news:
        for _ in range(2):
            begun = time.monotonic()
            assert not news.wait(SHORT_S)
            assert time.monotonic() - begun >= SHORT_S
            news.confirm()
            news.close()


def test_a_lost_subscription_may_be_news(
    client: redis.Redis, news: News, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss ends a wait at once, and only one; the next confirmation mends it."""
    monkeypatch.setattr("tokens.admin.news._MIN_LIFE_S", 0.0)
    lose_all(client)
    assert news.wait(LONG_S)
    assert not news.wait(SHORT_S)
    assert news.confirm()
    assert not news.confirm()
    client.publish(CHANNEL, "tcp")
    assert news.wait(LONG_S)


def test_a_loss_between_waits_is_mended(client: redis.Redis, news: News) -> None:
    """Whoever confirms is subscribed, whatever happened since."""
    lose_all(client)
    assert news.confirm()
    assert listeners(client) == 1
    client.publish(CHANNEL, "tcp")
    assert news.wait(LONG_S)


def test_who_is_thrown_out_at_once_does_not_spin(client: redis.Redis, news: News) -> None:
    """A subscription that has just begun is no reason to come back before the time."""
    lose_all(client)
    begun = time.monotonic()
    assert news.wait(SHORT_S)
    assert time.monotonic() - begun >= SHORT_S


def test_a_connection_that_died_silently_is_left(
    client: redis.Redis, proxy: RedisProxy, through: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sign of life within the time: a new connection is subscribed, and the old one closed."""
    monkeypatch.setattr("tokens.admin.news.TIMEOUT_S", SHORT_S)
    with listening(through) as news:
        news.confirm()
        proxy.plan(b"PING", Step.HOLD)
        assert news.confirm()
        client.publish(CHANNEL, "tcp")
        assert news.wait(LONG_S)
        eventually(lambda: listeners(client) == 1, "the old one is gone")


def test_a_redis_that_is_away_is_an_error(
    client: redis.Redis, proxy: RedisProxy, through: redis.Redis
) -> None:
    """Confirming raises, waiting does not; when Redis is back, so is the subscription."""
    with listening(through) as news:
        news.confirm()
        proxy.vanish()
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                news.confirm()
            assert not news.wait(SHORT_S)
        proxy.listen()
        assert news.confirm()
        client.publish(CHANNEL, "tcp")
        assert news.wait(LONG_S)


def test_a_user_who_may_not_is_told(start_redis: Callable[..., RedisServer]) -> None:
    """Redis's refusal is raised, each time, and no connection is left behind."""
    server = start_redis()
    with server.client() as admin:
        rights = {"keys": ["*"], "commands": ["+@all"], "reset_channels": True}
        admin.acl_setuser("deaf", enabled=True, passwords=["+x"], **rights)
        with open_client(f"unix://deaf:x@{server.socket}") as client:
            assert isinstance(client, redis.Redis)
            with listening(client) as news:
                for _ in range(3):
                    with pytest.raises(NoPermissionError):
                        news.confirm()
                eventually(lambda: len(admin.client_list()) == 1, "only we are connected")


def test_nothing_is_left_at_the_end(client: redis.Redis) -> None:
    """Who stops listening is off the list of the channel, and may stop twice."""
    with listening(client) as news:
        news.confirm()
        assert listeners(client) == 1
    news.close()
    eventually(lambda: not listeners(client), "nobody listens")
