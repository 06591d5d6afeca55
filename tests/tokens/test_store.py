"""The way to Redis, over real servers: what goes wrong is told at once, and heals by itself."""

import asyncio
import contextlib
import logging
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.records import GOOD
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.stores import (
    LOOPS,
    Keeper,
    LoopFactory,
    Recorder,
    Result,
    Settlement,
    run,
    running_store,
    settled,
    skip,
    store_settings,
    until,
)
from tokens.gate import Check, Decision, Gate, Outcome, Redemption, ReplyMismatch
from tokens.record import Keys
from tokens.store import CONNECT_TIMEOUT_S, Store
from tokens.token import digest, mint
from tokens.wire import STALL_S, StoreUnavailable, error_kind

StartRedis = Callable[..., RedisServer]

DEADLINE_S = 0.5
PAST_DEADLINE_S = DEADLINE_S + 0.1
PASSWORD, QUOTED = "p%ss:w/rd@", "p%25ss%3Aw%2Frd%40"
ECHO = (b"ECHO", b"here")


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


@contextlib.contextmanager
def restarted(server: RedisServer, *more: str) -> Iterator[None]:
    """Start a killed server again where it was, with more settings, until the block ends."""
    server.process.wait()
    process = subprocess.Popen([*map(str, server.process.args), *more])  # type: ignore[union-attr]
    try:
        yield
    finally:
        process.kill()
        process.wait()


def url_of(server: RedisServer, login: str = "", query: str = "") -> str:
    return f"unix://{login}{server.socket}{query}"


class Door:
    """What the agent does between a check and a decision, in a few lines."""

    def __init__(self, keeper: Keeper, client: redis.Redis) -> None:
        self.decided: dict[Settlement, list[Decision]] = {}
        self._keeper = keeper
        self._client = client
        self._gate = Gate(["wiki"], Keys(), 80)

    def issue(self, user: str = "user1") -> Check:
        check = Check(b"wiki", mint().encode(), b"", b"host", b"GET", b"/", b"", 8000)
        self._client.set(_key(check), GOOD.replace(b"user1", user.encode()), ex=60)
        return check

    def is_whole(self, check: Check) -> bool:
        value = self._client.get(_key(check))
        return isinstance(value, bytes) and value.startswith(b"{")

    def knock(self, *checks: Check) -> Settlement:
        """Redeem in one batch. When it settles, the decisions are in `decided`."""
        redemption = self._gate.redeem(checks, self._keeper.store.fence)

        def decide(result: Result) -> None:
            self.decided[settlement] = self._decide(redemption, result)

        self._keeper.owed.append(settlement := Settlement(decide))
        self._keeper.store.execute(redemption.commands, settlement)
        return settlement

    async def outcomes(self, *checks: Check) -> list[Outcome]:
        """Knock, and wait for the outcomes."""
        await settled(settlement := self.knock(*checks))
        return [decision.outcome for decision in self.decided[settlement]]

    def _decide(self, redemption: Redemption, result: Result) -> list[Decision]:
        store = self._keeper.store
        if not isinstance(result, StoreUnavailable):
            try:
                decisions = redemption.decide(result)
            except ReplyMismatch as mismatch:
                store.distrust("reply", str(mismatch))
            else:
                for fault in redemption.faults:
                    store.distrust(error_kind(fault), fault)
                return decisions
        return [Decision(Outcome.STORE_UNAVAILABLE)] * sum(map(len, redemption.kids))


def _key(check: Check) -> bytes:
    return Keys().token(digest(check.token))


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
                check = door.issue()
                assert await door.outcomes(check) == [Outcome.OK]
                assert await door.outcomes(check) == [Outcome.REPLAYED]
                assert keeper.observer.errors == []

    run(main(), loop_factory)


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


def test_before_it_runs() -> None:
    """A store that has not begun to connect settles at once."""

    async def main() -> None:
        settlement = Settlement()
        Store(store_settings("unix:///nowhere"), Recorder()).execute([ECHO], settlement)
        assert settlement.fault.args == ("not connected yet",)

    run(main())


# The fence.


