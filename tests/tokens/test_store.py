"""The store that a URL names: one server, what Sentinels lead to, or a cluster."""

from pathlib import Path

import pytest
import redis

from tests.support.authority import make_authority
from tests.support.redis import RedisServer
from tests.support.stores import Recorder, run, running_store, store_settings
from tests.support.topologies import running_node
from tokens.store.cluster import Cluster
from tokens.store.primary import Primary
from tokens.store.sentinel import WatchedPrimary
from tokens.store.store import open_store
from tokens.store.tls import TlsFiles

SAY = (b"PING", b"here")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://localhost", Primary),
        ("rediss://localhost:6390/3", Primary),
        ("unix:///run/redis.sock", Primary),
        ("redis+sentinel://one,two/tokens", WatchedPrimary),
        ("redis+cluster://one,two:6380", Cluster),
    ],
)
def test_what_stands_behind_a_url(url: str, kind: type) -> None:
    """Each form of URL has its own kind of store, made without connecting to anything."""

    async def main() -> None:
        assert type(open_store(store_settings(url), Recorder())) is kind

    run(main())


@pytest.mark.parametrize("url", ["http://redis", "redis://redis:port", "", "redis://a,b"])
def test_a_url_that_cannot_be_read(url: str) -> None:
    """What is no URL of a store is a ValueError, at once."""
    with pytest.raises(ValueError, match=r"URL|must be|names"):
        open_store(store_settings(url), Recorder())


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    """They are looked at when the store is made, and only where TLS is spoken."""
    tls = TlsFiles(tmp_path / "nowhere.pem")
    open_store(store_settings("redis://localhost", tls=tls), Recorder())
    with pytest.raises(ValueError, match=r"nowhere\.pem"):
        open_store(store_settings("rediss://localhost", tls=tls), Recorder())


def test_a_password_is_never_shown() -> None:
    """Settings in a traceback or a log do not tell the URL."""
    assert "secret" not in repr(store_settings("redis://:secret@localhost"))


def test_over_tls(tmp_path: Path) -> None:
    """rediss:// is TLS, with the CA of the settings, and asks like any other."""
    authority = make_authority(tmp_path)

    async def main() -> None:
        with running_node(tls=authority.issue("redis", "DNS:localhost")) as node:
            url = f"rediss://localhost:{node.port}"
            async with running_store(url, tls=TlsFiles(authority.ca_file)) as keeper:
                await keeper.up()
                assert (await keeper.ask(SAY)).replies == [b"here"]

    run(main())


def test_settings_reach_the_fence(client: redis.Redis, redis_server: RedisServer) -> None:
    """The fence has the key of the settings, and is dated although it refuses nothing."""

    async def main() -> None:
        url = f"unix://{redis_server.socket}"
        async with running_store(url, is_fenced=False) as keeper:
            await keeper.up()
            assert keeper.fence.since_ms == 0
        assert client.hkeys("kat:fence") == [keeper.fence.replid]

    run(main())
