"""The agent alone, between links and a Redis that do what the test says, on a loop of its own."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from typing import TYPE_CHECKING, cast

import pytest

from spoa.config.model import Limits
from spoa.counters import Counters
from spoa.spop.codec import Notify, decode_notify
from spoa.spop.constants import DataType
from spoa.worker.age import AgeGauge
from spoa.worker.agent import FLUSH_AT_ONCE, Agent
from spoa.worker.answers import Answers
from tests.support import frames
from tests.support.spop_client import Answer, Argument, address, check_http, now_ms, read_answer
from tokens.gate import MAX_TOKENS_PER_CALL, Command, Fence, Gate, Reply
from tokens.record import Keys
from tokens.token import mint
from tokens.wire import Settle, StoreUnavailable

if TYPE_CHECKING:
    from tokens.store import Store

RECORD = b'{"v":1,"sub":"user1","acl":["demo"],"ttl":60}'
DEADLINE_MS = 250
GIVE_UP_S = 5.0


class Link:
    """A connection to HAProxy that keeps what is written to it."""

    def __init__(self) -> None:
        self.is_open = True
        self.max_frame_bytes = 16380
        self.ages = AgeGauge()
        self.answers: list[Answer] = []
        self.writes: list[int] = []
        """How many ACKs each write held."""
        self._queue: list[bytes] = []
        self._ids = map(frames.ids, count())

    def queue(self, ack: bytes) -> None:
        self._queue.append(ack)

    def flush(self) -> None:
        self.writes.append(len(self._queue))
        self.answers += map(read_answer, self._queue)
        self._queue.clear()

    @property
    def reasons(self) -> list[str]:
        return [answer.reason for answer in self.answers]

    def notify(self, *messages: bytes) -> Notify:
        return decode_notify(next(self._ids) + b"".join(messages))

    def check(self, token: Argument = "", **changes: Argument) -> Notify:
        """Make a NOTIFY with our message, and with a token of its own unless one is given."""
        return self.notify(check_http(token=mint() if token == "" else token, **changes))

    def checks(self, number: int) -> list[Notify]:
        return [self.check() for _ in range(number)]


@dataclass
class ScriptedStore:
    """A Redis that replies when the test calls `settle`, or at once with `result`."""

    result: StoreUnavailable | None = None
    fence: Fence = field(default_factory=lambda: Fence(b"0" * 40, 0))
    batches: list[tuple[Sequence[Command], Settle]] = field(default_factory=list)
    distrusted: list[str] = field(default_factory=list)

    def execute(self, commands: Sequence[Command], settle: Settle) -> None:
        self.batches.append((commands, settle))
        if self.result is not None:
            settle(self.result)

    def distrust(self, kind: str, message: str) -> None:
        assert message
        self.distrusted.append(kind)

    @property
    def sizes(self) -> list[int]:
        """How many tokens each batch held."""
        return [sum(map(_tokens, commands)) for commands, _ in self.batches]

    def settle(self, index: int, judge: Callable[[Command], Reply]) -> None:
        commands, settle = self.batches[index]
        settle([judge(command) for command in commands])

    def allow(self, *indexes: int) -> None:
        for index in indexes:
            self.settle(index, reply)


def _tokens(command: Command) -> int:
    assert isinstance(command[2], int)
    return command[2]


def reply(command: Command, code: bytes = b"ok", detail: bytes = RECORD) -> list[Reply]:
    """Answer one script call as redeem.lua does, the same for all of its tokens."""
    keys = command[3 : 3 + _tokens(command)]
    assert all(isinstance(key, bytes) for key in keys)
    kids = [cast("bytes", key)[-64:][:12] for key in keys]
    return [now_ms(), *(value for kid in kids for value in (kid, code, detail))]


class Scene:
    """An agent, its store, and its counters."""

    def __init__(self, **limits: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.faults: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.counters = Counters(["demo"], 1)
        self.store = ScriptedStore()
        settings = Limits.model_validate({"deadline_ms": DEADLINE_MS, **limits})
        gate = Gate(["demo"], Keys(), settings.deadline_ms)
        pen = self.counters.worker(0)
        self.agent = Agent(gate, cast("Store", self.store), Answers(["demo"]), settings, pen)

    def decided(self, reason: str, acl: str = "demo") -> int:
        return self.counters.block(0)[0][self.counters.layout.request(acl, reason)]

    @property
    def in_flight(self) -> int:
        return self.counters.block(0)[0][self.counters.layout.in_flight]


def scene(test: Callable[[Scene], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Run the test on a loop, with an agent; what the loop catches fails it."""

    @wraps(test)
    def run() -> None:
        async def play() -> None:
            scene = Scene()
            await test(scene)
            assert not scene.faults

        asyncio.run(play())

    # pytest reads the signature of what is wrapped, and would look for a fixture `scene`.
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