def test_the_fence_is_dated_once(client: redis.Redis, redis_server: RedisServer) -> None:
    """Who meets a server first dates its fence, by the server's clock; the others read it."""

    async def main() -> None:
        before, _ = client.time()
        async with running_store(url_of(redis_server)) as first:
            await first.up()
            after, _ = client.time()
            fence = first.store.fence
            assert fence.replid.decode() == client.info("replication")["master_replid"]
            assert before * 1000 <= fence.since_ms <= (after + 1) * 1000
            await until(lambda: client.time()[1] // 1000 != fence.since_ms % 1000, "another ms")
            async with running_store(url_of(redis_server)) as second:
                await second.up()
                assert second.store.fence == fence
        assert client.hgetall("kat:fence") == {fence.replid: b"%d" % fence.since_ms}

    run(main())


def test_without_a_fence(client: redis.Redis, redis_server: RedisServer) -> None:
    """Without the fence no token is too old; the server is still known, and dated for later."""

    async def main() -> None:
        async with running_store(url_of(redis_server), is_fenced=False) as keeper:
            await keeper.up()
            assert keeper.store.fence.since_ms == 0
            assert client.hkeys(Keys().fence) == [keeper.store.fence.replid]
            door = Door(keeper, client)
            assert await door.outcomes(door.issue()) == [Outcome.OK]

    run(main())


@pytest.mark.parametrize("since", ["", "soon", "-1", "1.5", "9" * 5000])
def test_a_spoilt_fence(client: redis.Redis, redis_server: RedisServer, since: str) -> None:
    """A fence that is no number keeps the store away until it is put right; nothing breaks."""
    replid = client.info("replication")["master_replid"]
    client.hset("kat:fence", replid, since)

    async def main() -> None:
        async with running_store(url_of(redis_server)) as keeper:
            await until(lambda: len(keeper.observer.errors) > 1, "a second try", skipping_s=0.1)
            assert set(keeper.observer.errors) == {"reply"}
            client.delete("kat:fence")
            await keeper.up(skipping_s=0.1)

    run(main())


def test_a_restart_moves_the_fence(start_redis: StartRedis) -> None:
    """After a restart from a snapshot, what the snapshot still holds is fenced, consumed or not.

    While the server loads, the store is away; nothing but waiting is needed.
    """
    server = start_redis()
    slowly = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")

    async def main() -> None:
        with server.client() as client:
            async with running_store(url_of(server)) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check = door.issue()
                client.mset({f"more{number}": b"x" * 50 for number in range(300)})
                client.save()
                assert await door.outcomes(check) == [Outcome.OK]
                first = keeper.store.fence
                server.process.kill()
                with restarted(server, *slowly):
                    await until(lambda: "loading" in keeper.observer.errors, "LOADING")
                    assert not keeper.observer.is_up
                    await keeper.up(2)
                    assert await door.outcomes(check) == [Outcome.FENCED]
                    assert await door.outcomes(door.issue()) == [Outcome.OK]
                    second = keeper.store.fence
        assert second.replid != first.replid
        assert second.since_ms > first.since_ms

    run(main())


# A lost script.


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_lost_script_is_healed(
    client: redis.Redis, proxy: RedisProxy, loop_factory: LoopFactory
) -> None:
    """SCRIPT FLUSH costs nobody anything: the batch is asked once more, the next one is not."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            client.script_flush()
            assert await door.outcomes(*[door.issue() for _ in range(130)]) == [Outcome.OK] * 130
            assert (proxy.count(b"EVALSHA"), proxy.count(b"EVAL")) == (2, 2)
            assert await door.outcomes(door.issue()) == [Outcome.OK]
            assert (proxy.count(b"EVALSHA"), proxy.count(b"EVAL")) == (3, 2)
            assert proxy.count(b"SCRIPT") == len(keeper.observer.ups) == 1
            assert keeper.observer.errors == []

    run(main(), loop_factory)


def test_only_what_was_lost_is_asked_again(client: redis.Redis, proxy: RedisProxy) -> None:
    """Of a batch just the NOSCRIPTs are asked again; every reply has its old place."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            fence = keeper.store.fence
            call = (b"EVALSHA", Gate.script_sha, 0, fence.replid, 0, 1)
            client.script_flush()
            commands = ((b"INCR", b"n"), call, (b"NONSENSE",), call, (b"INCR", b"n"))
            behind = keeper.execute(*commands), keeper.execute(ECHO)
            await settled(*behind)
            one, first, error, second, two = behind[0].replies
            assert (one, two) == (1, 2)
            assert isinstance(error, Exception)
            assert isinstance(first, list)
            assert isinstance(second, list)
            assert behind[1].replies == [b"here"]
            assert (proxy.count(b"INCR"), proxy.count(b"EVAL")) == (2, 2)

    run(main())


def test_a_lost_script_is_asked_once_more_only(client: redis.Redis, proxy: RedisProxy) -> None:
    """When the second try fails in the same way there is no third."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            noscript = b"-NOSCRIPT No matching script.\r\n"
            proxy.plan(b"EVALSHA", noscript)
            proxy.plan(b"EVAL", noscript)
            assert await door.outcomes(door.issue()) == [Outcome.STORE_UNAVAILABLE]
            assert keeper.observer.errors == ["script"]
            assert await door.outcomes(door.issue()) == [Outcome.OK]
            assert (proxy.count(b"EVALSHA"), proxy.count(b"EVAL")) == (2, 1)

    run(main())


def test_a_lost_script_is_not_healed_too_late(client: redis.Redis, proxy: RedisProxy) -> None:
    """NOSCRIPT past the deadline is not asked again: it would consume for nobody."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            client.script_flush()
            proxy.plan(b"EVALSHA", Step.HOLD)
            late = door.knock(check := door.issue())
            await until(lambda: proxy.held, "the hold")
            skip(PAST_DEADLINE_S)
            proxy.release()
            await settled(late)
            assert door.decided[late][0].outcome is Outcome.STORE_UNAVAILABLE
            assert proxy.count(b"EVAL") == 0
            assert door.is_whole(check)

    run(main())


def test_a_connection_lost_while_healing(client: redis.Redis, proxy: RedisProxy) -> None:
    """When the connection ends between the first and the second try, the batch is told so."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            client.script_flush()
            proxy.plan(b"EVAL", Step.CUT)
            both = door.knock(door.issue()), keeper.execute(ECHO)
            await settled(*both)
            assert both[0].fault.kind == "closed"
            assert both[1].replies == [b"here"]
            await keeper.up(2)

    run(main())


# Redis away.


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_away_at_the_start(
    proxy: RedisProxy, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Without Redis every batch is settled at once, one line is logged, and it heals."""
    caplog.set_level(logging.INFO)
    proxy.vanish()

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await until(lambda: len(keeper.observer.errors) >= 3, "three tries")
            assert keeper.execute(ECHO).fault.kind == "connect"
            assert set(keeper.observer.errors) == {"connect"}
            proxy.listen()
            await keeper.up()
            assert (await keeper.ask(ECHO)).replies == [b"here"]

    run(main(), loop_factory)
    lost, ready = caplog.messages
    assert lost.startswith("store unavailable: cannot connect to Redis")
    assert ready == "store ready"


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_killed_and_restarted(
    start_redis: StartRedis, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A killed Redis is told at once to those in flight and to all who come; a new one heals."""
    caplog.set_level(logging.INFO)
    server = start_redis()

    async def main() -> None:
        async with running_store(url_of(server)) as keeper:
            await keeper.up()
            server.process.send_signal(signal.SIGSTOP)  # or it might answer before it dies
            in_flight = keeper.execute(ECHO), keeper.execute(ECHO, ECHO)
            server.process.kill()
            await settled(*in_flight)
            assert [one.fault.kind for one in in_flight] == ["closed", "closed"]
            assert keeper.execute(ECHO).fault.kind == "closed"
            await until(lambda: "connect" in keeper.observer.errors, "a try to connect")
            assert keeper.execute(ECHO).fault.kind == "connect"
            with restarted(server):
                await keeper.up(2)
                assert (await keeper.ask(ECHO)).replies == [b"here"]

    run(main(), loop_factory)
    # A try that falls into the moment of the restart may fail in one more way.
    ready, closed, away, *_, again = caplog.messages
    assert ready == again == "store ready"
    assert closed.startswith("store unavailable: Redis closed the connection")
    assert away.startswith("store unavailable: cannot connect to Redis")


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_no_gap_between_lost_and_known_to_be(
    client: redis.Redis, proxy: RedisProxy, loop_factory: LoopFactory
) -> None:
    """Whoever comes in any of the turns after the connection was lost is settled at once."""
    kinds: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with running_store(proxy.url) as keeper:
            await keeper.up()

            def again(left: int) -> None:
                kinds.append(keeper.execute(ECHO).fault.kind)
                if left:
                    loop.call_soon(again, left - 1)

            proxy.plan(b"ECHO", Step.CUT)
            await settled(keeper.execute(ECHO, then=lambda _: again(10)))
            await until(lambda: len(kinds) == 11, "all turns")
            await keeper.up(2)

    run(main(), loop_factory)
    assert set(kinds) == {"closed"}
    assert client.ping()


def test_the_log_tells_causes_not_tries(
    proxy: RedisProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Being away is logged when it begins and when its cause changes, and no oftener."""
    proxy.vanish()

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            errors = keeper.observer.errors
            await until(lambda: errors.count("connect") >= 3, "three tries", skipping_s=0.1)
            proxy.plan(b"SCRIPT", *[b"-LOADING Redis is loading\r\n"] * 3)
            proxy.listen()
            await keeper.up(skipping_s=0.1)
            assert errors.count("loading") == 3

    run(main())
    assert [message.split()[2:5] for message in caplog.messages] == [
        ["cannot", "connect", "to"],
        ["Redis", "refuses:", "LOADING"],
    ]


def test_each_loss_is_logged(proxy: RedisProxy, caplog: pytest.LogCaptureFixture) -> None:
    """Lost, healed and lost again in the same way is two losses, and two lines."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            for times in (1, 2):
                await keeper.up(times, skipping_s=0.02)
                proxy.cut()
            await keeper.up(3, skipping_s=0.02)

    run(main())
    assert caplog.messages == ["store unavailable: Redis closed the connection"] * 2


def test_it_comes_back_ever_slower(proxy: RedisProxy) -> None:
    """A connection that is given up again at once is no success: the pauses grow to a second."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            for times in range(1, 9):
                await keeper.up(times, skipping_s=0.02)
                keeper.store.distrust("auth", "NOPERM this user has no permissions")
            ups = keeper.observer.ups
            assert ups[1] - ups[0] < 0.3
            assert ups[-1] - ups[-2] > 0.5
            # One that served for a while was a success: back to the shortest pause.
            await keeper.up(9, skipping_s=0.02)
            skip(2)
            await keeper.ask(ECHO)
            lost_at = asyncio.get_running_loop().time()
            keeper.store.distrust("fence", "KATFENCE")
            await keeper.up(10, skipping_s=0.02)
            assert ups[-1] - lost_at < 0.3

    run(main())


# Redis slow.


def test_a_frozen_redis(start_redis: StartRedis) -> None:
    """A Redis that stops answering costs one batch its deadline, and nobody else anything.

    The connection is given up, the next greeting too; when Redis wakes, it heals.
    """
    server = start_redis()

    async def main() -> None:
        async with running_store(url_of(server), is_fenced=False) as keeper:
            await keeper.up()
            server.process.send_signal(signal.SIGSTOP)
            first, second = keeper.execute(ECHO), keeper.execute(ECHO)
            assert not first.is_settled
            skip(PAST_DEADLINE_S)
            assert keeper.execute(ECHO).fault.kind == "timeout"
            assert not first.is_settled  # it keeps its place
            skip(STALL_S)
            await settled(first, second)
            assert first.fault.kind == second.fault.kind == "timeout"
            await until(lambda: not keeper.observer.is_up, "known to be away")
            assert keeper.execute(ECHO).fault.kind == "timeout"
            # A frozen server still accepts; a greeting that is not answered is given up.
            tries = len(keeper.observer.errors)
            enough = tries + 2
            await until(lambda: len(keeper.observer.errors) >= enough, "tries", skipping_s=0.2)
            assert set(keeper.observer.errors) == {"timeout"}
            server.process.send_signal(signal.SIGCONT)
            await keeper.up(2, skipping_s=0.001)
            assert (await keeper.ask(ECHO)).replies == [b"here"]

    run(main())


def test_an_idle_store_notices_too(start_redis: StartRedis) -> None:
    """With uvloop and the real clock: a frozen Redis is noticed before anybody asks it."""
    server = start_redis()

    async def main() -> None:
        async with running_store(url_of(server), deadline_s=0.05) as keeper:
            await keeper.up()
            server.process.send_signal(signal.SIGSTOP)
            await until(lambda: not keeper.observer.is_up, "known to be away")
            assert keeper.observer.errors == ["timeout"]
            server.process.send_signal(signal.SIGCONT)
            await keeper.up(2)

    run(main(), LOOPS[1])


def test_slow_but_alive(client: redis.Redis, proxy: RedisProxy) -> None:
    """A reply past the deadline still comes home; until then nothing more is sent."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"ECHO", Step.HOLD)
            slow = keeper.execute(ECHO)
            await until(lambda: proxy.held, "the hold")
            skip(PAST_DEADLINE_S)
            assert keeper.execute((b"SET", b"a", 1)).fault.kind == "timeout"
            proxy.release()
            await settled(slow)
            assert slow.replies == [b"here"]
            assert client.get("a") is None
            assert (await keeper.ask(ECHO)).replies == [b"here"]
            assert len(keeper.observer.ups) == 1

    run(main())


def test_a_greeting_that_is_cut_short(proxy: RedisProxy) -> None:
    """A server that is silent, or goes away, in the middle of the greeting is tried again."""

    async def main() -> None:
        proxy.plan(b"TIME", Step.DROP, Step.CUT, Step.HALF, Step.HOLD, b"+soon\r\n", b"*0\r\n")
        proxy.plan(b"INFO", *[Step.PASS] * 6, b"$-1\r\n", b"*1\r\n:1\r\n")
        async with running_store(proxy.url) as keeper:
            await keeper.up(skipping_s=0.1)
            assert keeper.observer.errors == [
                *("timeout", "closed", "closed", "timeout", "reply", "reply"),
                *("readonly", "readonly"),
            ]
            assert (await keeper.ask(ECHO)).replies == [b"here"]
            assert proxy.connections == 1

    run(main())


# Redis unwilling.


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
                fault = keeper.execute(ECHO).fault
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
            assert PASSWORD not in str(keeper.execute(ECHO).fault)

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
            assert keeper.execute(ECHO).fault.kind == "auth"

    run(main())


def test_a_user_without_permission(start_redis: StartRedis) -> None:
    """A user who may not run the script is `auth`: refused, greeted anew, healed when allowed."""
    server = start_redis()
    with server.client() as client:
        client.execute_command(
            *("ACL", "SETUSER", "agent", "on", ">secret", "~kat:*", "+@all", "-evalsha")
        )

        async def main() -> None:
            async with running_store(url_of(server, "agent:secret@")) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check = door.issue()
                assert await door.outcomes(check) == [Outcome.STORE_UNAVAILABLE]
                assert set(keeper.observer.errors) == {"auth"}
                assert door.is_whole(check)
                client.execute_command("ACL", "SETUSER", "agent", "+evalsha")
                await keeper.up(2, skipping_s=0.1)
                assert await door.outcomes(check) == [Outcome.OK]

        run(main())


def test_a_replica_is_not_used(start_redis: StartRedis) -> None:
    """A replica is `readonly`, never up and never written to; promoted, it is used."""
    server = start_redis("--replicaof", "127.0.0.1", "1")

    async def main() -> None:
        async with running_store(url_of(server)) as keeper:
            await until(lambda: len(keeper.observer.errors) > 1, "two tries", skipping_s=0.1)
            assert set(keeper.observer.errors) == {"readonly"}
            assert keeper.execute(ECHO).fault.kind == "readonly"
            with server.client() as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
            await keeper.up(skipping_s=0.1)
            assert (await keeper.ask(ECHO)).replies == [b"here"]

    run(main())


@pytest.mark.parametrize("serves_stale", ["yes", "no"])
def test_demoted_and_promoted_under_it(start_redis: StartRedis, serves_stale: str) -> None:
    """A primary that becomes a replica consumes nothing more; promoted again, it has a new fence.

    With replica-serve-stale-data off it says MASTERDOWN instead of running the script.
    """
    server = start_redis("--replica-serve-stale-data", serves_stale)
    with server.client() as client:

        async def main() -> None:
            async with running_store(url_of(server)) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check = door.issue()
                first = keeper.store.fence
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                assert await door.outcomes(check) == [Outcome.STORE_UNAVAILABLE]
                fault = "fence" if serves_stale == "yes" else "readonly"
                assert keeper.observer.errors[0] == fault
                await until(lambda: not keeper.observer.is_up, "known to be away")
                enough = len(keeper.observer.errors) + 2
                await until(lambda: len(keeper.observer.errors) > enough, "tries", skipping_s=0.1)
                assert keeper.execute(ECHO).fault.kind == "readonly"
                client.execute_command("REPLICAOF", "NO", "ONE")
                await keeper.up(2, skipping_s=0.1)
                assert keeper.store.fence.replid != first.replid
                assert keeper.store.fence.since_ms > first.since_ms
                assert await door.outcomes(check, door.issue()) == [Outcome.FENCED, Outcome.OK]

        run(main())


def test_a_promoted_servers_fence_is_later_by_the_clock_skew(start_redis: StartRedis) -> None:
    """A server that was a replica counted by another clock: its fence lies ahead of its own."""
    server = start_redis()
    skew_ms = 60_000
    with server.client() as client:

        async def main() -> None:
            async with running_store(url_of(server), clock_skew_ms=skew_ms) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                first = keeper.store.fence
                assert await door.outcomes(door.issue()) == [Outcome.OK], "never promoted: no skew"
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                client.execute_command("REPLICAOF", "NO", "ONE")
                assert await door.outcomes(door.issue()) == [Outcome.STORE_UNAVAILABLE]
                await keeper.up(2)
                assert keeper.store.fence.since_ms >= first.since_ms + skew_ms
                assert await door.outcomes(door.issue()) == [Outcome.FENCED]

        run(main())


def test_promoted_between_two_batches(start_redis: StartRedis) -> None:
    """A new replid is noticed by the script itself: one batch is refused, nothing is consumed."""
    server = start_redis()
    with server.client() as client:

        async def main() -> None:
            async with running_store(url_of(server)) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                client.execute_command("REPLICAOF", "NO", "ONE")
                check = door.issue()
                together = door.knock(check), door.knock(check)
                await settled(*together)
                for settlement in together:
                    assert door.decided[settlement][0].outcome is Outcome.STORE_UNAVAILABLE
                await keeper.up(2)
                assert set(keeper.observer.errors) == {"fence"}
                assert await door.outcomes(door.issue()) == [Outcome.OK]

        run(main())


@pytest.mark.parametrize("is_fenced", [True, False])
def test_a_redis_that_refuses_writes_is_down_until_it_takes_them(
    start_redis: StartRedis, *, is_fenced: bool
) -> None:
    """A full Redis is `oom`: logged, not up, no further token is sent to it; and it heals."""
    server = start_redis()
    with server.client() as client:

        async def main() -> None:
            async with running_store(url_of(server), is_fenced=is_fenced) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check = door.issue()
                client.config_set("maxmemory", "1")
                assert await door.outcomes(check) == [Outcome.STORE_UNAVAILABLE]
                await until(lambda: not keeper.observer.is_up, "known to be full")
                await until(lambda: len(keeper.observer.errors) > 3, "tries", skipping_s=0.1)
                assert set(keeper.observer.errors) == {"oom"}
                assert keeper.execute(ECHO).fault.kind == "oom"
                client.config_set("maxmemory", "0")
                await keeper.up(2, skipping_s=0.1)
                assert await door.outcomes(check) == [Outcome.OK], "its token was not consumed"

        run(main())


@pytest.mark.parametrize(
    ("kind", "is_given_up"),
    [
        *[(kind, True) for kind in ("fence", "readonly", "auth", "oom", "misconf", "reply")],
        *[(kind, False) for kind in ("loading", "script", "timeout", "other")],
    ],
)
def test_distrust(proxy: RedisProxy, kind: str, is_given_up: bool) -> None:  # noqa: FBT001 - a case
    """Every fault is counted; the connection is made anew where that could help, and only there."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"ECHO", Step.HOLD)
            in_flight = keeper.execute(ECHO)
            keeper.store.distrust(kind, "what Redis said")
            assert keeper.observer.errors == [kind]
            assert in_flight.is_settled == is_given_up
            if is_given_up:
                assert in_flight.fault.args == ("what Redis said",)
                assert keeper.execute(ECHO).fault.args == ("what Redis said",)
                await keeper.up(2, skipping_s=0.01)
            else:
                await until(lambda: proxy.held, "the hold")
            proxy.release()
            await settled(in_flight)

    run(main())


def test_distrust_without_a_connection() -> None:
    """A fault that is told late, when there is no connection any more, is counted and no more."""

    async def main() -> None:
        store = Store(store_settings("unix:///nowhere"), recorder := Recorder())
        store.distrust("reply", "late")
        assert recorder.errors == ["reply"]

    run(main())


# Replies that go astray.


def test_three_batches_in_flight(client: redis.Redis, proxy: RedisProxy) -> None:
    """Batches are answered in their order, each with its own, however late the replies are."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            proxy.plan(b"EVALSHA", Step.HOLD, Step.PASS, Step.HOLD)
            users = [["a1"], ["b1", "b2"], ["c1"]]
            knocks = [door.knock(*map(door.issue, batch)) for batch in users]
            await until(lambda: proxy.held, "the hold")
            assert not any(knock.is_settled for knock in knocks)
            proxy.release()
            await settled(*knocks[:2])
            assert not knocks[2].is_settled
            await until(lambda: proxy.held, "the second hold")
            proxy.release()
            await settled(knocks[2])
            assert list(door.decided) == knocks
            decided = [[d.user.decode() for d in door.decided[knock]] for knock in knocks]
            assert decided == users

    run(main())


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("step", [Step.DROP, Step.TWICE, b"+OK\r\n", b"*1\r\n:1\r\n"])
def test_nobody_is_given_a_neighbours_answer(
    client: redis.Redis, proxy: RedisProxy, step: Step | bytes, position: int
) -> None:
    """A reply is lost, doubled or another: whoever is let in is let in for themselves."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            proxy.plan(b"EVALSHA", *[Step.PASS] * position, step)
            knocks = [door.knock(door.issue(user)) for user in ("a", "b", "c")]
            await settled(*knocks, skipping_s=0.02)  # the last one's loss shows as a stall
            users = [door.decided[knock][0].user for knock in knocks]
            assert users[:position] == [b"a", b"b", b"c"][:position]
            assert users[position] == (b"", [b"a", b"b", b"c"][position])[step is Step.TWICE]
            assert set(users[position + 1 :]) <= {b""}
            await keeper.up(2)
            assert await door.outcomes(door.issue()) == [Outcome.OK]

    run(main())


GARBAGE = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "a bad length": b"$-7\r\n",
    "a map with a list for a key": b"%1\r\n*0\r\n:1\r\n",
    "a false": b"#f\r\n",
    "a push": b">2\r\n+message\r\n+x\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_garbage_instead_of_resp(
    client: redis.Redis, proxy: RedisProxy, garbage: bytes, loop_factory: LoopFactory
) -> None:
    """What is no answer of Redis opens no door; the connection is made anew."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            proxy.plan(b"EVALSHA", garbage)
            assert await door.outcomes(door.issue()) == [Outcome.STORE_UNAVAILABLE]
            await keeper.up(2)
            assert set(keeper.observer.errors) == {"reply"}
            assert await door.outcomes(door.issue()) == [Outcome.OK]

    run(main(), loop_factory)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_as_a_greeting(proxy: RedisProxy, garbage: bytes) -> None:
    """What answers the greeting as Redis would not is no store; the worker survives it."""

    async def main() -> None:
        proxy.plan(b"TIME", garbage)
        async with running_store(proxy.url) as keeper:
            await keeper.up(skipping_s=0.05)
            assert keeper.observer.errors == ["reply"]

    run(main())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_reply_nobody_asked_for(proxy: RedisProxy, loop_factory: LoopFactory) -> None:
    """An extra reply, when nothing is in flight, ends the connection before it can do harm."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"ECHO", Step.TWICE)
            assert (await keeper.ask(ECHO)).replies == [b"here"]
            await keeper.up(2)
            assert keeper.observer.errors == ["reply"]
            assert (await keeper.ask((b"ECHO", b"there"))).replies == [b"there"]

    run(main(), loop_factory)


steps = st.sampled_from([*Step, b"+OK\r\n", b"what?\r\n", b"-LOADING not yet\r\n", b"$-1\r\n"])


@given(
    plan=st.lists(steps, max_size=6),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    is_flushed=st.booleans(),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_happens_to_replies(
    client: redis.Redis,
    proxy: RedisProxy,
    plan: list[Step | bytes],
    sizes: list[int],
    is_flushed: bool,  # noqa: FBT001 - drawn
) -> None:
    """Each batch is settled once; a yes is for the one who asked, and for one who consumed.

    Then the store is well again, without help.
    """

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            if is_flushed:
                client.script_flush()
            proxy.plan(b"EVALSHA", *plan)
            checks = [
                [door.issue(f"u{b}.{i}") for i in range(size)] for b, size in enumerate(sizes)
            ]
            knocks = [door.knock(*batch) for batch in checks]
            while not all(knock.is_settled for knock in knocks):
                skip(0.01)  # until what is lost is given up
                proxy.release()
                await asyncio.sleep(0.0005)
            for number, (knock, batch) in enumerate(zip(knocks, checks, strict=True)):
                for position, decision in enumerate(door.decided[knock]):
                    assert decision.outcome in (Outcome.OK, Outcome.STORE_UNAVAILABLE)
                    if decision.outcome is Outcome.OK:
                        assert decision.user == f"u{number}.{position}".encode()
                        assert not door.is_whole(batch[position])
            proxy.forget()
            while isinstance((await keeper.ask(ECHO)).calls[0], StoreUnavailable):
                await asyncio.sleep(0.001)
                skip(0.02)

    run(main())


# The end.


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_store_that_is_stopped(proxy: RedisProxy, loop_factory: LoopFactory) -> None:
    """When the worker ends, what is in flight is settled, and so is who comes later."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"ECHO", Step.HOLD)
            in_flight = keeper.execute(ECHO)
            await until(lambda: proxy.held, "the hold")
        assert in_flight.fault.kind == "closed"
        assert keeper.execute(ECHO).fault.kind == "closed"
        await until(lambda: not proxy.connections, "the end of the connection")

    run(main(), loop_factory)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_stopped_while_it_greets(proxy: RedisProxy, loop_factory: LoopFactory) -> None:
    """A store that is stopped in the middle of a greeting leaves no connection behind."""

    async def main() -> None:
        proxy.plan(b"TIME", Step.HOLD)
        async with running_store(proxy.url):
            await until(lambda: proxy.held, "the hold")
        await until(lambda: not proxy.connections, "the end of the connection")

    run(main(), loop_factory)


def test_failed_greetings_leave_nothing_open(proxy: RedisProxy) -> None:
    """Many failed greetings later not one connection more is open."""

    async def main() -> None:
        proxy.plan(b"TIME", *[b"-LOADING not yet\r\n"] * 20)
        async with running_store(proxy.url) as keeper:
            await keeper.up(skipping_s=0.1)
            assert len(keeper.observer.errors) == 20
            await until(lambda: proxy.connections == 1, "one connection")

    run(main())


def test_no_longer_than_the_timeout(proxy: RedisProxy) -> None:
    """A greeting takes two seconds at most, all its steps together."""

    async def main() -> None:
        proxy.plan(b"TIME", Step.HOLD)
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
