"""Connecting and greeting real servers: over sockets, TCP and TLS, welcome or not."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from hiredis import ReplyError

from tests.support.authority import Authority, make_authority
from tests.support.doors import Door
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.stores import (
    LOOPS,
    LoopFactory,
    Recorder,
    run,
    running_store,
    skip,
    store_settings,
    until,
)
from tests.support.topologies import running_node
from tokens.store.greeting import WHO_ARE_YOU, Server, connect, greet, read_server
from tokens.store.line import CONNECT_TIMEOUT_S
from tokens.store.place import Place
from tokens.store.tls import TlsFiles, client_context
from tokens.store.wire import StoreUnavailable

StartRedis = Callable[..., RedisServer]

PASSWORD, QUOTED = "p%ss:w/rd@", "p%25ss%3Aw%2Frd%40"
SAY = (b"PING", b"here")


def url_of(server: RedisServer, login: str = "", query: str = "") -> str:
    return f"unix://{login}{server.socket}{query}"


# Connecting.


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("is_tcp", [False, True])
def test_it_connects_and_serves(
    client: redis.Redis,
    redis_server: RedisServer,
    place: Path,
    loop_factory: LoopFactory,
    is_tcp: bool,  # noqa: FBT001 - a case
) -> None:
    """Over a unix socket and over TCP a token is consumed, once."""

    async def main() -> None:
        with RedisProxy(redis_server.socket, None if is_tcp else place) as proxy:
            async with running_store(proxy.url) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check = door.issue("a")
                assert await door.answers(check) == ["a"]
                assert await door.answers(check) == ["replayed"]
                assert keeper.observer.errors == []

    run(main(), loop_factory)


def greeted(place: Place, loop_factory: LoopFactory) -> Server:
    async def main() -> Server:
        wire = await connect(place, Recorder())
        try:
            return await greet(wire, place, ())
        finally:
            wire.abandon(StoreUnavailable("closed", "the test is over"))
            await asyncio.sleep(0)

    return run(main(), loop_factory)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """Give an authority that nobody knows, unless told to."""
    return make_authority(tmp_path)


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize(("host", "name"), [("localhost", "DNS"), ("127.0.0.1", "IP")])
def test_over_tls(stranger: Authority, host: str, name: str, loop_factory: LoopFactory) -> None:
    """A server is greeted over TLS, by its name or its address, as its certificate says."""
    files = stranger.issue("redis", f"{name}:{host}")
    with running_node(tls=files) as node:
        context = client_context(TlsFiles(stranger.ca_file))
        server = greeted(Place(host, node.port, ssl=context), loop_factory)
        assert len(server.replid) == 40


REFUSED = {
    "from a CA that we do not trust": (False, "DNS:localhost", "certificate verify failed"),
    "of another host": (True, "DNS:elsewhere", "Hostname mismatch"),
    "of an address alone": (True, "IP:127.0.0.1", "Hostname mismatch"),
}


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_certificate_that_is_refused(
    stranger: Authority, case: tuple[bool, str, str], loop_factory: LoopFactory
) -> None:
    """A certificate that is not this host's is `connect`, and no word is said to its owner."""
    is_trusted, name, reason = case
    context = client_context(TlsFiles(stranger.ca_file if is_trusted else None))
    with running_node(tls=stranger.issue("redis", name)) as node:
        with pytest.raises(StoreUnavailable, match=reason) as caught:
            greeted(Place("localhost", node.port, ssl=context), loop_factory)
        assert caught.value.kind == "connect"
        with node.client() as client:
            assert "cmdstat_auth" not in client.info("commandstats")


def test_tls_to_who_speaks_none(stranger: Authority) -> None:
    """A server that does not speak TLS is not there; it is never spoken to in the clear."""

    async def main() -> None:
        with running_node() as node, node.client() as client:
            url = f"rediss://localhost:{node.port}"
            async with running_store(url, tls=TlsFiles(stranger.ca_file)) as keeper:
                # Redis takes the first words of TLS for the beginning of a command, and waits.
                await until(lambda: keeper.observer.errors, "given up", skipping_s=0.1)
                assert keeper.observer.errors[0] in ("connect", "timeout")
            assert "cmdstat_time" not in client.info("commandstats")

    run(main())


