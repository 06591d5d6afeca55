"""The connection over time: lost and made anew, silent and replaced, and what operators see."""

import asyncio
import contextlib
import logging
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.support.doors import UNAVAILABLE, Door
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.stores import (
    LOOPS,
    Keeper,
    LoopFactory,
    Recorder,
    Settlement,
    run,
    running_store,
    settled,
    skip,
    store_settings,
    until,
)
from tokens.policy import cut
from tokens.question import Question
from tokens.record import Keys
from tokens.store.line import AT_ONCE, AT_ONCE_WINDOW_S, REPLACE_INTERVAL_S, SILENCE
from tokens.store.store import open_store
from tokens.store.wire import STALL_S

StartRedis = Callable[..., RedisServer]
SAY = (b"PING", b"here")

# Short of a stall: what is silent is not given up, only replaced.
DEADLINE_S = 1.0
PAST_SILENCE_S = SILENCE * DEADLINE_S + 0.05


@contextlib.contextmanager
def restarted(server: RedisServer) -> Iterator[None]:
    """Start a killed server again where it was, until the block ends."""
    server.process.wait()
    process = subprocess.Popen([*map(str, server.process.args)])  # type: ignore[union-attr]
    try:
        yield
    finally:
        process.kill()
        process.wait()


def url_of(server: RedisServer) -> str:
    return f"unix://{server.socket}"


