"""Fixtures for everybody: a real Redis."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.support.redis import RedisServer, running_redis


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
