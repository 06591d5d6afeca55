"""One connection to Redis: replies in order, each to its own batch, and one end for all."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.stores import LOOPS, LoopFactory, Recorder, Settlement, run, settled, skip, until
from tokens.gate import Command, Reply
from tokens.wire import STALL_S, StoreUnavailable, Wire, error_kind


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[RedisProxy]:
    with (
        tempfile.TemporaryDirectory(prefix="kat-") as directory,
        RedisProxy(redis_server.socket, Path(directory)) as proxy,
    ):
        yield proxy


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


def echo(text: bytes) -> Command:
    return (b"ECHO", text)


# Replies.


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_each_batch_gets_its_own_replies(
    redis_server: RedisServer, loop_factory: LoopFactory
) -> None:
    """Three batches in flight get their replies in order: of every type, error replies too."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            one = send(wire, echo(b"1"), (b"NONSENSE",), (b"GET", b"absent"))
            two = send(wire, echo(b"2"))
            three = send(wire, (b"INCR", b"n"), (b"MGET", b"n", b"absent"), (b"SET", b"n", 7))
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
    b"#t\r\n": True,
    b"#f\r\n": False,  # no answer of RESP 2; but it is one reply, whatever it says
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


def test_however_the_bytes_arrive() -> None:
    """Any chunking of the replies settles the same batches with the same replies, in order."""

    @given(
        st.lists(st.lists(st.sampled_from([*REPLIES]), min_size=1, max_size=4), max_size=5),
        st.lists(st.integers(0, 200)),
    )
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def arrive(batches: list[list[bytes]], cuts: list[int]) -> None:
        wire = Wire(Recorder())
        wire.connection_made(Sink())
        settlements = [send(wire, *[echo(b"")] * len(batch)) for batch in batches]
        stream = b"".join(reply for batch in batches for reply in batch)
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
    """All commands of a batch leave in a single write, packed as RESP."""

    async def main() -> None:
        wire, sink = Wire(Recorder()), Sink()
        wire.connection_made(sink)
        send(wire, (b"SET", b"a", 1), (b"GET", b"a"))
        send(wire, echo(b"\r\n"))
        assert sink.writes == [
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
            b"*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n",
        ]

    run(main())


