"""One connection to Redis: replies in order, each to its own batch, and one end for all."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.stores import LOOPS, LoopFactory, Recorder, Settlement, run, settled, skip, until
from tokens.question import Command, Reply
from tokens.store.wire import STALL_S, StoreUnavailable, Wire, error_kind


@asynccontextmanager
async def connected(socket: Path | str | None) -> AsyncIterator[Wire]:
    """Open a wire, and close it at the end of the block."""
    wire = Wire(Recorder())
    await asyncio.get_running_loop().create_unix_connection(lambda: wire, str(socket))
    try:
        yield wire
    finally:
        wire.abandon(StoreUnavailable("closed", "the test is over"))
        await asyncio.sleep(0)


def send(wire: Wire, *commands: Command) -> Settlement:
    settlement = Settlement()
    wire.send(commands, settlement)
    return settlement


def say(text: bytes) -> Command:
    """Ask something that Redis answers with `text`. Not ECHO: each batch ends with one."""
    return (b"PING", text)


# Replies.


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_each_batch_gets_its_own_replies(
    redis_server: RedisServer, loop_factory: LoopFactory
) -> None:
    """Three batches in flight get their replies in order: of every type, error replies too."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            one = send(wire, say(b"1"), (b"NONSENSE",), (b"GET", b"absent"))
            two = send(wire, say(b"2"))
            three = send(wire, (b"INCR", b"n"), (b"MGET", b"n", b"absent"), (b"SET", b"n", b"7"))
            await settled(one, two, three)
        first, error, absent = one.replies
        assert (first, absent) == (b"1", None)
        assert isinstance(error, hiredis.ReplyError)
        assert two.replies == [b"2"]
        assert three.replies == [1, [b"1", None], b"OK"]

    run(main(), loop_factory)


REPLIES = {
    b"+OK\r\n": b"OK",
    b"$0\r\n\r\n": b"",
    b"$4\r\na\r\nb\r\n": b"a\r\nb",
    b"$-1\r\n": None,
    b"*-1\r\n": None,
    b":-7\r\n": -7,
    b"*0\r\n": [],
    b"*2\r\n$1\r\nx\r\n*1\r\n:1\r\n": [b"x", [1]],
}


class Sink(asyncio.Transport):
    """A connection to nowhere, for replies that are fed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        self.is_aborted = True

    @property
    def marks(self) -> list[bytes]:
        """The replies that the marks of all batches have, in order."""
        return [write[write.rindex(b"$") :] for write in self.writes]


def test_however_the_bytes_arrive() -> None:
    """Any chunking of the replies settles the same batches with the same replies, in order."""

    @given(
        st.lists(st.lists(st.sampled_from([*REPLIES]), min_size=1, max_size=4), max_size=5),
        st.lists(st.integers(0, 200)),
    )
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def arrive(batches: list[list[bytes]], cuts: list[int]) -> None:
        wire, sink = Wire(Recorder()), Sink()
        wire.connection_made(sink)
        settlements = [send(wire, *[say(b"")] * len(batch)) for batch in batches]
        replies = zip(batches, sink.marks, strict=True)
        stream = b"".join(reply for batch, mark in replies for reply in (*batch, mark))
        edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
        for start, end in itertools.pairwise(edges):
            wire.data_received(stream[start:end])
        expected: list[list[Reply]] = [[REPLIES[reply] for reply in batch] for batch in batches]
        assert [settlement.replies for settlement in settlements] == expected
        assert not wire.lost.done()

    async def main() -> None:
        arrive()

    run(main())


def test_a_batch_is_one_write() -> None:
    """All commands of a batch leave in a single write, packed as RESP, and its mark behind."""

    async def main() -> None:
        wire, sink = Wire(Recorder()), Sink()
        wire.connection_made(sink)
        send(wire, (b"SET", b"a", b"1"), (b"GET", b"a"))
        send(wire, say(b"\r\n"))
        one, two = sink.marks
        assert sink.writes == [
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
            b"*2\r\n$4\r\nECHO\r\n" + one,
            b"*2\r\n$4\r\nPING\r\n$2\r\n\r\n\r\n*2\r\n$4\r\nECHO\r\n" + two,
        ]

    run(main())


def test_late_replies_keep_their_place(proxy: RedisProxy) -> None:
    """Replies that come after everybody gave up go to whom they belong, and to nobody else."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"PING", Step.HOLD)
            late = send(wire, say(b"1"), say(b"2"))
            await until(lambda: proxy.held, "the reply is held")
            skip(STALL_S / 2)
            next_one = send(wire, say(b"3"))
            assert not late.is_settled
            assert wire.waits_longer_than(STALL_S / 4)
            proxy.release()
            await settled(late, next_one)
            assert (late.replies, next_one.replies) == ([b"1", b"2"], [b"3"])
            assert not wire.waits_longer_than(0)

    run(main())