def test_before_it_runs() -> None:
    """A store that has not begun to connect settles at once."""

    async def main() -> None:
        settlement = Settlement()
        store = open_store(store_settings("unix:///nowhere"), Recorder())
        store.execute([Question(b"", SAY)], settlement, asyncio.get_running_loop().time() + 1)
        assert settlement.fault.args == ("not connected yet",)

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
            assert keeper.execute(SAY).fault.kind == "connect"
            assert set(keeper.observer.errors) == {"connect"}
            proxy.listen()
            await keeper.up()
            assert (await keeper.ask(SAY)).replies == [b"here"]

    run(main(), loop_factory)
    lost, ready = caplog.messages
    assert lost.startswith(f"store unavailable: {proxy.path}: cannot connect to Redis")
    assert ready == f"store ready: {proxy.path}"


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_killed_and_restarted(
    start_redis: StartRedis, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A killed Redis is told to those in flight, who hoped for a moment, and to all who come."""
    caplog.set_level(logging.INFO)
    server = start_redis()

    async def main() -> None:
        async with running_store(url_of(server)) as keeper:
            await keeper.up()
            server.process.send_signal(signal.SIGSTOP)  # or it might answer before it dies
            in_flight = keeper.execute(SAY), keeper.execute(SAY, is_repeatable=False)
            server.process.kill()
            await settled(*in_flight)
            # The dying process may still have accepted a connection.
            assert in_flight[0].fault.kind in ("connect", "closed")
            assert in_flight[1].fault.kind == "closed"
            await until(lambda: "connect" in keeper.observer.errors, "a try to connect")
            assert keeper.execute(SAY).fault.kind == "connect"
            with restarted(server):
                await keeper.up(2)
                assert (await keeper.ask(SAY)).replies == [b"here"]

    run(main(), loop_factory)
    # A try that falls into the moment of the restart may fail in one more way.
    ready, closed, away, *_, again = caplog.messages
    assert ready == again == f"store ready: {server.socket}"
    assert closed.startswith(f"store unavailable: {server.socket}: Redis closed the connection")
    assert away.startswith(f"store unavailable: {server.socket}: cannot connect to Redis")


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_no_gap_between_lost_and_known_to_be(proxy: RedisProxy, loop_factory: LoopFactory) -> None:
    """Whoever comes in any of the turns after the connection was lost is kept for the next one."""
    kept: list[Settlement] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with running_store(proxy.url) as keeper:
            await keeper.up()

            def again(left: int) -> None:
                kept.append(keeper.execute(SAY))
                if left:
                    loop.call_soon(again, left - 1)

            proxy.plan(b"PING", Step.CUT)
            await settled(keeper.execute(SAY, then=lambda _: again(10), is_repeatable=False))
            await until(lambda: len(kept) == 11, "all turns")
            await settled(*kept)
            assert [one.replies for one in kept] == [[b"here"]] * 11
            assert keeper.observer.again == 0

    run(main(), loop_factory)


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
            assert errors.count("loading") > 1

    run(main())
    assert [message.split()[3:6] for message in caplog.messages] == [
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
    lost = f"store unavailable: {proxy.path}: Redis closed the connection"
    assert caplog.messages == [lost] * 2


# Pauses.


async def lose(keeper: Keeper, proxy: RedisProxy) -> Settlement:
    """Lose the connection; return what was executed in that very moment, settled."""
    later: list[Settlement] = []
    proxy.plan(b"PING", Step.CUT)
    keeper.execute(SAY, then=lambda _: later.append(keeper.execute(SAY)), is_repeatable=False)
    await until(lambda: later and later[0].is_settled, "the settlement")
    return later[0]


def test_a_lost_connection_is_made_anew_at_once(proxy: RedisProxy) -> None:
    """The first times there is no pause, after that there is; and a second later none again."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            for _ in range(2):
                await keeper.up()
                for _ in range(AT_ONCE):
                    assert (await lose(keeper, proxy)).replies == [b"here"]
                times = len(keeper.observer.ups)
                assert (await lose(keeper, proxy)).fault.kind == "closed", "there is no hope"
                await keeper.up(times + 1, skipping_s=0.01)
                skip(AT_ONCE_WINDOW_S + 0.1)
            assert keeper.observer.errors == ["closed"] * 2 * (AT_ONCE + 1)

    run(main())


def test_it_comes_back_ever_slower(proxy: RedisProxy) -> None:
    """A connection that is given up again at once is no success: the pauses grow to a second."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            for times in range(1, 9):
                await keeper.up(times, skipping_s=0.02)
                keeper.store.distrust("auth", "NOPERM this user has no permissions")
                await until(lambda: not keeper.observer.is_up, "known to be away")
                assert keeper.execute(SAY).fault.kind == "auth"
            ups = keeper.observer.ups
            assert ups[1] - ups[0] < 0.3
            assert ups[-1] - ups[-2] > 0.5
            # One that served for a while was a success: back to the shortest pause.
            await keeper.up(9, skipping_s=0.02)
            skip(2)
            await keeper.ask(SAY)
            lost_at = asyncio.get_running_loop().time()
            keeper.store.distrust("auth", "NOPERM")
            await keeper.up(10, skipping_s=0.02)
            assert ups[-1] - lost_at < 0.3

    run(main())


@pytest.mark.parametrize(
    ("kind", "is_given_up"),
    [
        *[(kind, True) for kind in ("fence", "readonly", "auth", "oom", "misconf", "reply")],
        *[(kind, True) for kind in ("noreplicas", "cut")],
        *[(kind, False) for kind in ("loading", "script", "timeout", "other")],
    ],
)
def test_distrust(proxy: RedisProxy, kind: str, is_given_up: bool) -> None:  # noqa: FBT001 - a case
    """Every fault is counted; the connection is made anew where that could help, and only there."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            in_flight = keeper.execute(SAY, is_repeatable=False)
            keeper.store.distrust(kind, "what Redis said")
            assert keeper.observer.errors[0] == kind
            assert in_flight.is_settled == is_given_up
            if is_given_up:
                assert in_flight.fault.args == ("what Redis said",)
                await keeper.up(2, skipping_s=0.01)
            else:
                await until(lambda: proxy.held, "the hold")
            proxy.release()
            await settled(in_flight)

    run(main())


def test_distrust_without_a_connection() -> None:
    """A fault that is told late, when there is no connection any more, is counted and no more."""

    async def main() -> None:
        store = open_store(store_settings("unix:///nowhere"), recorder := Recorder())
        store.distrust("reply", "late")
        assert recorder.errors == ["reply"]

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
                check = door.issue("a")
                client.config_set("maxmemory", "1")
                assert await door.answers(check) == [UNAVAILABLE]
                await until(lambda: not keeper.observer.is_up, "known to be full")
                await until(lambda: len(keeper.observer.errors) > 3, "tries", skipping_s=0.1)
                assert set(keeper.observer.errors) == {"oom"}
                assert keeper.execute(SAY).fault.kind == "oom"
                client.config_set("maxmemory", "0")
                await keeper.up(2, skipping_s=0.1)
                assert await door.answers(check) == ["a"], "its token was not consumed"

        run(main())


def test_a_redis_that_misses_its_replicas_is_down_until_it_has_them(
    client: redis.Redis, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the replicas that it asks for, Redis is `noreplicas`: said once, down, and healed."""

    async def main() -> None:
        async with running_store(url_of(redis_server)) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            check = door.issue("a")
            client.config_set("min-replicas-to-write", "1")
            try:
                assert await door.answers(check) == [UNAVAILABLE]
                await until(lambda: not keeper.observer.is_up, "known to be without")
                await until(lambda: len(keeper.observer.errors) > 3, "tries", skipping_s=0.1)
            finally:
                client.config_set("min-replicas-to-write", "0")
            assert set(keeper.observer.errors) == {"noreplicas"}
            await keeper.up(2, skipping_s=0.1)
            assert await door.answers(check) == ["a"], "its token was not consumed"

    run(main())
    [line] = caplog.messages
    assert line.startswith(f"store unavailable: {redis_server.socket}: ")
    assert "min-replicas-to-write asks for" in line


PROBE = cut.ask(Keys().cut, cut.Cut())


def test_a_cut_of_another_type_keeps_the_store_down(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Who cannot read the revocations is not up: said once, with what to do; and it heals."""
    server = start_redis()
    with server.client() as client:
        client.set("kat:cut", "what is this?")

        async def main() -> None:
            async with running_store(url_of(server), probe=PROBE) as keeper:
                await until(lambda: len(keeper.observer.errors) > 2, "tries", skipping_s=0.1)
                assert set(keeper.observer.errors) == {"cut"}
                assert not keeper.observer.ups
                client.delete("kat:cut")
                await keeper.up(skipping_s=0.1)

        run(main())
    [line] = caplog.messages
    assert "a key of ours is of another type" in line


@pytest.mark.parametrize("missing", ["-evalsha", "-hgetall"])
def test_a_user_who_may_not_run_the_probe_is_never_up(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    """A user who may not do what every batch does is never up, and that is said once."""
    server = start_redis()
    with server.client() as client:
        allowed = ("ACL", "SETUSER", "agent", "on", ">secret", "~kat:*", "+@all", missing)
        client.execute_command(*allowed)

        async def main() -> None:
            url = f"unix://agent:secret@{server.socket}"
            async with running_store(url, probe=PROBE) as keeper:
                await until(lambda: len(keeper.observer.errors) > 2, "tries", skipping_s=0.1)
                assert not keeper.observer.ups
                client.execute_command("ACL", "SETUSER", "agent", "+evalsha", "+hgetall")
                await keeper.up(skipping_s=0.1)

        run(main())
    assert len(caplog.messages) == 1


def test_a_user_without_permission(start_redis: StartRedis) -> None:
    """A user who may not run the script is `auth`: refused, greeted anew, healed when allowed."""
    server = start_redis()
    with server.client() as client:
        client.execute_command(
            *("ACL", "SETUSER", "agent", "on", ">secret", "~kat:*", "+@all", "-evalsha")
        )

        async def main() -> None:
            async with running_store(f"unix://agent:secret@{server.socket}") as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check = door.issue("a")
                assert await door.answers(check) == [UNAVAILABLE]
                await until(lambda: len(keeper.observer.errors) > 1, "known to be away")
                assert set(keeper.observer.errors) == {"auth"}
                assert door.is_whole(check)
                client.execute_command("ACL", "SETUSER", "agent", "+evalsha")
                await keeper.up(2, skipping_s=0.1)
                assert await door.answers(check) == ["a"]

        run(main())


# Redis silent.


def test_a_frozen_redis(start_redis: StartRedis) -> None:
    """A Redis that stops answering costs one batch its deadline, and nobody else anything.

    The connection is given up, the next greeting too; when Redis wakes, it heals.
    """
    server = start_redis()

    async def main() -> None:
        async with running_store(url_of(server), is_fenced=False, deadline_s=0.5) as keeper:
            await keeper.up()
            server.process.send_signal(signal.SIGSTOP)
            first, second = keeper.execute(SAY), keeper.execute(SAY, is_repeatable=False)
            assert not first.is_settled
            skip(0.6)
            assert keeper.execute(SAY).fault.kind == "timeout"
            assert not first.is_settled  # it keeps its place
            skip(STALL_S)
            await settled(first, second)
            assert first.fault.kind == second.fault.kind == "timeout"
            await until(lambda: not keeper.observer.is_up, "known to be away")
            assert keeper.execute(SAY).fault.kind == "timeout"
            # A frozen server still accepts; a greeting that is not answered is given up.
            enough = len(keeper.observer.errors) + 2
            await until(lambda: len(keeper.observer.errors) >= enough, "tries", skipping_s=0.2)
            assert set(keeper.observer.errors) == {"timeout"}
            server.process.send_signal(signal.SIGCONT)
            await keeper.up(2, skipping_s=0.001)
            assert (await keeper.ask(SAY)).replies == [b"here"]

    run(main())


def test_an_idle_store_notices_too(start_redis: StartRedis) -> None:
    """With uvloop and the real clock: a frozen Redis is noticed before anybody asks it."""
    server = start_redis()

    async def main() -> None:
        async with running_store(url_of(server), deadline_s=0.05) as keeper:
            await keeper.up()
            server.process.send_signal(signal.SIGSTOP)
            await until(lambda: not keeper.observer.is_up, "known to be away")
            assert set(keeper.observer.errors) == {"timeout"}
            server.process.send_signal(signal.SIGCONT)
            await keeper.up(2)

    run(main(), LOOPS[1])


def test_slow_but_alive(client: redis.Redis, proxy: RedisProxy) -> None:
    """A reply past the deadline still comes home; until then nothing more is sent."""

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=0.5) as keeper:
            await keeper.up()
            proxy.plan(b"SCRIPT", *[Step.HOLD] * 9)  # nor is anybody greeted meanwhile
            proxy.plan(b"PING", Step.HOLD)
            slow = keeper.execute(SAY)
            await until(lambda: proxy.held, "the hold")
            skip(0.6)
            assert keeper.execute((b"SET", b"a", b"1")).fault.kind == "timeout"
            proxy.release()
            await settled(slow)
            assert slow.replies == [b"here"]
            assert client.get("a") is None
            assert (await keeper.ask(SAY)).replies == [b"here"]
            assert len(keeper.observer.ups) == 1

    run(main())


def test_a_silent_connection_is_replaced(proxy: RedisProxy) -> None:
    """What comes after a silence goes out on a new connection; operators see no loss.

    The silent one is closed when it owes nothing any more.
    """

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=DEADLINE_S) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            slow = keeper.execute(SAY, is_repeatable=False)
            await until(lambda: proxy.held, "the hold")
            assert proxy.connections == 1
            skip(PAST_SILENCE_S)
            await until(lambda: proxy.count(b"HSETNX") == 2, "another greeting")
            await until(lambda: proxy.connections == 2, "two connections")
            assert (await keeper.ask((b"PING", b"next"))).replies == [b"next"]
            assert not slow.is_settled
            proxy.release()
            await settled(slow)
            assert slow.replies == [b"here"]
            await until(lambda: proxy.connections == 1, "one connection")
            assert keeper.observer.errors == []
            assert len(keeper.observer.ups) == 1
            assert (await keeper.ask(SAY)).replies == [b"here"]

    run(main())


def test_a_replaced_connection_is_not_kept_for_ever(proxy: RedisProxy) -> None:
    """What is still owed on it after a stall will not come: settled, closed, no loss."""

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=DEADLINE_S) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            slow = keeper.execute(SAY, is_repeatable=False)
            skip(PAST_SILENCE_S)
            await until(lambda: proxy.count(b"HSETNX") == 2, "another greeting")
            assert (await keeper.ask((b"PING", b"next"))).replies == [b"next"]
            assert not slow.is_settled
            skip(STALL_S)
            await settled(slow)
            assert slow.fault.kind == "timeout"
            await until(lambda: proxy.connections == 1, "one connection")
            assert keeper.observer.is_up
            assert keeper.observer.errors == []

    run(main())