def test_late_replies_keep_their_place(proxy: RedisProxy) -> None:
    """Replies that come after everybody gave up go to whom they belong, and to nobody else."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"ECHO", Step.HOLD)
            late = send(wire, echo(b"1"), echo(b"2"))
            await until(lambda: proxy.held, "the reply is held")
            skip(STALL_S / 2)
            next_one = send(wire, echo(b"3"))
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
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    async def main() -> None:
        wire = Wire(recorder := Recorder())
        wire.connection_made(Sink())
        send(wire, echo(b""), echo(b""))
        now[0] += 0.0002
        send(wire, echo(b""))
        now[0] += 0.0001
        wire.data_received(b"+1\r\n")
        assert recorder.round_trips == []
        wire.data_received(b"+2\r\n+3\r\n")
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
            proxy.plan(b"ECHO", Step.HOLD, Step.PASS, step)
            waiting = [send(wire, echo(b"1"))]
            waiting += [send(wire, echo(b"2"), echo(b"3"), echo(b"4")), send(wire, echo(b"5"))]
            await until(lambda: proxy.held and proxy.count(b"ECHO") == 5, "the hold")
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
            before = send(wire, echo(b"1"))
            await asyncio.sleep(0)  # connection_lost
            await asyncio.sleep(0)
            after = send(wire, echo(b"1"))
            assert before.fault is after.fault is wire.lost.result()

    run(main(), loop_factory)


def test_who_is_told_may_send_again(redis_server: RedisServer) -> None:
    """A batch sent from within a settlement of a lost connection ends like the others."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            again: list[Settlement] = []
            wire.send([echo(b"1")], lambda _: again.append(send(wire, echo(b"2"))))
            last = send(wire, echo(b"3"))
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
}


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_the_connection(
    proxy: RedisProxy, garbage: bytes, loop_factory: LoopFactory
) -> None:
    """What is not RESP, or was not asked for, ends the connection; nothing behind it is used."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"ECHO", garbage + b"+later\r\n" * 3)
            first = send(wire, echo(b"1"))
            await until(wire.lost.done, "the end")
            late = send(wire, echo(b"1"))
            assert wire.lost.result().kind == late.fault.kind == "reply"
            is_behind_a_reply = garbage.startswith(b"+1")
            assert first.calls == ([[b"1"]] if is_behind_a_reply else [wire.lost.result()])

    run(main(), loop_factory)


def test_nothing_is_used_after_the_end() -> None:
    """A settlement that ends the connection ends it for the replies read with its own, too."""

    async def main() -> None:
        wire, sink = Wire(Recorder()), Sink()
        wire.connection_made(sink)
        wire.send([echo(b"")], lambda _: wire.abandon(StoreUnavailable("reply", "a mismatch")))
        neighbour = send(wire, echo(b""))
        wire.data_received(b"+1\r\n+2\r\n+3\r\n")
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
        wire = Wire(Recorder())
        wire.connection_made(Sink())

        def broken(_: object) -> None:
            raise TypeError("our own")

        wire.send([echo(b"")], broken)
        with pytest.raises(TypeError, match="our own"):
            wire.data_received(b"+1\r\n")

    run(main())


# The watch.


@pytest.mark.parametrize("waited_s", [STALL_S - 0.5, STALL_S + 0.1])
def test_a_stalled_connection_is_given_up(proxy: RedisProxy, waited_s: float) -> None:
    """The connection is given up when its oldest batch has waited too long, not before."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"ECHO", Step.HOLD)
            old = send(wire, echo(b"1"))
            skip(waited_s)
            new = send(wire, echo(b"2"))
            wire.watch()
            is_given_up = waited_s > STALL_S
            assert wire.lost.done() == old.is_settled == new.is_settled == is_given_up
            if is_given_up:
                assert [old.fault.kind, new.fault.kind] == ["timeout", "timeout"]
            await until(lambda: proxy.held or is_given_up, "the hold")
            assert proxy.count(b"PING") == 0

    run(main())


def test_an_idle_connection_is_asked(proxy: RedisProxy) -> None:
    """A connection without anything in flight is pinged; one in use is not; a lost one is not."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            wire.watch()
            wire.watch()
            await until(lambda: not wire.waits_longer_than(0), "the PONG")
            used = send(wire, echo(b"1"))
            wire.watch()
            await settled(used)
            assert [name for name, _ in proxy.commands] == [b"PING", b"ECHO"]
            wire.abandon(StoreUnavailable("closed", "a test"))
            wire.watch()
            assert not wire.waits_longer_than(0)

    run(main())


# Asking.


def test_an_error_reply_is_raised(redis_server: RedisServer) -> None:
    """Asking gives all replies, or raises the first error reply with its kind and words."""

    async def main() -> None:
        async with connected(redis_server.socket) as wire:
            assert await wire.ask(echo(b"1"), echo(b"2")) == [b"1", b"2"]
            with pytest.raises(StoreUnavailable, match="WRONGPASS invalid") as caught:
                await wire.ask(echo(b"1"), (b"AUTH", b"nobody", b"wrong"), (b"NONSENSE",))
            assert caught.value.kind == "auth"
            assert await wire.ask(echo(b"3")) == [b"3"]

    run(main())


def test_a_cancelled_question_keeps_its_place(proxy: RedisProxy) -> None:
    """The reply to a question that was given up goes nowhere, and the next one to its own."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"ECHO", Step.HOLD)
            given_up = asyncio.create_task(wire.ask(echo(b"1")))
            await until(lambda: proxy.held, "the hold")
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            next_one = send(wire, echo(b"2"))
            proxy.release()
            await settled(next_one)
            assert next_one.replies == [b"2"]

    run(main())


def test_a_lost_connection_ends_a_question(proxy: RedisProxy) -> None:
    """A question that is never answered ends with the connection."""

    async def main() -> None:
        async with connected(proxy.path) as wire:
            proxy.plan(b"ECHO", Step.CUT)
            with pytest.raises(StoreUnavailable) as caught:
                await wire.ask(echo(b"1"))
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