def test_a_round_trip_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time from the write to the last reply is told once for each batch, however short."""
    now = [0.0]

    async def main() -> None:
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        wire, sink = Wire(recorder := Recorder()), Sink()
        wire.connection_made(sink)
        send(wire, say(b""), say(b""))
        now[0] += 0.0002
        send(wire, say(b""))
        now[0] += 0.0001
        one, two = sink.marks
        wire.data_received(b"+1\r\n")
        assert recorder.round_trips == []
        wire.data_received(b"+2\r\n" + one + b"+3\r\n" + two)
        assert recorder.round_trips == pytest.approx([0.0003, 0.0001])

    run(main())


# The end.


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("step", [Step.CUT, Step.HALF])
def test_a_closed_connection_ends_all(
    proxy: RedisProxy, step: Step, loop_factory: LoopFactory
) -> None:
    """When Redis closes, also in the middle of a reply, each waiting batch is told so, once."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"PING", Step.HOLD, Step.PASS, step)
            waiting = [send(wire, say(b"1"))]
            waiting += [send(wire, say(b"2"), say(b"3"), say(b"4")), send(wire, say(b"5"))]
            await until(lambda: proxy.held and proxy.count(b"PING") == 5, "the hold")
            proxy.release()
            await settled(*waiting)
            done, *failed = waiting
            assert done.replies == [b"1"]
            assert [one.fault.kind for one in failed] == ["closed", "closed"]
            assert wire.lost.result() is failed[0].fault

    run(main(), loop_factory)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_lost_connection_settles_at_once(
    redis_server: RedisServer, loop_factory: LoopFactory
) -> None:
    """Whoever sends on a connection that is lost is told so in the same call."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            wire.abandon(StoreUnavailable("timeout", "a test"))
            before = send(wire, say(b"1"))
            await asyncio.sleep(0)  # connection_lost
            await asyncio.sleep(0)
            after = send(wire, say(b"1"))
            assert before.fault is after.fault is wire.lost.result()

    run(main(), loop_factory)


def test_who_is_told_may_send_again(redis_server: RedisServer) -> None:
    """A batch sent from within a settlement of a lost connection ends like the others."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            again: list[Settlement] = []
            wire.send([say(b"1")], lambda _: again.append(send(wire, say(b"2"))))
            last = send(wire, say(b"3"))
            wire.abandon(why := StoreUnavailable("timeout", "a test"))
            assert [one.fault for one in (*again, last)] == [why, why]

    run(main())


GARBAGE = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "a bad length": b"$-7\r\n",
    "a bad integer": b":seven\r\n",
    "an empty line": b"\r\n",
    "a map with a list for a key": b"%1\r\n*0\r\n:1\r\n",
    "one reply too many": b"+1\r\n+2\r\n",
    "garbage behind a reply": b"+1\r\nwhat?\r\n",
    "a fraction of RESP 3": b",1.5\r\n",
    "a truth of RESP 3": b"#t\r\n",
    "a falsehood of RESP 3": b"#f\r\n",
    "a fraction in a list in a list": b"*2\r\n:1\r\n*1\r\n,1.5\r\n",
}


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_the_connection(
    proxy: RedisProxy, garbage: bytes, loop_factory: LoopFactory
) -> None:
    """What is not RESP, or was not asked for, ends the connection; nothing behind it is used."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"PING", garbage + b"+later\r\n" * 3)
            first = send(wire, say(b"1"))
            await until(wire.lost.done, "the end")
            late = send(wire, say(b"1"))
            assert wire.lost.result().kind == late.fault.kind == "reply"
            assert first.fault is wire.lost.result()

    run(main(), loop_factory)


def test_nothing_is_used_after_the_end() -> None:
    """A settlement that ends the connection ends it for the replies read with its own, too."""

    async def main() -> None:
        wire, sink = Wire(Recorder()), Sink()
        wire.connection_made(sink)
        wire.send([say(b"")], lambda _: wire.abandon(StoreUnavailable("reply", "a mismatch")))
        neighbour = send(wire, say(b""))
        one, two = sink.marks
        wire.data_received(b"+1\r\n" + one + b"+2\r\n" + two)
        assert neighbour.fault is wire.lost.result()
        assert str(neighbour.fault) == "a mismatch"
        assert sink.is_aborted

    run(main())


def test_what_redis_says_unasked_is_told(proxy: RedisProxy) -> None:
    """A server that turns us away before the first question is quoted, not called garbage."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            await until(lambda: proxy.connections, "the connection")
            proxy.say(b"-ERR max number of clients reached\r\n")
            await until(wire.lost.done, "the end")
            assert "max number of clients reached" in str(wire.lost.result())

    run(main())


