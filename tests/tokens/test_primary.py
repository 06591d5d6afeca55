"""What becomes of batches whose replies go astray: asked again, once, and never mixed up."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.doors import UNAVAILABLE, Door, Knock
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.stores import (
    DEADLINE_S,
    LOOPS,
    LoopFactory,
    run,
    running_store,
    settled,
    skip,
    until,
)
from tokens.policy import redeem
from tokens.question import Fence, Question
from tokens.store.line import SILENCE
from tokens.store.wire import StoreUnavailable

StartRedis = Callable[..., RedisServer]
SAY = (b"PING", b"here")
PAST_SILENCE_S = SILENCE * DEADLINE_S + 0.1

LOST = {
    "cut": Step.CUT,
    "half": Step.HALF,
    "doubled": Step.TWICE,
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}
"""What shows at once: the connection ends, or its marks do not fit."""


def url_of(server: RedisServer) -> str:
    return f"unix://{server.socket}"


def promote(client: redis.Redis) -> None:
    """Make a primary one that was a replica, with a replid of its own."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    client.execute_command("REPLICAOF", "NO", "ONE")


def consumed(client: redis.Redis) -> int:
    """Count the consumes that Redis has done: each writes one tombstone."""
    with client.pipeline() as pipeline:
        for key in client.keys("kat:t:*"):
            pipeline.get(key)
        return sum(value.startswith(b"consumed ") for value in pipeline.execute())


# Asked a second time.


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("step", LOST.values(), ids=LOST)
@pytest.mark.parametrize("name", [b"EVALSHA", b"ECHO"])
def test_a_lost_reply_is_asked_for_once_more(
    client: redis.Redis,
    proxy: RedisProxy,
    name: bytes,
    step: Step | bytes,
    loop_factory: LoopFactory,
) -> None:
    """Whoever consumed and never heard of it gets in by the second asking; consumed is once."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            check = door.issue("a")
            proxy.plan(name, step)
            assert await door.answers(check) == ["a"]
            if (name, step) == (b"ECHO", Step.TWICE):
                await keeper.up(2)  # all had come: nothing was asked for, and one reply too much
                assert keeper.observer.again == 0
            else:
                assert keeper.observer.again == 1
                assert proxy.count(b"EVALSHA") == 4
            assert await door.answers(check) == ["replayed"]
            assert consumed(client) == 1

    run(main(), loop_factory)


@pytest.mark.parametrize("step", [Step.DROP, Step.HOLD])
def test_a_reply_that_does_not_come_is_asked_for_once_more(
    client: redis.Redis, proxy: RedisProxy, step: Step
) -> None:
    """After 0.4 of the deadline, without any sign of an end, the same on another connection."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            check = door.issue("a")
            proxy.plan(b"EVALSHA", step)
            if step is Step.DROP:  # nothing at all is to come; a hold holds all behind it as well
                proxy.plan(b"EVALSHA", step)
                proxy.plan(b"ECHO", step)
            knock = door.knock(check)
            await until(lambda: proxy.count(b"EVALSHA") == 2, "written")
            assert not knock.is_settled
            skip(PAST_SILENCE_S)
            await settled(knock)
            assert knock.answers == ["a"]
            assert keeper.observer.again == 1
            proxy.forget()
            assert await door.answers(check) == ["replayed"]
            assert consumed(client) == 1

    run(main())


def test_a_late_reply_is_heard_by_nobody(proxy: RedisProxy) -> None:
    """The second asking is answered first: the batch is settled, the first reply is nobody's."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            asked = keeper.execute(SAY)
            await until(lambda: proxy.held, "the hold")
            skip(PAST_SILENCE_S)
            await settled(asked)
            assert asked.replies == [b"here"]
            proxy.release()
            await until(lambda: proxy.connections == 1, "the end of the other connection")
            assert (await keeper.ask((b"PING", b"next"))).replies == [b"next"]
            assert (proxy.count(b"PING"), keeper.observer.again) == (3, 1)

    run(main())


def test_a_late_reply_is_better_than_none(proxy: RedisProxy) -> None:
    """The first asking is answered after the second was written: that answer counts."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD, Step.DROP)
            asked = keeper.execute(SAY)
            await until(lambda: proxy.held, "the hold")
            skip(PAST_SILENCE_S)
            await until(lambda: proxy.count(b"PING") == 2, "the second asking")
            assert not asked.is_settled
            proxy.release()
            await settled(asked)
            assert asked.replies == [b"here"]

    run(main())