@pytest.mark.parametrize("login", ["", "default", "agent"])
@pytest.mark.parametrize("database", [0, 3])
def test_it_logs_in(start_redis: StartRedis, login: str, database: int) -> None:
    """With a password, with a user of its own, in another database: as the URL says."""
    server = start_redis()
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
        client.execute_command("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", "~*", "+@all")

        async def main() -> None:
            url = url_of(server, f"{login}:{QUOTED}@", f"?db={database}")
            async with running_store(url) as keeper:
                await keeper.up()
                (info,) = (await keeper.ask((b"CLIENT", b"INFO"))).replies
                assert isinstance(info, bytes)
                assert b" user=%s " % (login or "default").encode() in info
                assert b" db=%d " % database in info

        run(main())


def test_two_round_trips(proxy: RedisProxy) -> None:
    """A greeting is two writes: a batch whose reply was lost may be waiting for its end."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            assert len(keeper.observer.round_trips) == 2
            names = [name for name, _ in proxy.commands]
            assert names == [
                *(b"INFO", b"SCRIPT", b"SCRIPT", b"INFO", b"TIME", b"ECHO"),
                *(b"HSETNX", b"HGET", b"HLEN", b"ECHO"),
            ]

    run(main())


# A greeting that goes wrong.


def test_a_greeting_that_is_cut_short(proxy: RedisProxy) -> None:
    """A server that is silent, or goes away, in the middle of the greeting is tried again."""

    async def main() -> None:
        proxy.plan(b"TIME", Step.DROP, Step.CUT, Step.HALF, Step.HOLD, b"+soon\r\n", b"*0\r\n")
        # Of two in each greeting the second one is about replication.
        ill = (b"$-1\r\n", b"*1\r\n:1\r\n", Step.TWICE)
        proxy.plan(b"INFO", *[Step.PASS] * 12, *[step for one in ill for step in (Step.PASS, one)])
        async with running_store(proxy.url) as keeper:
            await keeper.up(skipping_s=0.1)
            assert keeper.observer.errors == [
                *("timeout", "closed", "closed", "timeout", "reply", "reply"),
                *("readonly", "readonly", "reply"),
            ]
            assert (await keeper.ask(SAY)).replies == [b"here"]
            assert proxy.connections == 1

    run(main())


GARBAGE = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "a bad length": b"$-7\r\n",
    "a map with a list for a key": b"%1\r\n*0\r\n:1\r\n",
    "a false": b"#f\r\n",
    "a push": b">2\r\n+message\r\n+x\r\n",
    "a number of 5000 digits": b"*2\r\n$5000\r\n%b\r\n$1\r\n1\r\n" % (b"9" * 5000),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_as_a_greeting(proxy: RedisProxy, garbage: bytes) -> None:
    """What answers the greeting as Redis would not is no store; the worker survives it."""

    async def main() -> None:
        proxy.plan(b"TIME", garbage)
        async with running_store(proxy.url) as keeper:
            await keeper.up(skipping_s=0.05)
            assert keeper.observer.errors == ["reply"]

    run(main())


def test_failed_greetings_leave_nothing_open(proxy: RedisProxy) -> None:
    """Many failed greetings later not one connection more is open."""

    async def main() -> None:
        proxy.plan(b"TIME", *[b"-LOADING not yet\r\n"] * 20)
        async with running_store(proxy.url) as keeper:
            await keeper.up(skipping_s=0.1)
            assert keeper.observer.errors == ["loading"] * 20
            await until(lambda: proxy.connections == 1, "one connection")

    run(main())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_stopped_while_it_greets(proxy: RedisProxy, loop_factory: LoopFactory) -> None:
    """A store that is stopped in the middle of a greeting leaves no connection behind."""

    async def main() -> None:
        proxy.plan(b"TIME", Step.HOLD)
        async with running_store(proxy.url):
            await until(lambda: proxy.held, "the hold")
        await until(lambda: not proxy.connections, "the end of the connection")

    run(main(), loop_factory)


def test_no_longer_than_the_timeout(proxy: RedisProxy) -> None:
    """A greeting takes two seconds at most, all its steps together."""

    async def main() -> None:
        proxy.plan(b"HLEN", Step.HOLD)
        async with running_store(proxy.url) as keeper:
            await until(lambda: proxy.held, "the hold")
            skip(CONNECT_TIMEOUT_S - 0.5)
            await asyncio.sleep(0)
            assert keeper.observer.errors == []
            skip(0.6)
            await until(lambda: keeper.observer.errors, "given up")
            assert keeper.observer.errors == ["timeout"]
            proxy.release()
            await keeper.up(skipping_s=0.1)

    run(main())


# Not welcome.


def test_a_wrong_password(start_redis: StartRedis, caplog: pytest.LogCaptureFixture) -> None:
    """A refused password is `auth`; it stands in no log and no message; put right, it heals."""
    caplog.set_level(logging.DEBUG)
    server = start_redis()

    async def main() -> None:
        url = url_of(server, f":{QUOTED}@")
        with server.client() as client:
            client.config_set("requirepass", "another one")
            async with running_store(url) as keeper:
                await until(lambda: keeper.observer.errors, "an error")
                fault = keeper.execute(SAY).fault
                assert fault.kind == "auth"
                assert "WRONGPASS" in str(fault)
                assert PASSWORD not in repr(fault)
                assert QUOTED not in repr(store_settings(url))
                client.config_set("requirepass", PASSWORD)
                await keeper.up(skipping_s=0.1)

    run(main())
    assert "WRONGPASS" in caplog.text
    assert PASSWORD not in caplog.text
    assert QUOTED not in caplog.text


def test_a_server_that_does_not_know_auth(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis echoes the arguments of a command that it does not know: not into our log."""
    caplog.set_level(logging.DEBUG)
    server = start_redis("--rename-command", "AUTH", "")

    async def main() -> None:
        async with running_store(url_of(server, f":{QUOTED}@")) as keeper:
            await until(lambda: keeper.observer.errors, "an error")
            assert PASSWORD not in str(keeper.execute(SAY).fault)

    run(main())
    assert "unknown command" in caplog.text
    assert PASSWORD not in caplog.text