async def turn() -> None:
    """Let the loop finish this turn."""
    await asyncio.sleep(0)


# --- The batch of the turn -----------------------------------------------------------------------


@scene
async def test_one_turn_is_one_batch(scene: Scene) -> None:
    """What two connections ask in one turn goes to Redis at once, and to each in one write."""
    one, other = Link(), Link()
    scene.agent.receive(one, one.checks(1))
    scene.agent.receive(other, other.checks(2))
    assert scene.store.batches == []
    await turn()
    assert scene.store.sizes == [3]
    scene.store.allow(0)
    assert (one.reasons, other.reasons) == (["ok"], ["ok", "ok"])
    assert (one.writes, other.writes) == ([1], [2])


@scene
async def test_a_turn_of_one_waits_for_no_other(scene: Scene) -> None:
    """A lone request is with Redis when its turn ends."""
    link = Link()
    scene.agent.receive(link, link.checks(1))
    await turn()
    assert scene.store.sizes == [1]


@scene
async def test_many_do_not_wait_for_the_turn(scene: Scene) -> None:
    """As soon as a read brings FLUSH_AT_ONCE, Redis gets them; what follows is a new batch."""
    link = Link()
    scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
    assert scene.store.sizes == [FLUSH_AT_ONCE]
    scene.agent.receive(link, link.checks(1))
    await turn()
    assert scene.store.sizes == [FLUSH_AT_ONCE, 1]
    await turn()
    assert len(scene.store.batches) == 2


@scene
async def test_a_large_batch_is_split_into_calls(scene: Scene) -> None:
    """One write to Redis holds as many script calls as it takes, no call too many tokens."""
    link = Link()
    scene.agent.receive(link, link.checks(300))
    ((commands, _),) = scene.store.batches
    assert max(map(_tokens, commands)) <= MAX_TOKENS_PER_CALL
    assert scene.store.sizes == [300]
    scene.store.allow(0)
    assert link.reasons == ["ok"] * 300
    assert link.writes == [300]


@scene
async def test_batches_may_come_back_in_any_order(scene: Scene) -> None:
    """Each request gets its own answer, whichever batch Redis finishes first."""
    link = Link()
    notifies = [link.checks(FLUSH_AT_ONCE) for _ in range(3)]
    for batch in notifies:
        scene.agent.receive(link, batch)
    scene.store.allow(2)
    scene.store.settle(0, lambda command: reply(command, b"replayed", b"1 192.0.2.7"))
    scene.store.settle(1, lambda command: reply(command, b"unknown", b""))
    expected = {
        notify.ids: reason
        for batch, reason in zip(notifies, ("replayed", "unknown", "ok"), strict=True)
        for notify in batch
    }
    assert {answer.ids: answer.reason for answer in link.answers} == expected
    assert len(link.answers) == len(expected)


# --- What is asked -------------------------------------------------------------------------------

OTHER = frames.message(b"other", (b"acl", frames.string(b"demo")))