@pytest.mark.parametrize("step", [Step.CUT, Step.HALF, Step.TWICE])
def test_there_is_no_third_asking(client: redis.Redis, proxy: RedisProxy, step: Step) -> None:
    """When the second reply is lost as well the batch is told so, and Redis hears no more of it."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            check = door.issue("a")
            # Doubled, the next reply on the same connection is that to the other script.
            proxy.plan(b"EVALSHA", step, *([Step.PASS] if step is Step.TWICE else []), step)
            knock = door.knock(check)
            await settled(knock)
            assert knock.answers == [UNAVAILABLE]
            await keeper.up(3)
            assert (proxy.count(b"EVALSHA"), keeper.observer.again) == (4, 1)
            assert consumed(client) == 1

    run(main())


def test_no_third_asking_after_a_silence(client: redis.Redis, proxy: RedisProxy) -> None:
    """Silent, asked again, cut: the batch waits for the first reply alone, and asks nothing."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            proxy.plan(b"EVALSHA", Step.HOLD, Step.PASS, Step.CUT)
            knock = door.knock(door.issue("a"))
            await until(lambda: proxy.held, "the hold")
            skip(PAST_SILENCE_S)
            await keeper.up(2)
            assert not knock.is_settled
            proxy.release()
            await settled(knock)
            assert knock.answers == ["a"]
            assert (proxy.count(b"EVALSHA"), keeper.observer.again) == (4, 1)

    run(main())


@pytest.mark.parametrize("step", [*LOST.values(), Step.DROP], ids=[*LOST, "dropped"])
def test_what_cannot_be_repeated_is_never_repeated(
    client: redis.Redis, proxy: RedisProxy, step: Step | bytes
) -> None:
    """A write whose reply is lost is not written again, whatever happened to the reply."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"INCR", step)
            written = keeper.execute((b"INCR", b"n"), is_repeatable=False)
            await settled(written, skipping_s=0.01)
            assert isinstance(written.fault, StoreUnavailable)
            await keeper.ask(SAY)
            assert client.get("n") == b"1"
            assert keeper.observer.again == 0

    run(main())


def test_what_was_never_written_may_be_written_later(proxy: RedisProxy) -> None:
    """A batch that cannot be repeated, and that came between two connections, is written once."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            kept = []

            def keep(_: object) -> None:
                kept.append(keeper.execute((b"INCR", b"n"), is_repeatable=False))

            proxy.plan(b"PING", Step.CUT)
            keeper.execute(SAY, then=keep, is_repeatable=False)
            await until(lambda: kept, "the cut")
            await settled(*kept)
            assert kept[0].replies == [1]
            assert (proxy.count(b"INCR"), keeper.observer.again) == (1, 0)

    run(main())


# Too late.


def test_nothing_is_written_after_the_deadline(client: redis.Redis, proxy: RedisProxy) -> None:
    """What comes too late is not written; nor is it when that is found out on the way."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            late = keeper.execute((b"SET", b"a", b"1"), give_up_in_s=0)
            assert late.fault.kind == "timeout"
            # Lost, and when the new connection is greeted the time is over.
            check = door.issue()
            proxy.plan(b"ECHO", Step.CUT)
            proxy.plan(b"TIME", Step.HOLD)
            knock = door.knock(check)
            await until(lambda: proxy.held, "the greeting is held")
            assert not knock.is_settled
            skip(DEADLINE_S + 0.1)
            await settled(knock)
            assert knock.answers == [UNAVAILABLE]
            proxy.release()
            await keeper.up(2, skipping_s=0.01)
            assert await door.answers(door.issue("b")) == ["b"]
            assert proxy.count(b"EVALSHA") == 4
            assert client.get("a") is None

    run(main())


def test_no_second_asking_after_the_deadline(proxy: RedisProxy) -> None:
    """A batch whose time is over when the silence is noticed is not asked again for nobody."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"PING", Step.HOLD)
            short = keeper.execute(SAY, give_up_in_s=0.2 * DEADLINE_S)
            long = keeper.execute((b"GET", b"a"))
            await until(lambda: proxy.held, "the hold")
            skip(PAST_SILENCE_S)
            await settled(long)
            assert (proxy.count(b"GET"), proxy.count(b"PING")) == (2, 1)
            assert not short.is_settled
            proxy.release()
            await settled(short)
            assert short.replies == [b"here"]

    run(main())