def test_a_slow_redis_is_not_flooded_with_connections(proxy: RedisProxy) -> None:
    """However often all is silent, there is one new connection in a second, and no loss."""

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=0.1) as keeper:
            await keeper.up()
            began_at = asyncio.get_running_loop().time()
            for _ in range(40):
                proxy.plan(b"PING", Step.HOLD)
                slow = keeper.execute(SAY)
                await until(lambda: proxy.held, "the hold")
                skip(0.06)
                await asyncio.sleep(0.005)
                proxy.release()
                await settled(slow)
                proxy.forget()
            took_s = asyncio.get_running_loop().time() - began_at
            greetings = proxy.count(b"HSETNX")
            assert 1 < greetings <= 2 + took_s / REPLACE_INTERVAL_S
            assert keeper.observer.errors == []

    run(main())


def test_one_that_answers_again_is_kept(proxy: RedisProxy) -> None:
    """A connection that was silent only for a moment stays; the new one is closed unused."""

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=DEADLINE_S) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            slow = keeper.execute(SAY)
            await until(lambda: proxy.held == 1, "the hold")
            proxy.plan(b"HLEN", Step.HOLD)  # of the greeting to come
            skip(PAST_SILENCE_S)
            await until(lambda: proxy.held == 2, "the other one is greeted")
            # All is let go, the first one first: it is no longer silent when the other is ready.
            answered = keeper.execute((b"PING", b"next"))
            proxy.release()
            await settled(slow, answered)
            assert [slow.replies, answered.replies] == [[b"here"], [b"next"]]
            await until(lambda: proxy.connections == 1, "one connection")
            assert (await keeper.ask(SAY)).replies == [b"here"]
            assert keeper.observer.errors == []

    run(main())