def test_our_own_fault_is_not_taken_for_garbage() -> None:
    """An exception in a settlement is ours: it is not swallowed as something Redis sent."""

    async def main() -> None:
        wire, sink = Wire(Recorder()), Sink()
        wire.connection_made(sink)

        def broken(_: object) -> None:
            raise TypeError("our own")

        wire.send([say(b"")], broken)
        with pytest.raises(TypeError, match="our own"):
            wire.data_received(b"+1\r\n" + sink.marks[0])

    run(main())


# Marks.

FAULTS = ("dropped", "doubled", "swapped")


def disturbed(stream: list[bytes], fault: str, at: int) -> list[bytes]:
    """Do something to one reply of a stream."""
    before, reply, behind = stream[:at], stream[at], stream[at + 1 :]
    match fault:
        case "dropped":
            return [*before, *behind]
        case "doubled":
            return [*before, reply, reply, *behind]
        case _:
            return [*before, *behind[:1], reply, *behind[1:]]


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("fault", FAULTS)
def test_what_happens_to_one_reply(fault: str, at: int) -> None:
    """A reply is lost, doubled or moved: its batch gets all of its own replies, or none.

    And so do the others. Two that change places within one batch are for those to see who know
    what they asked; the wire sees those that leave it.
    """

    async def main() -> None:
        wire, sink = Wire(Recorder()), Sink()
        wire.connection_made(sink)
        batches = [send(wire, say(b"1"), say(b"2")), send(wire, say(b"3")), send(wire, say(b"4"))]
        one, two, three = sink.marks
        stream = [b"+1\r\n", b"+2\r\n", one, b"+3\r\n", two, b"+4\r\n", three, b"$-1\r\n"]
        wire.data_received(b"".join(disturbed(stream, fault, at)[:-1]))
        wire.abandon(StoreUnavailable("closed", "the end"))
        own = [[b"1", b"2"], [b"3"], [b"4"]]
        is_unseen = (fault, at) == ("swapped", 0)
        for batch, replies in zip(batches, own, strict=True):
            (result,) = batch.calls
            if not is_unseen:
                assert isinstance(result, StoreUnavailable) or result == replies
        if at < 5 and not is_unseen:  # with later ones the stream ends before it shows
            assert wire.lost.result().kind == "reply"

    run(main())


def test_whatever_happens_to_replies() -> None:
    """However many replies are lost or doubled: nobody gets a reply of another batch.

    Nor one of another connection, which has marks of its own. A mark may be all that somebody
    gets, when another one was doubled as well: it answers nothing.
    """

    @given(
        st.lists(st.integers(1, 3), min_size=1, max_size=5),
        st.lists(st.sampled_from([0, 1, 1, 1, 2]), max_size=20),
        st.integers(0, 3),
    )
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def arrive(sizes: list[int], times: list[int], foreign: int) -> None:
        wire, sink, other, elsewhere = Wire(Recorder()), Sink(), Wire(Recorder()), Sink()
        wire.connection_made(sink)
        other.connection_made(elsewhere)
        settlements = [send(wire, *[say(b"")] * size) for size in sizes]
        for size in sizes:
            send(other, *[say(b"")] * size)
        stream = []
        for number, size in enumerate(sizes):
            mark = (elsewhere if number == foreign else sink).marks[number]
            stream += [*[b"+%d\r\n" % number] * size, mark]
        times += [1] * (len(stream) - len(times))
        wire.data_received(
            b"".join(reply * often for reply, often in zip(stream, times, strict=False))
        )
        wire.abandon(StoreUnavailable("closed", "the end"))
        for number, settlement in enumerate(settlements):
            (result,) = settlement.calls
            if isinstance(result, list):
                replies = {reply for reply in map(bytes, result) if not reply.startswith(b"mark:")}
                assert replies <= {b"%d" % number}
                assert number != foreign

    async def main() -> None:
        arrive()

    run(main())