def test_a_batch_of_little_time_waits_no_longer(proxy: RedisProxy) -> None:
    """While a connection is made, each batch is settled when its own time is over."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            waiting = []

            def wait(_: object) -> None:
                waiting.append(keeper.execute(SAY, give_up_in_s=0.4 * DEADLINE_S))
                waiting.append(keeper.execute(SAY))

            proxy.plan(b"PING", Step.CUT)
            proxy.plan(b"TIME", Step.HOLD)
            keeper.execute(SAY, then=wait, is_repeatable=False)
            await until(lambda: proxy.held, "the greeting is held")
            skip(0.5 * DEADLINE_S)
            await settled(waiting[0])
            assert waiting[0].fault.kind == "closed"
            assert not waiting[1].is_settled
            proxy.release()
            await settled(waiting[1])
            assert waiting[1].replies == [b"here"]

    run(main())


def test_there_is_hope_for_a_deadline_only(proxy: RedisProxy) -> None:
    """Who comes when the new connection has been in the making for a deadline is told at once."""

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=0.5) as keeper:
            await keeper.up()
            proxy.plan(b"TIME", Step.HOLD)
            proxy.cut()
            await until(lambda: proxy.held, "the greeting is held")
            first = keeper.execute(SAY, give_up_in_s=5)
            assert not first.is_settled
            skip(0.6)
            assert keeper.execute(SAY).fault.kind == "closed"
            await settled(first)
            assert first.fault.kind == "closed"
            proxy.release()
            await keeper.up(2)

    run(main())


@pytest.mark.parametrize("why", ["no script", "another server"])
def test_a_refused_script_is_not_asked_again_too_late(
    start_redis: StartRedis, place: Path, why: str
) -> None:
    """A script that did not run, and says so past the deadline, is left so: it is for nobody."""
    server = start_redis()
    with server.client() as client, RedisProxy(server.socket, place) as proxy:

        async def main() -> None:
            async with running_store(proxy.url, deadline_s=0.5) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                check = door.issue("a")
                if why == "no script":
                    client.script_flush()
                else:
                    promote(client)
                proxy.plan(b"EVALSHA", Step.HOLD)
                late = door.knock(check)
                await until(lambda: proxy.held, "the hold")
                skip(0.6)
                proxy.release()
                await settled(late)
                assert late.answers == [UNAVAILABLE]
                assert proxy.count(b"EVALSHA") == 2
                assert door.is_whole(check)

        run(main())


# Scripts that did not run.


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_lost_script_is_healed(
    client: redis.Redis, proxy: RedisProxy, loop_factory: LoopFactory
) -> None:
    """SCRIPT FLUSH costs nobody anything: the batch is asked anew, the next one is not."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            client.script_flush()
            assert await door.answers(*[door.issue("a") for _ in range(130)]) == ["a"] * 130
            assert (proxy.count(b"EVALSHA"), proxy.count(b"SCRIPT")) == (6, 4)
            assert await door.answers(door.issue("b")) == ["b"]
            assert (proxy.count(b"EVALSHA"), proxy.count(b"SCRIPT")) == (8, 4)
            assert len(keeper.observer.ups) == 1
            assert (keeper.observer.errors, keeper.observer.again) == ([], 0)

    run(main(), loop_factory)