def test_no_better_connection_is_to_be_had(proxy: RedisProxy) -> None:
    """While a silent connection cannot be replaced it is used, and its replies are taken."""

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=DEADLINE_S) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            slow = keeper.execute(SAY)
            await until(lambda: proxy.held, "the hold")
            proxy.plan(b"TIME", Step.CUT)
            skip(PAST_SILENCE_S)
            await until(lambda: keeper.observer.errors, "a failed greeting")
            assert keeper.observer.is_up
            second = keeper.execute((b"PING", b"next"))
            proxy.release()
            await settled(slow, second)
            assert [slow.replies, second.replies] == [[b"here"], [b"next"]]
            assert keeper.observer.errors == ["closed"]
            assert len(keeper.observer.ups) == 1

    run(main())


# Another server.


def test_an_idle_store_notices_a_promotion(start_redis: StartRedis) -> None:
    """A server that is another one than before is greeted anew, though nobody asks anything."""
    server = start_redis()
    with server.client() as client:

        async def main() -> None:
            async with running_store(url_of(server)) as keeper:
                await keeper.up()
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                client.execute_command("REPLICAOF", "NO", "ONE")
                await keeper.up(2)
                now = client.info("replication")["master_replid"]
                assert keeper.fence.replid.decode() == now
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                await until(lambda: "readonly" in keeper.observer.errors, "known to be a replica")

        run(main())


