"""Since when a server forgot nothing: who dates it, by which clock, and what it refuses."""

from collections.abc import Callable

import pytest
import redis

from tests.support.doors import UNAVAILABLE, Door
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy
from tests.support.stores import run, running_store, until
from tests.support.turns import restarted
from tokens.record import MAX_TTL_S, Keys
from tokens.store.fence import MAX_FIELDS, OldClock
from tokens.store.greeting import Server

StartRedis = Callable[..., RedisServer]
FENCE = Keys().fence
SAY = (b"PING", b"here")


def url_of(server: RedisServer) -> str:
    return f"unix://{server.socket}"


def promote(client: redis.Redis) -> None:
    """Make a primary one that was a replica, with a replid of its own."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    client.execute_command("REPLICAOF", "NO", "ONE")


def replid(client: redis.Redis) -> bytes:
    return str(client.info("replication")["master_replid"]).encode()


def now_ms(client: redis.Redis) -> int:
    seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def test_the_fence_is_dated_once(client: redis.Redis, redis_server: RedisServer) -> None:
    """Who meets a server first dates its fence, by the server's clock; the others read it."""

    async def main() -> None:
        before_ms = now_ms(client)
        async with running_store(url_of(redis_server)) as first:
            await first.up()
            fence = first.fence
            assert fence.replid == replid(client)
            assert before_ms <= fence.since_ms <= now_ms(client)
            await until(lambda: now_ms(client) > fence.since_ms, "another ms")
            async with running_store(url_of(redis_server)) as second:
                await second.up()
                assert second.fence == fence
        assert client.hgetall(FENCE) == {fence.replid: b"%d" % fence.since_ms}

    run(main())


def test_without_a_fence(client: redis.Redis, redis_server: RedisServer) -> None:
    """Without the fence no token is too old; the server is still known, and dated for later."""

    async def main() -> None:
        door_opens_before = now_ms(client)
        async with running_store(url_of(redis_server), is_fenced=False) as keeper:
            await keeper.up()
            assert keeper.fence.since_ms == 0
            assert client.hkeys(FENCE) == [keeper.fence.replid]
            client.hset(FENCE, keeper.fence.replid, str(door_opens_before + 60_000))
            door = Door(keeper, client)
            assert await door.answers(door.issue("a")) == ["a"]

    run(main())


@pytest.mark.parametrize("since", ["", "soon", "-1", "1.5", "9" * 5000])
def test_a_spoilt_fence(client: redis.Redis, redis_server: RedisServer, since: str) -> None:
    """A fence that is no number keeps the store away until it is put right; nothing breaks."""
    client.hset(FENCE, replid(client), since)

    async def main() -> None:
        async with running_store(url_of(redis_server)) as keeper:
            await until(lambda: len(keeper.observer.errors) > 1, "a second try", skipping_s=0.1)
            assert set(keeper.observer.errors) == {"reply"}
            client.delete(FENCE)
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
                check = door.issue("a")
                client.mset({f"more{number}": b"x" * 50 for number in range(300)})
                client.save()
                assert await door.answers(check) == ["a"]
                first = keeper.fence
                server.process.kill()
                with restarted(server, *slowly):
                    await until(lambda: "loading" in keeper.observer.errors, "LOADING")
                    assert not keeper.observer.is_up
                    await keeper.up(2)
                    assert await door.answers(check) == ["fenced"]
                    assert await door.answers(door.issue("a")) == ["a"]
                    second = keeper.fence
        assert second.replid != first.replid
        assert second.since_ms > first.since_ms

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
                first = keeper.fence
                assert await door.answers(door.issue("a")) == ["a"], "never promoted: no skew"
                promote(client)
                assert await door.answers(door.issue("a")) == ["fenced"]
                assert keeper.fence.since_ms >= first.since_ms + skew_ms
                assert keeper.fence.replid == replid(client)

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
                first = keeper.fence
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                assert await door.answers(check) == [UNAVAILABLE]
                await until(lambda: not keeper.observer.is_up, "known to be away")
                enough = len(keeper.observer.errors) + 2
                # No time is skipped: Redis's does not pass so, and its clock would seem behind.
                await until(lambda: len(keeper.observer.errors) > enough, "tries")
                assert set(keeper.observer.errors) <= {"fence", "readonly"}
                assert keeper.execute(SAY).fault.kind == "readonly"
                client.execute_command("REPLICAOF", "NO", "ONE")
                await keeper.up(2)
                assert keeper.fence.replid != first.replid
                assert keeper.fence.since_ms > first.since_ms
                await until(lambda: now_ms(client) > keeper.fence.since_ms, "another ms")
                assert await door.answers(check, door.issue("b")) == ["fenced", "b"]

        run(main())


# A clock that is behind.