NOT_OURS: dict[str, Callable[[], list[bytes]]] = {
    "no message": list,
    "another message": lambda: [OTHER],
    "twice": lambda: [check_http(token=mint()), check_http(token=mint())],
    "twice, first without arguments": lambda: [
        frames.message(b"check-http"),
        check_http(token=mint()),
    ],
    "twice, then without arguments": lambda: [
        check_http(token=mint()),
        frames.message(b"check-http"),
    ],
    "without arguments": lambda: [frames.message(b"check-http")],
    "in capitals": lambda: [frames.message(b"CHECK-HTTP", (b"acl", frames.string(b"demo")))],
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_a_notify_without_one_message_of_ours(case: str) -> None:
    """It is answered `unknown_message`, counted, and its tokens stay whole."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, [link.notify(*NOT_OURS[case]())])
        await turn()
        assert link.reasons == ["unknown_message"]
        assert scene.store.batches == []
        assert scene.decided("unknown_message", "(unknown)") == 1

    play()


@scene
async def test_other_messages_and_arguments_do_not_disturb(scene: Scene) -> None:
    """Ours is found among others, and read by name among arguments that nobody knows."""
    link = Link()
    ours = check_http(token=mint(), colour="green", **{"": None, "Token": "x"})
    scene.agent.receive(link, [link.notify(OTHER, ours, OTHER)])
    await turn()
    scene.store.allow(0)
    assert link.reasons == ["ok"]


@scene
async def test_arguments_reach_redis_unchanged(scene: Scene) -> None:
    """What HAProxy says of a request is what redeem.lua is asked about: bytes, not text."""
    link = Link()
    path, host = b"/\xff\x00 x", b"app.example\xe4"
    scene.agent.receive(link, [link.check(path=path, host=host, method="PUT", nonce="n" * 64)])
    await turn()
    ((command,), _) = scene.store.batches[0]
    claim, acl, src, *rest = command[-8:]
    assert claim
    assert acl == b"demo"
    assert src == b"192.0.2.7 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8"
    assert rest[:4] == [host, b"PUT", path, b"n" * 64]


MISTYPED: dict[str, tuple[dict[str, Argument], str]] = {
    "token int": ({"token": 7}, "missing"),
    "token bool": ({"token": frames.boolean(value=True)}, "missing"),
    "token NULL": ({"token": None}, "missing"),
    "token empty": ({"token": b""}, "missing"),
    "token address": ({"token": address("192.0.2.7")}, "missing"),
    "token rubbish": ({"token": b"\xff\x00"}, "malformed"),
    "acl int": ({"acl": 7}, "unknown_acl"),
    "acl NULL": ({"acl": None}, "unknown_acl"),
    "acl empty": ({"acl": ""}, "unknown_acl"),
    "acl not configured": ({"acl": "other"}, "unknown_acl"),
    "acl with NUL": ({"acl": "demo\0"}, "unknown_acl"),
    "acl in capitals": ({"acl": "DEMO"}, "unknown_acl"),
    "acl address": ({"acl": frames.typed(DataType.IPV4, b"demo")}, "unknown_acl"),
}


@pytest.mark.parametrize("case", MISTYPED)
def test_an_argument_of_the_wrong_type_is_absent(case: str) -> None:
    """It is refused for what is missing then, without asking Redis, and counted as that."""
    changes, reason = MISTYPED[case]

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, [link.notify(check_http(**{"token": mint(), **changes}))])
        assert link.reasons == [reason]
        await turn()
        assert scene.store.batches == []
        assert scene.decided(reason, "(unknown)" if "acl" in changes else "demo") == 1

    play()


@scene
async def test_an_absent_acl_is_refused(scene: Scene) -> None:
    """A message that does not name its ACL is `unknown_acl`."""
    link = Link()
    scene.agent.receive(link, [link.notify(check_http(without="acl", token=mint()))])
    assert link.reasons == ["unknown_acl"]


@pytest.mark.parametrize("src", ["192.0.2.7", 3221225991, None, frames.string(b"\xc0\x00\x02\x07")])
def test_a_source_that_is_no_address_is_nobody(src: Argument) -> None:
    """A bound token must not match a text that looks like its address: none is offered."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, [link.check(src=src)])
        await turn()
        ((command,), _) = scene.store.batches[0]
        assert command[-6] == b""

    play()


# --- Bounds --------------------------------------------------------------------------------------


@scene
async def test_above_in_flight_the_answer_is_overloaded_at_once(scene: Scene) -> None:
    """The bound is exact, refuses without a stall, and is free again after the answers."""
    scene = Scene(in_flight=5)
    link = Link()
    scene.agent.receive(link, link.checks(8))
    assert link.reasons == ["overloaded"] * 3
    await turn()
    assert scene.store.sizes == [5]
    scene.agent.receive(link, link.checks(1))
    assert link.reasons == ["overloaded"] * 4
    scene.store.allow(0)
    assert link.reasons == ["overloaded"] * 4 + ["ok"] * 5
    scene.agent.receive(link, link.checks(5))
    await turn()
    assert scene.store.sizes == [5, 5]
    assert scene.decided("overloaded") == 4


@scene
async def test_what_is_refused_without_redis_takes_no_place(scene: Scene) -> None:
    """However many malformed tokens come, nothing is in flight."""
    scene = Scene(in_flight=5)
    link = Link()
    scene.agent.receive(link, [link.check("kat_nonsense") for _ in range(300)])
    assert link.reasons == ["malformed"] * 300
    assert link.writes == [300]
    await asyncio.wait_for(scene.agent.drain(), GIVE_UP_S)
    assert scene.in_flight == 0


@scene
async def test_the_room_follows_the_agreed_frame(scene: Scene) -> None:
    """redeem.lua is told how long the answer may be on this very connection."""
    small, large = Link(), Link()
    small.max_frame_bytes = 256
    scene.agent.receive(small, small.checks(1))
    scene.agent.receive(large, large.checks(1))
    await turn()
    ((command,), _) = scene.store.batches[0]
    rooms = command[-9], command[-1]
    answers = Answers(["demo"])
    assert rooms == (answers.room_bytes(256), answers.room_bytes(16380))


# --- Deadlines -----------------------------------------------------------------------------------


@scene
async def test_an_old_message_is_answered_deadline(scene: Scene) -> None:
    """What HAProxy gave up on, by its own time stamp, never reaches Redis."""
    link = Link()
    fresh, old = link.check(), link.check(at=now_ms() - DEADLINE_MS - 50)
    young = link.check(at=now_ms() - DEADLINE_MS // 4)
    scene.agent.receive(link, [fresh, old, young])
    await turn()
    assert link.reasons == ["deadline"]
    assert link.answers[0].ids == old.ids
    assert "kid" not in link.answers[0].variables
    assert scene.store.sizes == [2]
    assert scene.decided("deadline") == 1
    assert scene.in_flight == 2


@pytest.mark.parametrize(
    "at",
    [None, "", "1800000000000", frames.boolean(value=True), address("192.0.2.7")],
    ids=["NULL", "empty", "text", "bool", "address"],
)
def test_a_time_stamp_of_the_wrong_type_is_no_time(at: Argument) -> None:
    """It makes its message neither old nor the measure for those that follow."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, [link.check(), link.check(at=at)])
        await turn()
        assert scene.store.sizes == [2]
        scene.agent.receive(link, [link.check(at=now_ms() - DEADLINE_MS - 50)])
        await turn()
        assert link.reasons == ["deadline"]

    play()


@scene
async def test_a_stall_between_reading_and_writing_counts(scene: Scene) -> None:
    """A loop that stood still past the deadline sends nothing that it had read before."""
    link, gone = Link(), Link()
    scene.agent.receive(link, link.checks(2))
    scene.agent.receive(gone, gone.checks(1))
    gone.is_open = False
    time.sleep(1.5 * DEADLINE_MS / 1000)  # noqa: ASYNC251 - it is the loop that shall stand still
    await turn()
    assert scene.store.batches == []
    assert link.reasons == ["deadline", "deadline"]
    assert gone.answers == []
    await asyncio.wait_for(scene.agent.drain(), GIVE_UP_S)


@scene
async def test_no_reply_in_time_is_store_unavailable(scene: Scene) -> None:
    """It is answered at the deadline and once: what Redis says later is heard by nobody."""
    link = Link()
    began = scene.loop.time()
    scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
    await asyncio.wait_for(scene.agent.drain(), GIVE_UP_S)
    assert scene.loop.time() - began >= DEADLINE_MS / 1000
    assert link.reasons == ["store_unavailable"] * FLUSH_AT_ONCE
    assert scene.store.distrusted == ["timeout"]
    assert scene.in_flight == 0
    scene.store.allow(0)
    assert len(link.answers) == FLUSH_AT_ONCE


# --- Links that go -------------------------------------------------------------------------------


@scene
async def test_who_left_before_the_flush_keeps_the_token(scene: Scene) -> None:
    """Nothing is consumed for a connection that is closed by the end of its turn."""
    gone, stays = Link(), Link()
    scene.agent.receive(gone, gone.checks(2))
    scene.agent.receive(stays, stays.checks(1))
    gone.is_open = False
    await turn()
    assert scene.store.sizes == [1]
    scene.store.allow(0)
    assert stays.reasons == ["ok"]
    assert gone.answers == []
    assert scene.in_flight == 0


@scene
async def test_only_leavers_leave_nothing(scene: Scene) -> None:
    """When all are gone Redis is not asked, and the agent is idle."""
    link = Link()
    scene.agent.receive(link, link.checks(2))
    link.is_open = False
    await turn()
    assert scene.store.batches == []
    await asyncio.wait_for(scene.agent.drain(), GIVE_UP_S)


# --- Redis in trouble ----------------------------------------------------------------------------


@scene
async def test_a_store_that_cannot_is_told_at_once(scene: Scene) -> None:
    """Without a connection the answer is in the turn of the question."""
    link = Link()
    scene.store.result = StoreUnavailable("connect", "not connected yet")
    scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
    assert link.reasons == ["store_unavailable"] * FLUSH_AT_ONCE
    scene.agent.receive(link, link.checks(1))
    await turn()
    assert len(link.answers) == FLUSH_AT_ONCE + 1
    assert scene.decided("store_unavailable") == FLUSH_AT_ONCE + 1


def _hole(command: Command) -> Reply:
    return reply(command)[:-3]


def _neighbour(command: Command) -> Reply:
    now, *rest = reply(command)
    return [now, *rest[3:], *rest[:3]]


@pytest.mark.parametrize(
    "judge",
    [
        _hole,
        _neighbour,
        lambda _: b"OK",
        lambda _: None,
        lambda _: [],
        lambda command: reply(command, b"sure"),
        lambda command: [*reply(command)[:-1], 7],
    ],
    ids=["cut short", "kids moved", "a text", "null", "empty", "unknown code", "detail a number"],
)
def test_a_reply_that_fits_no_question_is_believed_by_nobody(
    judge: Callable[[Command], Reply],
) -> None:
    """The whole batch is refused, whatever parts of it look right, and the connection goes."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
        scene.store.settle(0, judge)
        assert link.reasons == ["store_unavailable"] * FLUSH_AT_ONCE
        assert scene.store.distrusted == ["reply"]

    play()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed", "oom"),
        ("READONLY You can't write", "readonly"),
        ("KATFENCE moved", "fence"),
        ("ERR whatever", "other"),
    ],
)
def test_an_error_reply_is_store_unavailable(text: str, kind: str) -> None:
    """An error for a whole call, or for one token in it, admits nobody and is told by its kind."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        for _ in range(2):
            scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
        scene.store.settle(0, lambda _: Exception(text))
        first_word = text.partition(" ")[0].encode()
        scene.store.settle(1, lambda command: reply(command, b"store_error", first_word))
        assert link.reasons == ["store_unavailable"] * 2 * FLUSH_AT_ONCE
        assert scene.store.distrusted == [kind, kind]

    play()


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", RECORD[:-1], RECORD.replace(b"v", b"w")])
def test_a_yes_with_an_unreadable_record_is_no_yes(raw: bytes) -> None:
    """`ok` from Redis admits only with a record that reads strictly."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, link.checks(1))
        await turn()
        scene.store.settle(0, lambda command: reply(command, detail=raw))
        assert link.reasons == ["bad_record"]
        assert not link.answers[0].is_ok

    play()


