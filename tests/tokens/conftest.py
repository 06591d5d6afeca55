"""Fixtures for what is told to Redis: a proxy before it, and Redis in its other forms."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.authority import Authority, make_authority
from tests.support.redis import RedisServer, running_redis
from tests.support.redis_proxy import RedisProxy
from tests.support.topologies import RunningCluster, running_cluster, valkey
from tokens.store.tls import TlsFiles

# Two shared cores make any single example slow at times: no test judges time.
settings.register_profile("tokens", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tokens")


@pytest.fixture
def place() -> Iterator[Path]:
    """Make an empty directory with a short name, for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="kat-") as directory:
        yield Path(directory)


@pytest.fixture
def proxy(redis_server: RedisServer, place: Path) -> Iterator[RedisProxy]:
    """Stand before the empty server that everybody shares."""
    with RedisProxy(redis_server.socket, place) as proxy:
        yield proxy


@pytest.fixture(scope="session", params=["redis", "valkey"])
def every_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Give a Redis, then a Valkey, as they were left by the test before."""
    with running_redis(binary=valkey() if request.param == "valkey" else None) as server:
        yield server


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RunningCluster]:
    """Give a cluster of three primaries. Tests may leave keys in it, and slots anywhere."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server_files(authority: Authority) -> TlsFiles:
    """Give a server's certificate, for 127.0.0.1 and no name."""
    return authority.issue("server", "IP:127.0.0.1")