def time_reply(ms: int) -> bytes:
    """Say a time as Redis does."""
    seconds, rest = b"%d" % (ms // 1000), b"%d" % (ms % 1000 * 1000)
    texts = [b"$%d\r\n%b\r\n" % (len(text), text) for text in (seconds, rest)]
    return b"*2\r\n" + b"".join(texts)


@pytest.mark.parametrize("is_dated", [False, True])
@pytest.mark.parametrize("behind_s", [3, 1])
def test_a_promoted_server_whose_clock_is_behind(
    start_redis: StartRedis,
    behind_s: int,
    is_dated: bool,  # noqa: FBT001 - a case
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The fence lies behind the old primary's time, also where somebody dated it by the new one's.

    Within the skew that is allowed for, the date that stands is right, and stays.
    """
    server = start_redis()
    with server.client() as client, RedisProxy(server.socket, None) as proxy:

        async def main() -> None:
            async with running_store(proxy.url, clock_skew_ms=2000) as keeper:
                await keeper.up()
                promote(client)
                old_ms = now_ms(client)
                new_ms = old_ms - behind_s * 1000
                if is_dated:
                    client.hset(FENCE, replid(client), str(new_ms + 2000))
                proxy.cut()
                proxy.plan(b"TIME", time_reply(new_ms))
                await keeper.up(2, skipping_s=0.01)
                since_ms = keeper.fence.since_ms
                assert client.hget(FENCE, replid(client)) == b"%d" % since_ms
                if is_dated and behind_s <= 2:
                    assert since_ms == new_ms + 2000
                else:
                    # By our own clock, with the while that it took to be greeted.
                    assert old_ms + 2000 - 100 < since_ms < old_ms + 2000 + 15_000
                # Greeted once more it is the same server, whatever its clock says.
                proxy.cut()
                proxy.plan(b"TIME", time_reply(new_ms - 60_000))
                await keeper.up(3, skipping_s=0.01)
                assert keeper.fence.since_ms == since_ms

        run(main())
    assert ("ms behind the one before it" in caplog.text) == (behind_s > 2)


def test_a_later_date_stays(start_redis: StartRedis) -> None:
    """Where somebody knew better how far the clock is behind, the fence is not taken back."""
    server = start_redis()
    with server.client() as client, RedisProxy(server.socket, None) as proxy:

        async def main() -> None:
            async with running_store(proxy.url, clock_skew_ms=2000) as keeper:
                await keeper.up()
                promote(client)
                later_ms = now_ms(client) + 3_600_000
                client.hset(FENCE, replid(client), str(later_ms))
                proxy.cut()
                proxy.plan(b"TIME", time_reply(now_ms(client) - 60_000))
                await keeper.up(2)
                assert keeper.fence.since_ms == later_ms
                assert client.hget(FENCE, replid(client)) == b"%d" % later_ms

        run(main())


def test_the_old_clock_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the old primary's clock would say now counts, not what it said when it was heard."""
    now_s = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    clock = OldClock(2000)
    new = Server(b"new", 10_000_000, was_promoted=True)
    assert clock.since_ms(new) == (10_002_000, False), "nobody was heard before"
    clock.hear(Server(b"old", 10_000_000, was_promoted=True))
    assert clock.since_ms(new) == (10_002_000, False)
    now_s[0] += 2
    assert clock.since_ms(new) == (10_004_000, False), "as far behind as is allowed for"
    now_s[0] += 1
    assert clock.since_ms(new) == (10_005_000, True)
    assert clock.since_ms(Server(b"old", 10_000_000, was_promoted=True)) == (10_002_000, False)
    assert clock.since_ms(Server(b"new", 10_009_000, was_promoted=True)) == (10_011_000, False)
    restarted = Server(b"restarted", 10_000_000, was_promoted=False)
    assert clock.since_ms(restarted) == (10_000_000, False)


def test_the_clock_in_use_is_heard_again_and_again(start_redis: StartRedis) -> None:
    """A server's time is asked for while it is in use: a clock that was set on is followed."""
    server = start_redis()
    with server.client() as client, RedisProxy(server.socket, None) as proxy:

        async def main() -> None:
            async with running_store(proxy.url, clock_skew_ms=2000) as keeper:
                await keeper.up()
                set_on_ms = now_ms(client) + 3_600_000
                proxy.plan(b"TIME", *[time_reply(set_on_ms)] * 99)
                await until(lambda: proxy.count(b"TIME") > 3, "asked", skipping_s=0.05)
                assert len(keeper.observer.ups) == 1
                promote(client)
                proxy.forget()
                proxy.cut()
                await keeper.up(2)
                assert keeper.fence.since_ms > set_on_ms

        run(main())


# Trimming.


def test_old_fences_are_trimmed(client: redis.Redis, redis_server: RedisServer) -> None:
    """Above 256 fields the oldest go, if no token can be so old; never this server's own."""
    too_old_ms = now_ms(client) - (MAX_TTL_S + 3600) * 1000 - 60_000
    old = {f"old{n}": too_old_ms - n for n in range(MAX_FIELDS)}
    young = {f"young{n}": too_old_ms + 120_000 for n in range(10)}
    client.hset(FENCE, mapping={**old, **young, "odd": "rubbish"})
    client.hset(FENCE, replid(client), too_old_ms - 10_000)

    async def main() -> None:
        async with running_store(url_of(redis_server)) as keeper:
            await keeper.up()
            assert keeper.fence.since_ms == too_old_ms - 10_000

    run(main())
    left = {name.decode() for name in client.hkeys(FENCE)}
    assert len(left) == MAX_FIELDS
    assert left >= {*young, "odd", replid(client).decode()}
    gone = old.keys() - left
    assert gone == {f"old{n}" for n in range(MAX_FIELDS - 12, MAX_FIELDS)} - left
    assert len(gone) == 12


def test_young_fences_are_kept(client: redis.Redis, redis_server: RedisServer) -> None:
    """However many servers there were within a day: each keeps its date."""
    young = {f"young{n}": now_ms(client) - 1000 for n in range(MAX_FIELDS + 10)}
    client.hset(FENCE, mapping=young)

    async def main() -> None:
        async with running_store(url_of(redis_server)) as keeper:
            await keeper.up()

    run(main())
    assert client.hlen(FENCE) == MAX_FIELDS + 11
