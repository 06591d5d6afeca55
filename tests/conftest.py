"""Fixtures for everybody: a real Redis."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.support.redis import RedisServer, running_redis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of the benchmark last: they take all cores, and others have deadlines.

    Any order is right; this one fails nobody for being slow.
    """
    items.sort(key=lambda item: "/bench/" in item.nodeid)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all tests of a process. Ask for `redis_server`, which is empty."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """Give an empty server. A test that reconfigures or stops one starts its own: `start_redis`."""
    with shared_redis.client() as client:
        client.flushall()
    return shared_redis


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Give a client of the empty server."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Give what starts a server of the test's own, with settings for redis-server."""
    with contextlib.ExitStack() as servers:
        yield lambda *settings: servers.enter_context(running_redis(*settings))
