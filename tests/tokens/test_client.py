"""Clients for every kind of store: one try, no secret told."""

import asyncio
import contextlib
import gc
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from tests.support.authority import Authority, make_authority
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.stores import run, running_store, until
from tests.support.topologies import RunningCluster, Watched, running_node, running_sentinels
from tokens import issue
from tokens.admin.facts import describe_store
from tokens.store.client import (
    SYSTEM_CAS,
    TIMEOUT_S,
    StoreFault,
    StoreUnreachable,
    connect,
    open_async_client,
    open_client,
)
from tokens.store.tls import TlsFiles


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with running_sentinels(replicas=1) as watched:
        yield watched


@pytest.fixture(params=["server", "watched", "cluster"])
def url(
    request: pytest.FixtureRequest,
    redis_server: RedisServer,
    watched: Watched,
    shared_cluster: RunningCluster,
) -> str:
    """Give the URL of each kind of store."""
    urls = {"watched": watched.url, "cluster": shared_cluster.url}
    return urls.get(request.param, f"unix://{redis_server.socket}")


def test_every_kind_of_store_has_a_client(url: str) -> None:
    """What one client has written is read by another one, wherever its key lives."""
    keys = [f"client:{number}" for number in range(30)]
    with open_client(url) as writer, connect(url) as reader:
        for key in keys:
            assert writer.set(key, key, px=10_000)
        assert [reader.get(key) for key in keys] == [key.encode() for key in keys]


def test_every_kind_of_store_has_a_client_for_asyncio(url: str) -> None:
    """The same for asyncio, and nothing is left open."""

    async def main() -> None:
        async with open_async_client(url) as client:
            for number in range(30):
                key = f"async-client:{number}"
                assert await client.set(key, key, px=10_000)
                assert await client.get(key) == key.encode()

    asyncio.run(main())
    gc.collect()  # tells of what is open


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[RedisProxy]:
    """Give what looks like a cluster of one node to who asks for one, and like a Redis else."""
    with RedisProxy(redis_server.socket, None) as proxy:
        node = b"*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\nx\r\n" % proxy.port
        proxy.plan(b"CLUSTER", *[b"*1\r\n*3\r\n:0\r\n:16383\r\n" + node] * 20)
        proxy.plan(b"READONLY", *[b"+OK\r\n"] * 20)
        yield proxy


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize("step", [Step.CUT, Step.DROP])
def test_no_command_is_sent_twice(proxy: RedisProxy, scheme: str, step: Step) -> None:
    """A reply that is lost is an error: nobody asks again what may have been done."""
    proxy.plan(b"SET", step)
    url = f"{scheme}://127.0.0.1:{proxy.port}"
    patience_s = 0.8 if step is Step.DROP else TIMEOUT_S
    with (
        open_client(url, timeout_s=patience_s) as client,
        pytest.raises((redis.ConnectionError, redis.TimeoutError)),
    ):
        client.set("key", "value")
    assert proxy.count(b"SET") == 1


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize("step", [Step.CUT, Step.DROP])
def test_no_command_is_sent_twice_by_asyncio(proxy: RedisProxy, scheme: str, step: Step) -> None:
    """The same for asyncio, and nothing is left open after the failure."""

    async def main() -> None:
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        patience_s = 0.8 if step is Step.DROP else TIMEOUT_S
        async with open_async_client(url, timeout_s=patience_s) as client:
            await client.ping()
            with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
                await client.set("key", "value")

    proxy.plan(b"SET", step)
    asyncio.run(main())
    gc.collect()
    assert proxy.count(b"SET") == 1


def test_a_store_without_a_primary_is_unreachable(watched: Watched) -> None:
    """A service that no Sentinel watches is told from one that refuses."""
    with (
        pytest.raises(
            StoreUnreachable, match=r"elsewhere of the Sentinels .* nothing of that name"
        ),
        connect(watched.url.replace("/tokens", "/elsewhere")) as client,
    ):
        client.ping()


