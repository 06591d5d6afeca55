"""Fixtures of `kat allowlist`: HAProxy by its version, a Redis, and a folder for short names."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.allowlist import Kept, kept
from tests.support.haproxy import binary, versions
from tests.support.redis import RedisServer


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose path is short: that of a unix socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="kat-") as path:
        yield Path(path)


@pytest.fixture(params=versions())
def version(request: pytest.FixtureRequest) -> str:
    """Give each HAProxy version in turn."""
    return str(request.param)


@pytest.fixture
def edge(version: str, folder: Path) -> Iterator[Kept]:
    """Run a HAProxy of each version."""
    with kept(binary(version), folder / "edge") as haproxy:
        yield haproxy


@pytest.fixture
def store(redis_server: RedisServer) -> str:
    """Give the URL of an empty Redis."""
    return f"unix://{redis_server.socket}"


@pytest.fixture
def grants(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Give a client of the same."""
    with redis_server.client() as client:
        yield client