def test_each_script_is_healed(client: redis.Redis, proxy: RedisProxy) -> None:
    """Any of the scripts may be the one that is missed: also the last one of a batch."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            client.script_flush()
            client.script_load(redeem.SCRIPT.decode())
            check = door.issue("a")
            assert await door.answers(check) == ["a"], "consumed by its first call, asked by claim"
            assert consumed(client) == 1
            assert proxy.count(b"EVALSHA") == 4

    run(main())


def test_a_lost_script_is_loaded_once_only(client: redis.Redis, proxy: RedisProxy) -> None:
    """When the second try fails in the same way there is no third."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            noscript = b"-NOSCRIPT No matching script.\r\n"
            proxy.plan(b"EVALSHA", noscript, Step.PASS, noscript)
            assert await door.answers(door.issue()) == [UNAVAILABLE]
            assert proxy.count(b"EVALSHA") == 4
            assert await door.answers(door.issue("a")) == ["a"]

    run(main())


def test_what_cannot_be_repeated_is_not_healed(client: redis.Redis, proxy: RedisProxy) -> None:
    """A batch that cannot be repeated keeps its NOSCRIPT; the script is there for the next one."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            client.script_flush()
            call = (b"EVALSHA", redeem.SHA, b"0", keeper.fence.replid, b"0", b"1")
            both = ((b"INCR", b"n"), call)
            number, error = (await keeper.ask(*both, is_repeatable=False)).replies
            assert number == 1
            assert isinstance(error, Exception)
            number, reply = (await keeper.ask(*both, is_repeatable=False)).replies
            assert number == 2
            assert isinstance(reply, list)

    run(main())


def test_a_connection_lost_while_healing(client: redis.Redis, proxy: RedisProxy) -> None:
    """NOSCRIPT was no answer: when the connection ends then, there is still a second asking."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            client.script_flush()
            proxy.plan(b"EVALSHA", Step.PASS, Step.PASS, Step.CUT)
            assert await door.answers(door.issue("a")) == ["a"]
            assert keeper.observer.again == 1
            await keeper.up(2)

    run(main())


# Another server.


def test_promoted_between_two_batches(start_redis: StartRedis) -> None:
    """A new replid is noticed by the scripts: the fence is read anew, and all are asked again.

    What was issued before is fenced, what is issued later gets in; nobody is turned away for
    having come in that moment.
    """
    server = start_redis()
    with server.client() as client:

        async def main() -> None:
            async with running_store(url_of(server)) as keeper:
                await keeper.up()
                door = Door(keeper, client)
                old = door.issue("old")
                seconds, micros = client.time()
                after = (seconds, micros + 2000) if micros < 998_000 else (seconds + 1, 2000)
                while client.time() < after:
                    pass  # a fence in the very millisecond of the issue would not be behind it
                promote(client)
                together = door.knock(old), door.knock(door.issue("b"))
                await settled(*together)
                assert together[0].answers == ["fenced"]
                assert together[1].answers in (["b"], ["fenced"])  # in the very ms, perhaps
                assert keeper.observer.errors == ["fence"]
                assert keeper.observer.again == 0, "it did not run: that was no asking"
                assert consumed(client) == (together[1].answers == ["b"])
                new = client.info("replication")["master_replid"]
                assert keeper.fence.replid.decode() == new

        run(main())


def test_refused_by_a_batch_that_cannot_be_repeated(start_redis: StartRedis) -> None:
    """KATFENCE in such a batch is left to who asked; the server is greeted anew for the others."""
    server = start_redis()
    with server.client() as client:

        async def main() -> None:
            async with running_store(url_of(server)) as keeper:
                await keeper.up()
                promote(client)
                call = Question(b"", (b"EVALSHA", redeem.SHA, b"0"), (b"1",))
                asked = (Question(b"", (b"INCR", b"n")), call)
                number, error = (await keeper.ask(*asked, is_repeatable=False)).replies
                assert number == 1
                assert str(error).startswith("KATFENCE")
                _, reply = (await keeper.ask(*asked, is_repeatable=False)).replies
                assert isinstance(reply, list)
                assert client.get("n") == b"2"

        run(main())