def test_a_cluster_that_is_none_is_a_fault(redis_server: RedisServer) -> None:
    """A Redis without cluster mode is no cluster, and that is said, with what to use."""
    with (
        RedisProxy(redis_server.socket, None) as proxy,
        pytest.raises(StoreFault, match=r"no node of a cluster: use redis://host"),
        connect(f"redis+cluster://127.0.0.1:{proxy.port}"),
    ):
        pass


WRONG_KIND = {
    "a node of a cluster": ("redis", "cluster", "this is a node of a cluster: use redis.cluster:"),
    "a Sentinel": ("redis", "sentinel", "this is a Sentinel: use redis.sentinel:"),
    "no Sentinel": ("redis+sentinel", "server", "this is no Sentinel: use redis:"),
    "no cluster": ("redis+cluster", "server", "this is no node of a cluster: use redis:"),
    "a Sentinel for a cluster": ("redis+cluster", "sentinel", "Sentinel: use|no node of a"),
}


@pytest.mark.parametrize("case", WRONG_KIND.values(), ids=WRONG_KIND)
def test_a_server_of_another_kind(
    case: tuple[str, str, str], watched: Watched, shared_cluster: RunningCluster
) -> None:
    """Who is not what the URL says is called what it is, by commands and by agents alike."""
    scheme, who, sentence = case
    hosts = {"cluster": shared_cluster.primaries[0], "sentinel": watched.sentinels[0]}
    host = hosts.get(who, watched.primary).host
    url = f"{scheme}://{host}" + ("/tokens" if scheme == "redis+sentinel" else "")
    with pytest.raises(StoreFault, match=sentence) as caught:
        describe_store(url)
    assert host in str(caught.value)

    async def main() -> None:
        async with running_store(url) as keeper:
            await until(lambda: keeper.observer.errors, "the refusal")
            assert set(keeper.observer.errors) == {"mode"}
            fault = keeper.execute((b"TIME",)).fault
            assert re.search(sentence, str(fault)), fault

    run(main())


def test_a_cluster_that_is_away_is_said_in_our_words() -> None:
    """The client of a cluster advises at length; ours is a sentence."""
    with (
        pytest.raises(StoreFault) as caught,
        connect("redis+cluster://127.0.0.1:1"),
    ):
        pass
    assert str(caught.value) == (
        "Redis at the cluster 127.0.0.1:1 cannot be reached: Connection refused"
    )


# TLS.


def test_tls_is_verified(authority: Authority, server_files: TlsFiles, tmp_path: Path) -> None:
    """Only the right CA and the name that the certificate is for open a connection."""
    trusting = TlsFiles(authority.ca_file)
    with running_node(tls=server_files) as node:
        by_address = f"rediss://127.0.0.1:{node.port}"
        with connect(by_address, trusting) as client:
            assert client.ping()
        for url, files, reason in (
            (by_address, TlsFiles(), "self-signed certificate"),
            (by_address, TlsFiles(make_authority(tmp_path).ca_file), "self-signed|verify failed"),
            (by_address.replace("127.0.0.1", "localhost"), trusting, "Hostname mismatch"),
        ):
            with pytest.raises(StoreUnreachable, match=reason), connect(url, files) as client:
                client.ping()
        with (
            pytest.raises(StoreFault, match="use rediss://"),
            connect(f"redis://127.0.0.1:{node.port}") as client,
        ):
            client.ping()


def test_a_server_may_ask_for_our_certificate(authority: Authority, server_files: TlsFiles) -> None:
    """A client certificate is shown where it is wanted, and missed where there is none."""
    ours = authority.issue("agent")
    with running_node("--tls-auth-clients", "yes", tls=server_files) as node:
        url = f"rediss://127.0.0.1:{node.port}"
        with connect(url, ours) as client:
            assert client.ping()
        with (
            pytest.raises(StoreUnreachable, match=r"store\.cert_file"),
            connect(url, TlsFiles(ours.ca_file)) as client,
        ):
            client.ping()
        assert "store.cert_file" in _unavailable(url, TlsFiles(ours.ca_file))