# --- Draining ------------------------------------------------------------------------------------


@scene
async def test_drain_waits_for_what_is_in_flight(scene: Scene) -> None:
    """It returns when the last answer is written, and at once when there is nothing."""
    await asyncio.wait_for(scene.agent.drain(), GIVE_UP_S)
    link = Link()
    for _ in range(2):
        scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
    draining = asyncio.create_task(scene.agent.drain())
    scene.store.allow(1)
    await turn()
    assert not draining.done()
    scene.store.allow(0)
    await asyncio.wait_for(draining, GIVE_UP_S)
    assert len(link.answers) == 2 * FLUSH_AT_ONCE


@scene
async def test_drain_does_not_wait_for_a_silent_redis(scene: Scene) -> None:
    """At the deadline everything is answered, so draining ends then."""
    link = Link()
    scene.agent.receive(link, link.checks(1))
    await asyncio.wait_for(scene.agent.drain(), GIVE_UP_S)
    assert link.reasons == ["store_unavailable"]


# --- Counting ------------------------------------------------------------------------------------


@scene
async def test_every_answer_is_counted_once(scene: Scene) -> None:
    """Decisions, latencies and batches add up to what was asked."""
    link = Link()
    asked = [*link.checks(5), link.check(None), link.check("kat_x"), link.check(acl="other")]
    scene.agent.receive(link, asked)
    await turn()
    scene.store.allow(0)
    cells, _ = scene.counters.block(0)
    layout = scene.counters.layout
    assert len(link.answers) == 8
    assert scene.decided("ok") == 5
    assert scene.decided("missing") == scene.decided("malformed") == 1
    assert scene.decided("unknown_acl", "(unknown)") == 1
    assert sum(cells[layout.requests : layout.latency]) == 8
    assert sum(cells[layout.latency : layout.redis - 1]) == 8
    assert sum(cells[layout.batch : layout.store_errors - 1]) == 1