def test_who_is_in_flight_when_the_server_changes(client: redis.Redis, proxy: RedisProxy) -> None:
    """A connection that is greeted anew still owes replies: those who wait for them ask nothing."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            proxy.plan(b"EVALSHA", b"-KATFENCE another one\r\n")
            proxy.plan(b"PING", Step.HOLD)
            knock, behind = door.knock(door.issue("a")), keeper.execute(SAY)
            await settled(knock)
            await keeper.up(2)
            assert knock.answers == ["a"]
            assert not behind.is_settled
            proxy.release()
            await settled(behind)
            assert behind.replies == [b"here"]
            assert (proxy.count(b"PING"), keeper.observer.again) == (1, 0)

    run(main())


def test_a_server_that_changes_all_the_time(client: redis.Redis, proxy: RedisProxy) -> None:
    """KATFENCE after every greeting: within the deadline there is an end of it."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            proxy.plan(b"EVALSHA", *[b"-KATFENCE another one\r\n"] * 100)
            knock = door.knock(door.issue())
            await settled(knock)
            assert knock.answers == [UNAVAILABLE]
            assert proxy.count(b"EVALSHA") < 30
            proxy.forget()
            skip(2)
            await until(lambda: keeper.observer.is_up, "up again", skipping_s=0.01)
            assert await door.answers(door.issue("a")) == ["a"]

    run(main())