# The end.


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_store_that_is_stopped(proxy: RedisProxy, loop_factory: LoopFactory) -> None:
    """When the worker ends, what is in flight is settled, and so is who comes later."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            later: list[Settlement] = []
            in_flight = [
                keeper.execute(SAY),
                keeper.execute(SAY, then=lambda _: later.append(keeper.execute(SAY))),
            ]
            await until(lambda: proxy.held, "the hold")
        later.append(keeper.execute(SAY))
        assert {one.fault.kind for one in (*in_flight, *later)} == {"closed"}
        assert len(later) == 2
        await until(lambda: not proxy.connections, "the end of the connection")

    run(main(), loop_factory)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_stopped_with_more_than_one_connection(
    proxy: RedisProxy, loop_factory: LoopFactory
) -> None:
    """Replaced connections, and what waits for one that is being made, end with the worker too."""

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=0.2) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            slow = keeper.execute(SAY)
            await until(lambda: proxy.connections == 2, "two connections")
            await until(lambda: proxy.count(b"HSETNX") == 2, "greeted")
            proxy.plan(b"SCRIPT", Step.HOLD)
            proxy.cut()
            await until(lambda: not keeper.observer.is_up, "known to be lost")
            kept = keeper.execute(SAY)
        assert slow.is_settled
        assert kept.fault.kind == "closed"
        await until(lambda: not proxy.connections, "the end of all connections")

    run(main(), loop_factory)