def test_tls_meets_none_and_none_meets_tls(authority: Authority, server_files: TlsFiles) -> None:
    """Who speaks TLS to a plain port, or the other way round, is told which scheme to use."""
    trusting = TlsFiles(authority.ca_file)
    with running_node() as node:
        url = f"rediss://127.0.0.1:{node.port}"
        with pytest.raises(StoreFault, match="use redis://"), connect(url, trusting) as client:
            client.ping()
        assert "use redis://" in _unavailable(url, trusting)
    with running_node(tls=server_files) as node:
        assert "use rediss://" in _unavailable(f"redis://127.0.0.1:{node.port}")


def _unavailable(url: str, tls: TlsFiles = SYSTEM_CAS) -> str:
    """Return why an agent has no store there."""

    async def main() -> str:
        async with running_store(url, tls=tls) as keeper:
            await until(lambda: keeper.observer.errors, "the refusal", skipping_s=0.1)
            return str(keeper.execute((b"TIME",)).fault)

    return run(main())


def test_what_answers_is_told_from_what_is_away(redis_server: RedisServer) -> None:
    """Only a Redis that cannot be connected to is unreachable."""
    with pytest.raises(StoreUnreachable), connect("unix:///nowhere/redis.sock") as client:
        client.ping()
    for refused in (f"unix://{redis_server.socket}?db=99", f"unix://u:x@{redis_server.socket}"):
        with pytest.raises(StoreFault) as caught, connect(refused) as client:
            client.ping()
        assert not isinstance(caught.value, StoreUnreachable)


def test_a_wrong_password_is_not_told(start_redis: Callable[..., RedisServer]) -> None:
    """A refusal names the place, and neither password."""
    server = start_redis()
    with server.client() as client:
        client.config_set("requirepass", "right-one")
    for user, sentence in (("", "asks for a password"), (":wrong-one@", "refuses the user")):
        with pytest.raises(StoreFault, match=sentence) as caught:
            _ping(f"unix://{user}{server.socket}")
        assert server.socket in str(caught.value)
        assert "-one" not in str(caught.value)
        assert caught.value.__cause__ is None
    _ping(f"unix://:right-one@{server.socket}")


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a store that accepts and says nothing."""
    monkeypatch.setattr("tokens.store.client.TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StoreFault, match="does not answer within"):
            _ping(f"redis://:hunter2@127.0.0.1:{port}")


def test_what_redis_says_is_passed_on(redis_server: RedisServer) -> None:
    """An error reply keeps its words."""
    with (
        pytest.raises(StoreFault, match=r"says: unknown command"),
        connect(f"unix://{redis_server.socket}") as client,
    ):
        client.execute_command("NOSUCH")


@pytest.mark.parametrize("command", ["HELLO", "AUTH"])
def test_a_server_that_echoes_is_not_repeated(
    start_redis: Callable[..., RedisServer], command: str
) -> None:
    """A server without HELLO or AUTH sends our password back in its refusal; it ends there."""
    server = start_redis("--rename-command", command, "")
    with contextlib.suppress(StoreFault):
        _ping(f"unix://:our-secret@{server.socket}")
    with pytest.raises(StoreFault) as caught, connect(f"unix://:our-secret@{server.socket}") as one:
        one.execute_command(command, "our-secret")
    assert "our-secret" not in str(caught.value)


def test_an_issuers_client_puts_no_password_into_hello(
    start_redis: Callable[..., RedisServer],
) -> None:
    """An issuer's exception has no password either, when the server is too old for HELLO."""
    server = start_redis("--rename-command", "HELLO", "")
    with server.client() as client:
        client.config_set("requirepass", "our-secret")
    with issue.connect(f"unix://:our-secret@{server.socket}") as issuer:
        assert issuer.ping()


def _ping(url: str) -> None:
    with connect(url) as client:
        client.ping()