def test_no_password_where_one_is_wanted(start_redis: StartRedis) -> None:
    """NOAUTH is `auth`."""
    server = start_redis()
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)

    async def main() -> None:
        async with running_store(url_of(server)) as keeper:
            await until(lambda: keeper.observer.errors, "an error")
            assert keeper.execute(SAY).fault.kind == "auth"

    run(main())


def test_a_replica_is_not_used(start_redis: StartRedis) -> None:
    """A replica is `readonly`, never up and never written to; promoted, it is used."""
    server = start_redis("--replicaof", "127.0.0.1", "1")

    async def main() -> None:
        async with running_store(url_of(server)) as keeper:
            await until(lambda: len(keeper.observer.errors) > 1, "two tries", skipping_s=0.1)
            assert set(keeper.observer.errors) == {"readonly"}
            assert keeper.execute(SAY).fault.kind == "readonly"
            with server.client() as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
            await keeper.up(skipping_s=0.1)
            assert (await keeper.ask(SAY)).replies == [b"here"]

    run(main())


def test_what_a_server_says_of_itself(start_redis: StartRedis) -> None:
    """A server has its replid and its clock; whether it was promoted is seen from its past."""
    server = start_redis()

    def asked() -> Server:
        return greeted(Place(path=server.socket), LOOPS[0])

    with server.client() as client:
        before_ms = int(client.time()[0]) * 1000
        first = asked()
        assert before_ms <= first.now_ms <= (int(client.time()[0]) + 1) * 1000
        assert first.replid.decode() == client.info("replication")["master_replid"]
        assert not first.was_promoted
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="is a replica") as caught:
            asked()
        assert caught.value.kind == "readonly"
        client.execute_command("REPLICAOF", "NO", "ONE")
        second = asked()
        assert second.was_promoted
        assert second.replid != first.replid


def test_an_error_is_no_server() -> None:
    """An error reply in place of either answer is quoted, with its kind."""
    error = ReplyError("LOADING Redis is loading the dataset in memory")
    for replies in ((error, [b"1", b"1"]), (b"role:master\r\nmaster_replid:x\r\n", error)):
        with pytest.raises(StoreUnavailable, match="LOADING") as caught:
            read_server(*replies)
        assert caught.value.kind == "loading"
    assert len(WHO_ARE_YOU) == len(replies)