def test_questions_are_written_for_the_server_in_use(proxy: RedisProxy) -> None:
    """The fence of a question is filled in when it is written: in the second asking anew."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            first = keeper.fence
            proxy.plan(b"EVAL", Step.CUT)
            other = Fence(b"f" * 40, first.since_ms + 1)
            line = b"role:master\r\nmaster_replid:%b\r\n" % other.replid
            proxy.plan(b"INFO", Step.PASS, b"$%d\r\n%b\r\n" % (len(line), line))
            proxy.plan(b"HGET", b"$13\r\n%d\r\n" % other.since_ms)
            told = Question(b"", (b"EVAL", b"return {ARGV[1], ARGV[2]}", b"0"), (b"x",))
            assert (await keeper.ask(told)).replies == [[other.replid, b"%d" % other.since_ms]]

    run(main())


# Replies that go astray.


def test_three_batches_in_flight(client: redis.Redis, proxy: RedisProxy) -> None:
    """Batches are answered in their order, each with its own, however late the replies are."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            proxy.plan(b"EVALSHA", Step.HOLD, Step.PASS, Step.PASS, Step.PASS, Step.HOLD)
            users = [["a1"], ["b1", "b2"], ["c1"]]
            knocks = [door.knock(*map(door.issue, batch)) for batch in users]
            await until(lambda: proxy.held, "the hold")
            assert not any(knock.is_settled for knock in knocks)
            proxy.release()
            await settled(*knocks[:2])
            await until(lambda: proxy.held, "the second hold")
            assert not knocks[2].is_settled
            proxy.release()
            await settled(knocks[2])
            assert [knock.answers for knock in knocks] == users

    run(main())


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize(
    "step", [Step.DROP, Step.TWICE, Step.SWAP, Step.CUT, Step.HALF, b"+OK\r\n", b"*1\r\n:1\r\n"]
)
def test_nobody_is_given_a_neighbours_answer(
    client: redis.Redis, proxy: RedisProxy, step: Step | bytes, position: int
) -> None:
    """A reply is lost, doubled, moved or another: all three get in, each for themselves, once.

    What the marks cannot show, because the number of replies is right, shows in the replies:
    then that batch is refused for it.
    """

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            checks = [door.issue(user) for user in ("a", "b", "c")]
            proxy.plan(b"EVALSHA", *[Step.PASS] * position, step)
            knocks = [door.knock(check) for check in checks]
            await settled(*knocks, skipping_s=0.003)  # what no later reply shows is a silence
            is_within = isinstance(step, bytes) or (step is Step.SWAP and position % 2 == 0)
            expected = ["a", "b", "c"]
            if is_within:
                expected[position // 2] = UNAVAILABLE
            assert [knock.answers[0] for knock in knocks] == expected
            assert consumed(client) == 3
            assert keeper.observer.again <= 3
            assert await door.answers(*checks) == ["replayed"] * 3

    run(main())


@pytest.mark.parametrize("position", range(4))
def test_a_doubled_reply_lets_no_replay_in(
    client: redis.Redis, proxy: RedisProxy, position: int
) -> None:
    """The yes for a token, said twice, is not a yes for who comes with it a second time."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            check = door.issue("a")
            name = (b"EVALSHA", b"EVALSHA", b"ECHO", b"ECHO")[position]
            proxy.plan(name, *[Step.PASS] * (position % 2), Step.TWICE)
            knocks = [door.knock(check) for _ in range(3)]
            await settled(*knocks, skipping_s=0.003)
            assert [knock.answers for knock in knocks] == [["a"], ["replayed"], ["replayed"]]
            assert consumed(client) == 1

    run(main())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_reply_nobody_asked_for(proxy: RedisProxy, loop_factory: LoopFactory) -> None:
    """An extra reply, when nothing is in flight, ends the connection before it can do harm."""

    async def main() -> None:
        async with running_store(proxy.url) as keeper:
            await keeper.up()
            proxy.plan(b"ECHO", Step.TWICE)
            assert (await keeper.ask(SAY)).replies == [b"here"]
            await keeper.up(2)
            assert keeper.observer.errors == ["reply"]
            assert (await keeper.ask((b"PING", b"there"))).replies == [b"there"]

    run(main(), loop_factory)


steps = st.sampled_from([*Step, b"+OK\r\n", b"what?\r\n", b"-LOADING not yet\r\n", b"$-1\r\n"])


@given(
    plan=st.lists(steps, max_size=8),
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
                for position, answer in enumerate(knock.answers):
                    assert answer in (f"u{number}.{position}", UNAVAILABLE)
                    if answer != UNAVAILABLE:
                        assert not door.is_whole(batch[position])
            proxy.forget()
            while isinstance((await keeper.ask(SAY)).calls[0], StoreUnavailable):
                await asyncio.sleep(0.001)
                skip(0.02)

    run(main())


# Races.

FAULTS = (Step.DROP, Step.CUT, Step.HALF, Step.TWICE, Step.SWAP, Step.LATE)
# Of some thousand replies.
RATES: dict[str, dict[Step, float]] = {
    **{step.name.lower(): {step: 0.003} for step in FAULTS},
    "all of them": dict.fromkeys(FAULTS, 0.002),
}
IN_FLIGHT = 8


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_race_for_every_token(
    client: redis.Redis, proxy: RedisProxy, rates: dict[Step, float], loop_factory: LoopFactory
) -> None:
    """Three run for each of many tokens while replies go astray: never do two of them get in.

    Nor does anybody as somebody else. Where nobody got in, one at least was told that the store
    did not answer; and that is seldom.
    """
    users = [f"u{number}" for number in range(300)]
    waiting: set[int] = set()

    async def main() -> None:
        async with running_store(proxy.url, deadline_s=0.5) as keeper:
            await keeper.up()
            door = Door(keeper, client)
            checks = {user: door.issue(user) for user in users}
            proxy.disturb(seed=7, rates=rates)
            proxy.cut()  # so that chance is in it from here on
            runs: list[tuple[str, Knock]] = []
            for user in (user for user in users for _ in range(3)):
                await until(lambda: keeper.observer.is_up and len(waiting) < IN_FLIGHT, "a chance")
                number = len(runs)
                waiting.add(number)
                knock = door.knock(checks[user], then=lambda _, n=number: waiting.discard(n))
                runs.append((user, knock))
            await settled(*(knock for _, knock in runs))
            heard: dict[str, list[str]] = {user: [] for user in users}
            for user, knock in runs:
                heard[user] += knock.answers
            judge(heard)
            got_in = [user for user in users if user in heard[user]]
            assert not any(door.is_whole(checks[user]) for user in got_in)
            assert len(got_in) > 0.9 * len(users)
            assert proxy.disturbed
            assert keeper.observer.again

    run(main(), loop_factory)


def judge(heard: dict[str, list[str]]) -> None:
    for user, answers in heard.items():
        assert set(answers) <= {user, "replayed", UNAVAILABLE}
        assert answers.count(user) <= 1
        assert user in answers or UNAVAILABLE in answers