def test_a_reply_that_looks_like_a_mark(redis_server: RedisServer) -> None:
    """A value that spells the mark of another batch is a value: it moves nothing."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            send(wire, say(b"1"))
            both = send(wire, say(b"mark:00000000.1"), say(b"1")), send(wire, say(b"2"))
            await settled(*both)
            assert both[0].replies == [b"mark:00000000.1", b"1"]
            assert both[1].replies == [b"2"]

    run(main())


def test_who_may_not_echo_is_told_why(start_redis: Callable[..., RedisServer]) -> None:
    """Where Redis refuses the mark as well, the first refusal is the reason that is given."""
    server = start_redis()
    with server.client() as client:
        client.config_set("requirepass", "secret")

    async def main() -> None:
        async with connected(server.socket) as wire:
            with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
                await wire.ask((b"AUTH", b"default", b"another"), say(b"1"))
            assert caught.value.kind == "auth"
            assert wire.lost.done()
        async with connected(server.socket) as wire:
            with pytest.raises(StoreUnavailable, match="NOAUTH") as caught:
                await wire.ask()
            assert caught.value.kind == "auth"

    run(main())


# Waiting.


def test_silence_is_not_slowness(proxy: RedisProxy) -> None:
    """A connection on which something comes is not silent, however long its oldest batch waits."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            assert not wire.is_waiting
            skip(9)
            assert not wire.is_silent_for(0.1), "nobody waits"
            proxy.plan(b"PING", Step.PASS, Step.HOLD)
            first = send(wire, say(b"1"))
            second = send(wire, say(b"2"))
            assert not wire.is_silent_for(0.1), "nobody waits for long"
            skip(1)
            assert wire.is_silent_for(0.9)
            await settled(first)
            await until(lambda: proxy.held, "the hold")
            assert wire.is_waiting
            assert wire.waits_longer_than(0.9)
            assert not wire.is_silent_for(0.9), "the other's reply has come"
            skip(1)
            assert wire.is_silent_for(0.9)
            assert not wire.is_silent_for(1.9)
            proxy.release()
            await settled(second)
            assert not wire.is_waiting
            assert not wire.is_silent_for(0)

    run(main())


# Asking.


def test_an_error_reply_is_raised(redis_server: RedisServer) -> None:
    """Asking gives all replies, or raises the first error reply with its kind and words."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            assert await wire.ask(say(b"1"), say(b"2")) == [b"1", b"2"]
            with pytest.raises(StoreUnavailable, match="WRONGPASS invalid") as caught:
                await wire.ask(say(b"1"), (b"AUTH", b"nobody", b"wrong"), (b"NONSENSE",))
            assert caught.value.kind == "auth"
            assert await wire.ask(say(b"3")) == [b"3"]

    run(main())


def test_a_cancelled_question_keeps_its_place(proxy: RedisProxy) -> None:
    """The reply to a question that was given up goes nowhere, and the next one to its own."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"PING", Step.HOLD)
            given_up = asyncio.create_task(wire.ask(say(b"1")))
            await until(lambda: proxy.held, "the hold")
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            next_one = send(wire, say(b"2"))
            proxy.release()
            await settled(next_one)
            assert next_one.replies == [b"2"]

    run(main())


def test_a_lost_connection_ends_a_question(proxy: RedisProxy) -> None:
    """A question that is never answered ends with the connection."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"PING", Step.CUT)
            with pytest.raises(StoreUnavailable) as caught:
                await wire.ask(say(b"1"))
            assert caught.value is wire.lost.result()

    run(main())


def test_a_password_is_not_quoted(redis_server: RedisServer) -> None:
    """Redis echoes the arguments of a command that it does not know; they are not told on."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            with pytest.raises(StoreUnavailable, match="unknown command") as caught:
                await wire.ask((b"XAUTH", b"default", b"pass,word"))
            assert "word" not in str(caught.value)
            assert "default" not in str(caught.value)

    run(main())


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("NOAUTH Authentication required.", "auth"),
        ("WRONGPASS invalid username-password pair", "auth"),
        ("NOPERM this user has no permissions", "auth"),
        ("READONLY You can't write against a read only replica.", "readonly"),
        ("MASTERDOWN Link with MASTER is down", "readonly"),
        ("OOM command not allowed", "oom"),
        ("OOM", "oom"),
        ("MISCONF Redis is configured to save", "misconf"),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("KATFENCE this server is not the primary", "fence"),
        ("NOSCRIPT No matching script.", "script"),
        ("ERR unknown command", "other"),
        ("oom", "other"),
        ("OOMPH", "other"),
        ("", "other"),
    ],
)
def test_kinds_of_error_replies(reply: str, kind: str) -> None:
    """An error reply is sorted by its first word, and what nobody knows is `other`."""
    assert error_kind(reply) == kind
