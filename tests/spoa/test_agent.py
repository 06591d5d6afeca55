"""The agent alone: who is asked about what, who is answered when, and that it is once."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import redis

from spoa.spop.codec import Notify
from spoa.spop.constants import DataType
from spoa.worker.agent import FLUSH_AT_ONCE, NOTE_AT_ONCE
from spoa.worker.answers import Answers
from tests.support import frames
from tests.support.agents import (
    DEADLINE_MS,
    GIVE_UP_S,
    KEYS,
    PATIENT_MS,
    RECORD,
    Asked,
    Link,
    Scene,
    claims,
    hasty,
    idle,
    issue,
    limited,
    reply,
    scene,
    turn,
    until_noted,
    waiting_generators,
)
from tests.support.asking import Asker
from tests.support.spop_client import (
    Argument,
    address,
    check_http,
    check_tcp,
    logout,
    now_ms,
)
from tokens.policy import cut
from tokens.policy.redeem import MAX_TOKENS_PER_CALL
from tokens.question import Question, Reply
from tokens.store.wire import StoreUnavailable
from tokens.token import digest, mint

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
    (asked,) = scene.store.batches
    assert max(len(claims(call)) for call in asked.calls) <= MAX_TOKENS_PER_CALL
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
    first, second, third = scene.store.batches
    third.allow()
    first.judge(lambda call: reply(call, b"replayed", b"1 192.0.2.7"))
    second.judge(lambda call: reply(call, b"unknown", b""))
    expected = {
        notify.ids: reason
        for batch, reason in zip(notifies, ("replayed", "unknown", "ok"), strict=True)
        for notify in batch
    }
    assert {answer.ids: answer.reason for answer in link.answers} == expected
    assert len(link.answers) == len(expected)


# --- What is asked -------------------------------------------------------------------------------

OTHER = frames.message(b"other", (b"acl", frames.string(b"demo")))
SESSION = "s" * 43

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
    "two of different names": lambda: [check_http(token=mint()), check_tcp("demo")],
    "a check and a logout": lambda: [check_http(token=mint()), logout("wiki", SESSION)],
    "a logout and a check": lambda: [logout("wiki", SESSION), check_tcp("ssh")],
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
        assert scene.store.asked == []
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
    (call,) = scene.store.batches[0].calls
    claim, acl, src, *rest = call.tail[-8:]
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
    nameless = check_http(without="acl", token=mint())
    await scene.ask(link, link.notify(nameless), link.notify(frames.message(b"check-http")))
    assert link.reasons == ["unknown_acl", "unknown_acl"]
    assert scene.store.asked == []


@pytest.mark.parametrize("src", ["192.0.2.7", 3221225991, None, frames.string(b"\xc0\x00\x02\x07")])
def test_a_source_that_is_no_address_is_nobody(src: Argument) -> None:
    """A bound token must not match a text that looks like its address: none is offered."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, [link.check(src=src)])
        await turn()
        (call,) = scene.store.batches[0].calls
        assert call.tail[-6] == b""

    play()


# --- Bounds --------------------------------------------------------------------------------------


@limited(in_flight=5)
async def test_above_in_flight_the_answer_is_overloaded_at_once(scene: Scene) -> None:
    """The bound is exact, refuses without a stall, and is free again after the answers."""
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


@limited(in_flight=5)
async def test_what_is_refused_without_redis_takes_no_place(scene: Scene) -> None:
    """However many malformed tokens come, nothing is in flight."""
    link = Link()
    scene.agent.receive(link, [link.check("kat_nonsense") for _ in range(300)])
    assert link.reasons == ["malformed"] * 300
    assert link.writes == [300]
    await idle(scene)
    assert scene.in_flight == 0


@scene
async def test_the_room_follows_the_agreed_frame(scene: Scene) -> None:
    """redeem.lua is told how long the answer may be on this very connection."""
    small, large = Link(), Link()
    small.max_frame_bytes = 256
    scene.agent.receive(small, small.checks(1))
    scene.agent.receive(large, large.checks(1))
    await turn()
    (call,) = scene.store.batches[0].calls
    rooms = int(call.tail[-9]), int(call.tail[-1])
    answers = Answers(["demo"])
    assert rooms == (answers.room_bytes(256), answers.room_bytes(16380))


# --- Deadlines -----------------------------------------------------------------------------------


@hasty
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


@hasty
async def test_what_is_refused_at_once_tells_of_the_clock(scene: Scene) -> None:
    """A message without a token is as good a measure of the ages of others as any."""
    link = Link()
    scene.agent.receive(link, [link.check(None)])
    scene.agent.receive(link, [link.check(at=now_ms() - DEADLINE_MS - 50)])
    await turn()
    assert link.reasons == ["missing", "deadline"]


@pytest.mark.parametrize(
    "at",
    [None, "", "1800000000000", frames.boolean(value=True), address("192.0.2.7")],
    ids=["NULL", "empty", "text", "bool", "address"],
)
def test_a_time_stamp_of_the_wrong_type_is_no_time(at: Argument) -> None:
    """It makes its message neither old nor the measure for those that follow."""

    @hasty
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, [link.check(), link.check(at=at)])
        await turn()
        assert scene.store.sizes == [2]
        scene.agent.receive(link, [link.check(at=now_ms() - DEADLINE_MS - 50)])
        await turn()
        assert link.reasons == ["deadline"]

    play()


@hasty
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
    await idle(scene)


@hasty
async def test_no_reply_in_time_is_store_unavailable(scene: Scene) -> None:
    """It is answered at the deadline and once: what Redis says later is heard by nobody."""
    link = Link()
    began = scene.loop.time()
    scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
    await idle(scene)
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
    await idle(scene)


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


def _hole(call: Question) -> Reply:
    return reply(call)[:-3]


def _neighbour(call: Question) -> Reply:
    now, claim, *rest = reply(call)
    return [now, claim, *rest[3:], *rest[:3]]


@pytest.mark.parametrize(
    "judge",
    [
        _hole,
        _neighbour,
        lambda _: b"OK",
        lambda _: None,
        lambda _: [],
        lambda call: [*reply(call)[:1], b"another claim", *reply(call)[2:]],
        lambda call: reply(call, b"sure"),
        lambda call: reply(call, b"ok"),
        lambda call: [*reply(call)[:-1], 7],
    ],
    ids=[
        *("cut short", "kids moved", "a text", "null", "empty", "another claim"),
        *("unknown code", "yes without a time", "detail a number"),
    ],
)
def test_a_reply_that_fits_no_question_is_believed_by_nobody(
    judge: Callable[[Question], Reply],
) -> None:
    """The whole batch is refused, whatever parts of it look right, and the connection goes."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
        scene.store.batches[0].judge(judge)
        assert link.reasons == ["store_unavailable"] * FLUSH_AT_ONCE
        assert scene.store.distrusted == ["reply"]
        assert scene.in_flight == 0

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
        one, other = scene.store.batches
        one.judge(lambda _: Exception(text))
        first_word = text.partition(" ")[0].encode()
        other.judge(lambda call: reply(call, b"store_error", first_word))
        assert link.reasons == ["store_unavailable"] * 2 * FLUSH_AT_ONCE
        assert scene.store.distrusted == [kind, kind]

    play()


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (Exception("KATFENCE moved"), "fence"),
        (Exception("NOPERM no"), "auth"),
        (Exception("WRONGTYPE no hash"), "cut"),
        (None, "reply"),
        (b"OK", "reply"),
        ([], "reply"),
        ([1, b"", [b"v"]], "reply"),
    ],
    ids=["moved", "no permission", "no hash", "null", "a text", "empty", "half a field"],
)
def test_who_cannot_know_what_is_revoked_says_no(last: Reply, kind: str) -> None:
    """Without the time and the cuts nothing of a batch is believed, and the store hears why."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
        (asked,) = scene.store.batches
        asked.settle([*(reply(call) for call in asked.calls), last])
        assert link.reasons == ["store_unavailable"] * FLUSH_AT_ONCE
        assert scene.store.distrusted == [kind]
        assert scene.in_flight == 0

    play()


@hasty
async def test_a_store_that_gives_all_up_answers_nobody_twice(scene: Scene) -> None:
    """`distrust` may fail whatever waits, the very batch that it is about, too: each once."""
    link = Link()
    for _ in range(3):
        scene.agent.receive(link, link.checks(FLUSH_AT_ONCE))
    waiting = scene.store.batches

    def give_up(kind: str, message: str) -> None:
        while waiting:
            waiting.pop().settle(StoreUnavailable(kind, message))

    scene.store.distrust = give_up  # type: ignore[method-assign]
    await idle(scene)
    assert len(link.answers) == 3 * FLUSH_AT_ONCE
    assert scene.in_flight == 0


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", RECORD[:-1], RECORD.replace(b"v", b"w")])
def test_a_yes_with_an_unreadable_record_is_no_yes(raw: bytes) -> None:
    """`ok` from Redis admits only with a record that reads strictly."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        scene.agent.receive(link, link.checks(1))
        await turn()
        scene.store.batches[0].judge(lambda call: reply(call, detail=raw))
        assert link.reasons == ["bad_record"]
        assert not link.answers[0].is_ok

    play()


# --- What needs no token -------------------------------------------------------------------------


def test_an_address_is_judged_by_its_grant(client: redis.Redis) -> None:
    """check-tcp: a grant that stands lets its address in, and nobody by name; none, no one."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        client.zadd(KEYS.grants(b"ssh").decode(), {"192.0.2.0/24": now_ms() + 60_000})
        for src in ("192.0.2.7", "198.51.100.7"):
            await scene.ask(link, link.notify(check_tcp("ssh", src=address(src))))
        for asked in scene.store.batches:
            assert asked.is_repeatable
            asked.ask(asker)
        assert link.reasons == ["grant", "no_grant"]
        assert [answer.is_ok for answer in link.answers] == [True, False]
        assert "user" not in link.answers[0].variables
        assert scene.store.notes == []

    play()


def test_a_token_where_only_addresses_count_stays_whole(client: redis.Redis) -> None:
    """In mode ip a token is not looked at; in ip+token only once the grant is known to stand."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker, token = Link(), Asker(client), issue(client)
        await scene.ask(link, *(link.check(token, acl=acl) for acl in ("ssh", "vault")))
        (asked,) = scene.store.batches
        asked.ask(asker)
        assert asked.calls == []
        assert link.reasons == ["no_grant", "no_grant"]
        client.zadd(KEYS.grants(b"vault").decode(), {"192.0.2.7": now_ms() + 60_000})
        await scene.ask(link, link.check(token, acl="vault"))
        first = scene.store.batches[1]
        first.ask(asker)
        second = scene.store.batches[2]
        assert (first.tokens, second.tokens) == (0, 1)
        assert (second.give_up_at, second.is_repeatable) == (first.give_up_at, True)
        second.ask(asker)
        assert link.reasons[2:] == ["ok"]
        assert scene.in_flight == 0

    play()


def test_logout_ends_the_session(client: redis.Redis) -> None:
    """The visitor is answered when the session is gone; its place in a list is nobody's wait."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        session = await open_session(scene, link, asker, issue(client))
        assert client.zcard(KEYS.sub(b"user1").decode()) == 1
        await scene.ask(link, link.notify(logout("wiki", session)))
        scene.store.batches[-1].ask(asker)
        assert link.reasons[-1] == "logged_out"
        assert not link.answers[-1].is_ok
        assert scene.in_flight == 0
        await until_noted(scene)
        scene.store.notes[-1].ask(asker)
        assert client.zcard(KEYS.sub(b"user1").decode()) == 0
        await scene.ask(link, link.check(None, acl="wiki", session=session))
        scene.store.batches[-1].ask(asker)
        assert link.reasons[-1] == "session_expired"

    play()


@scene
async def test_who_has_no_session_is_logged_out_already(scene: Scene) -> None:
    """What cannot be a session's id is never looked up, and its owner is out."""
    link = Link()
    for session in (None, "", "x", 7, b"\xff" * 43):
        await scene.ask(link, link.notify(logout("wiki", session)))
    await scene.ask(link, link.notify(logout("other", SESSION)))
    assert link.reasons == ["logged_out"] * 5 + ["unknown_acl"]
    assert scene.store.asked == []


# --- What is opened ------------------------------------------------------------------------------


def opener(link: Link, token: Argument, acl: str = "wiki") -> Notify:
    """Make a browser's NOTIFY, whose token opens something."""
    return link.check(token, acl=acl, via="query")


async def open_session(scene: Scene, link: Link, asker: Asker, token: str) -> bytes:
    """Have a token open a session; return the session's id."""
    await scene.ask(link, opener(link, token))
    for _ in range(2):
        scene.store.batches[-1].ask(asker)
    session = link.answers[-1].variables["session"]
    assert isinstance(session, bytes)
    return session


def test_a_session_is_announced_once_it_is_written(client: redis.Redis) -> None:
    """Who opens nothing is answered first; who opens, when Redis has confirmed the write."""

    @scene
    async def play(scene: Scene) -> None:
        browser, program, asker = Link(), Link(), Asker(client)
        first, second = browser.check(issue(client)), opener(browser, issue(client))
        scene.agent.receive(browser, [first, second])
        await scene.ask(program, program.check(issue(client)))
        scene.store.batches[0].ask(asker)
        assert (program.reasons, browser.reasons) == (["ok"], ["ok"])
        assert browser.answers[0].ids == first.ids
        assert scene.in_flight == 1
        assert list(client.scan_iter("kat:s:*")) == []
        judged, opening = scene.store.batches
        assert (judged.is_repeatable, opening.is_repeatable) == (True, False)
        assert opening.give_up_at == judged.give_up_at
        assert opening.commands == ["ZADD", "ZREMRANGEBYSCORE", "EXPIRE", "SET", "XADD", "cut"]
        opening.ask(asker)
        assert browser.reasons == ["ok", "ok"]
        assert browser.answers[1].ids == second.ids
        assert (browser.writes, program.writes) == ([1, 1], [1])
        assert scene.in_flight == 0
        assert scene.opened == (1, 0)
        session = browser.answers[1].variables["session"]
        assert isinstance(session, bytes)
        assert client.exists(KEYS.session(digest(session)))
        assert client.zcard(KEYS.sub(b"user1").decode()) == 1

    play()


def test_a_grant_is_announced_once_it_is_written(client: redis.Redis) -> None:
    """A consumed token in mode grant opens its address, and is answered behind that."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        await scene.ask(link, link.check(issue(client), acl="office"))
        scene.store.batches[0].ask(asker)
        assert link.answers == []
        scene.store.batches[1].ask(asker)
        assert link.reasons == ["ok"]
        assert "session" not in link.answers[0].variables
        assert scene.opened == (0, 1)
        assert client.zscore(KEYS.grants(b"office").decode(), "192.0.2.7")
        assert scene.in_flight == 0

    play()


@pytest.mark.parametrize("acl", ["wiki", "office"])
@pytest.mark.parametrize("place", range(3))
def test_an_opening_that_redis_refuses_is_a_no(acl: str, place: int, client: redis.Redis) -> None:
    """Whichever of its writes fails, the visitor gets `store_unavailable`, and nothing stands."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        await scene.ask(link, opener(link, issue(client), acl))
        scene.store.batches[0].ask(asker)
        opening = scene.store.batches[1]
        replies = asker.answer(opening.questions)
        replies[place] = Exception("OOM command not allowed when used memory > 'maxmemory'.")
        opening.settle(replies)
        undoing = scene.store.batches[2]
        assert not undoing.is_repeatable
        undoing.ask(asker)
        assert link.reasons == ["store_unavailable"]
        assert "session" not in link.answers[0].variables
        assert scene.store.distrusted == ["oom"]
        assert list(client.scan_iter("kat:s:*")) == []
        assert not client.zcard(KEYS.grants(b"office").decode())
        assert scene.opened == (0, 0)
        assert scene.in_flight == 0

    play()


@hasty
async def test_an_opening_that_nobody_confirms_ends_at_the_deadline(scene: Scene) -> None:
    """Redis silent: `store_unavailable` in time, nothing announced; a late reply says no more."""
    link = Link()
    began = scene.loop.time()
    await scene.ask(link, opener(link, mint()), link.check())
    scene.store.allow(0)
    assert link.reasons == ["ok"]
    await idle(scene)
    assert scene.loop.time() - began >= DEADLINE_MS / 1000
    assert link.reasons == ["ok", "store_unavailable"]
    assert "session" not in link.answers[1].variables
    assert scene.store.distrusted == ["timeout"]
    scene.store.allow(1)
    assert len(link.answers) == 2
    assert scene.opened == (0, 0)
    assert scene.in_flight == 0


@scene
async def test_an_opening_without_a_store_is_a_no_at_once(scene: Scene) -> None:
    """A connection that is lost between the two writes costs a login, never an open question."""
    link = Link()
    await scene.ask(link, opener(link, mint()), opener(link, mint(), "office"))
    scene.store.result = StoreUnavailable("closed", "Redis closed the connection")
    scene.store.allow(0)
    assert link.reasons == ["store_unavailable"] * 2
    assert scene.in_flight == 0
    assert scene.audit_lost == 1  # it went the same way


@hasty
async def test_a_late_neighbour_shortens_no_opening(scene: Scene) -> None:
    """Nothing is consumed once one of a batch is too late; but what is consumed may be opened."""
    link = Link()
    late_ms = DEADLINE_MS // 2
    await scene.ask(link, link.check())
    await scene.ask(link, opener(link, mint()), opener(link, mint(), "office"))
    await scene.ask(
        link, opener(link, mint()), link.check(mint(), at=now_ms() - late_ms, acl="office")
    )
    _, prompt, mixed = scene.store.batches
    assert mixed.give_up_at < prompt.give_up_at - late_ms / 2000
    scene.store.allow(1, 2)
    *_, of_prompt, of_mixed = scene.store.batches
    assert of_mixed.give_up_at >= of_prompt.give_up_at
    scene.store.allow(0, 3, 4)
    assert link.reasons == ["ok"] * 5


_LOST = StoreUnavailable("closed", "Redis closed the connection")

UNCONFIRMED: dict[str, Callable[[Asked], object]] = {
    "silence": lambda _: None,
    "a connection that is lost": lambda asked: asked.settle(_LOST),
    "a server that was replaced": lambda asked: asked.settle(
        [b"OK"] * (len(asked.questions) - 1) + [Exception("KATFENCE moved")]
    ),
}


@pytest.mark.parametrize("end", UNCONFIRMED.values(), ids=UNCONFIRMED)
def test_what_was_not_announced_does_not_stand(
    client: redis.Redis, end: Callable[[Asked], object]
) -> None:
    """What Redis wrote and nobody was told of is taken back: a revocation may have missed it."""

    @hasty
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        await scene.ask(link, opener(link, issue(client)), opener(link, issue(client), "office"))
        scene.store.batches[0].ask(asker)
        opening = scene.store.batches[1]
        asker.answer(opening.questions)
        assert list(client.scan_iter("kat:s:*"))
        assert client.zcard(KEYS.grants(b"office").decode())
        end(opening)
        await idle(scene)
        assert link.reasons == ["store_unavailable"] * 2
        undoing = scene.store.batches[2]
        assert undoing.is_repeatable  # to end twice is to end once
        undoing.ask(asker)
        assert list(client.scan_iter("kat:s:*")) == []
        assert not client.zcard(KEYS.grants(b"office").decode())
        assert len(link.answers) == 2
        assert scene.in_flight == 0

    play()


def test_a_revocation_between_consume_and_opening_closes_it_again(client: redis.Redis) -> None:
    """What was revoked before it was open is taken back, and answered when that is done."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        tokens = issue(client), issue(client)
        await scene.ask(link, opener(link, tokens[0]), opener(link, tokens[1], "office"))
        scene.store.batches[0].ask(asker)
        client.hset("kat:cut", mapping={"sub:user1": now_ms() + 1000, "v": 1})
        scene.store.batches[1].ask(asker)
        assert link.answers == []
        undoing = scene.store.batches[2]
        assert not undoing.is_repeatable
        undoing.ask(asker)
        assert link.reasons == ["revoked", "revoked"]
        assert not any("session" in answer.variables for answer in link.answers)
        assert list(client.scan_iter("kat:s:*")) == []
        assert not client.zcard(KEYS.grants(b"office").decode())
        assert scene.opened == (0, 0)
        assert scene.in_flight == 0

    play()


@scene
async def test_drain_waits_for_what_is_being_opened(scene: Scene) -> None:
    """Who has been consumed and not yet answered keeps the worker alive."""
    link = Link()
    await scene.ask(link, opener(link, mint()))
    draining = asyncio.create_task(scene.agent.drain())
    scene.store.allow(0)
    await turn()
    assert not draining.done()
    scene.store.allow(1)
    await asyncio.wait_for(draining, GIVE_UP_S)
    assert link.reasons == ["ok"]


@limited(in_flight=2)
async def test_what_is_being_opened_takes_its_place(scene: Scene) -> None:
    """The bound on requests in flight holds in the second round trip, too, and is exact."""
    link = Link()
    await scene.ask(link, opener(link, mint()), link.check())
    scene.store.allow(0)
    await scene.ask(link, link.check(), link.check())
    assert link.reasons == ["ok", "overloaded"]
    scene.store.allow(1, 2)
    assert link.reasons == ["ok", "overloaded", "ok", "ok"]
    assert scene.in_flight == 0


# --- What nobody waits for -----------------------------------------------------------------------


@scene
async def test_the_audit_is_sent_behind_the_answers(scene: Scene) -> None:
    """One entry, soon after all of the batch is answered; it is never sent a second time."""
    link, answered = Link(), []
    execute = scene.store.execute

    def watched(*args: Any, **options: Any) -> None:
        answered.append(len(link.answers))
        execute(*args, **options)

    scene.store.execute = watched  # type: ignore[method-assign]
    await scene.ask(link, *link.checks(3))
    scene.store.allow(0)
    await until_noted(scene)
    assert answered == [0, 3]
    (note,) = scene.store.notes
    assert note.commands == ["XADD"]
    assert not note.is_repeatable
    told = note.questions[0].head[-1]
    assert isinstance(told, bytes)
    assert told.count(b'"event":"consumed"') == 3


@scene
async def test_what_happens_together_is_told_together(scene: Scene) -> None:
    """Batches that are answered soon after each other share an entry; a full one waits for none."""
    link = Link()
    for number in range(3):
        await scene.ask(link, link.check())
        scene.store.allow(number)
    await until_noted(scene)
    (entry,) = [told for note in scene.store.notes for told in note.questions]
    assert entry.head[-1].count(b'"event":"consumed"') == 3
    await scene.ask(link, *link.checks(NOTE_AT_ONCE))
    scene.store.batches[-1].allow()
    assert len(scene.store.notes) == 2


@scene
async def test_nobody_waits_for_the_audit(scene: Scene) -> None:
    """With every note unanswered, visitors are served, nothing is in flight and draining ends."""
    link = Link()
    for _ in range(3):
        await scene.ask(link, *link.checks(2))
        scene.store.batches[-1].allow()
        scene.agent.note()
    assert link.reasons == ["ok"] * 6
    assert len(scene.store.notes) == 3
    assert scene.in_flight == 0
    await idle(scene)


@pytest.mark.parametrize(
    "result",
    [
        StoreUnavailable("closed", "Redis closed the connection"),
        [Exception("NOPERM this user has no permissions to run the 'xadd' command")],
        [Exception("OOM command not allowed when used memory > 'maxmemory'.")],
        [Exception("WRONGTYPE Operation against a key holding the wrong kind of value")],
    ],
    ids=["closed", "no permission", "full", "no stream"],
)
def test_an_audit_that_fails_refuses_nobody(result: list[Reply] | StoreUnavailable) -> None:
    """It is counted as lost, and the connection that visitors need is kept."""

    @scene
    async def play(scene: Scene) -> None:
        link = Link()
        for _ in range(2):
            await scene.ask(link, link.check())
            scene.store.batches[-1].allow()
            scene.agent.note()
            scene.store.notes[-1].settle(result)
        assert link.reasons == ["ok", "ok"]
        assert scene.store.distrusted == []
        assert scene.audit_lost == 2

    play()


def test_an_audit_that_fails_closes_nothing_that_is_open(client: redis.Redis) -> None:
    """Beside an opening, too: the session stands and is announced, the entry is counted as lost."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        await scene.ask(link, opener(link, issue(client)))
        scene.store.batches[0].ask(asker)
        opening = scene.store.batches[1]
        replies = asker.answer(opening.questions)
        replies[opening.commands.index("XADD")] = Exception("NOPERM no permissions to run xadd")
        opening.settle(replies)
        assert link.reasons == ["ok"]
        assert "session" in link.answers[0].variables
        assert scene.store.distrusted == []
        assert scene.audit_lost == 1

    play()


@scene
async def test_an_audit_that_is_written_is_not_lost(scene: Scene) -> None:
    """The counter of lost entries stays where it is."""
    link = Link()
    await scene.ask(link, link.check())
    scene.store.allow(0)
    scene.agent.note()
    scene.store.notes[0].settle([b"1-1"])
    assert scene.audit_lost == 0


def test_a_session_hit_writes_no_audit(client: redis.Redis) -> None:
    """However often a session is used, each hit is one question and nothing more."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        session = await open_session(scene, link, asker, issue(client))
        before = len(scene.store.asked)
        for _ in range(5):
            await scene.ask(
                link, *(link.check(None, acl="wiki", session=session) for _ in range(4))
            )
            scene.store.batches[-1].ask(asker)
        assert link.reasons[1:] == ["session"] * 20
        hits = scene.store.asked[before:]
        assert [asked.commands for asked in hits] == [["MGET", "cut"]] * 5
        assert all(asked.is_repeatable for asked in hits)

    play()


# --- Ends ----------------------------------------------------------------------------------------


def _judging(scene: Scene) -> Asked:
    return scene.store.batches[0]


def _opening(scene: Scene) -> Asked:
    scene.store.allow(0)
    return scene.store.batches[1]


ENDS: dict[str, tuple[Callable[[Scene], Asked], Callable[[Asked], object]]] = {
    "judged and opened": (_opening, Asked.allow),
    "no store": (_judging, lambda asked: asked.settle(_LOST)),
    "a reply that does not fit": (_judging, lambda asked: asked.judge(_hole)),
    "no cuts": (
        _judging,
        lambda asked: asked.settle([Exception("KATFENCE")] * len(asked.questions)),
    ),
    "silence": (_judging, lambda _: None),
    "no store for the opening": (_opening, lambda asked: asked.settle(_LOST)),
    "an opening that is refused": (
        _opening,
        lambda asked: asked.judge(lambda _: Exception("OOM")),
    ),
    "an opening without cuts": (
        _opening,
        lambda asked: asked.settle([Exception("KATFENCE")] * len(asked.questions)),
    ),
    "a silent opening": (_opening, lambda _: None),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_an_end(end: str) -> None:
    """Each request is answered once, nothing is in flight, no generator waits, none is kept."""
    find, settle = ENDS[end]

    @hasty
    async def play(scene: Scene) -> None:
        link = Link()
        await scene.ask(link, opener(link, mint()), opener(link, mint(), "office"), link.check())
        asked = find(scene)
        settle(asked)
        await idle(scene)
        assert len(link.answers) == 3
        assert scene.in_flight == 0
        assert waiting_generators() == []
        gone = weakref.ref(link)
        del link, asked
        scene.store.asked.clear()
        assert gone() is None

    gc.collect()
    gc.disable()  # what is kept by a circle until the next collection is kept, too
    try:
        play()
    finally:
        gc.enable()


@pytest.mark.parametrize("late", [Asked.allow, lambda asked: asked.settle(_LOST)])
def test_a_late_reply_asks_nothing_more(late: Callable[[Asked], object]) -> None:
    """Who was given up gets no second answer, and no token of his is consumed afterwards."""

    @hasty
    async def play(scene: Scene) -> None:
        link = Link()
        await scene.ask(link, link.check(acl="vault"), opener(link, mint()))
        await idle(scene)
        assert link.reasons == ["store_unavailable"] * 2
        asked = list(scene.store.asked)
        late(asked[0])
        assert scene.store.asked == asked
        assert len(link.answers) == 2
        assert scene.in_flight == 0

    play()


# --- Draining ------------------------------------------------------------------------------------


@scene
async def test_drain_waits_for_what_is_in_flight(scene: Scene) -> None:
    """It returns when the last answer is written, and at once when there is nothing."""
    await idle(scene)
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


@hasty
async def test_drain_does_not_wait_for_a_silent_redis(scene: Scene) -> None:
    """At the deadline everything is answered, so draining ends then."""
    link = Link()
    scene.agent.receive(link, link.checks(1))
    await idle(scene)
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


# Second thoughts: what had to wait must cost nobody else anything.


def granted(client: redis.Redis, acl: str = "vault") -> None:
    client.zadd(KEYS.grants(acl.encode()).decode(), {"192.0.2.7": now_ms() + 60_000})


def test_who_must_wait_for_a_grant_keeps_nobody_waiting(client: redis.Redis) -> None:
    """Those who need one round trip are answered after it, whatever becomes of the second one."""

    @hasty
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        granted(client)
        held = issue(client)
        await scene.ask(link, link.check(issue(client)), link.check(held, acl="vault"))
        first = scene.store.batches[0]
        assert first.tokens == 1
        first.ask(asker)
        assert link.reasons == ["ok"]
        assert scene.in_flight == 1
        second = scene.store.batches[1]
        assert (second.tokens, second.is_repeatable) == (1, True)
        second.settle(_LOST)
        assert link.reasons == ["ok", "store_unavailable"]
        assert scene.in_flight == 0

    play()


def test_a_cleared_token_that_is_late_stays_whole(client: redis.Redis) -> None:
    """What is too late for the second round trip is refused for itself alone."""

    @scene
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        granted(client)
        old, fresh = issue(client), issue(client)
        now = time.time()
        link.ages.age_s(int(now * 1000), now)
        deadline_s = PATIENT_MS / 1000
        late_ms = int((now - deadline_s + 0.2) * 1000)
        await scene.ask(
            link,
            link.check(old, acl="vault", at=frames.typed(DataType.INT64, late_ms)),
            link.check(fresh, acl="vault", at=frames.typed(DataType.INT64, int(now * 1000))),
        )
        first = scene.store.batches[0]
        assert first.tokens == 0
        while time.monotonic() < first.give_up_at:  # the older one's
            await turn()
        first.ask(asker)
        assert link.reasons == ["deadline"]
        scene.store.batches[1].ask(asker)
        assert link.reasons == ["deadline", "ok"]
        assert client.get(KEYS.token(digest(old.encode()))) == RECORD
        assert scene.in_flight == 0

    play()


def test_what_could_not_be_taken_back_is_tried_again(client: redis.Redis) -> None:
    """A grant that nobody was told of ends when Redis is there again, not with its ttl."""

    @hasty
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        await scene.ask(link, opener(link, issue(client), "office"))
        scene.store.batches[0].ask(asker)
        opening = scene.store.batches[1]
        asker.answer(opening.questions)
        opening.settle(_LOST)
        for times in range(3):
            assert len(scene.store.batches) == 3 + times
            scene.store.batches[-1].settle(_LOST)
            assert client.zcard(KEYS.grants(b"office").decode())
            scene.agent.note()  # as the worker does every second
        scene.store.batches[-1].ask(asker)
        assert not client.zcard(KEYS.grants(b"office").decode())
        asked = len(scene.store.batches)
        scene.agent.note()
        assert len(scene.store.batches) == asked

    play()


def test_late_replies_still_bring_the_revocations(client: redis.Redis) -> None:
    """However long they take to come, they are asked for once: the next batch knows them."""

    @hasty
    async def play(scene: Scene) -> None:
        link, asker = Link(), Asker(client)
        client.hset("kat:cut", mapping={"sub:user1": now_ms() + 60_000, "v": 1})
        await scene.ask(link, link.check(issue(client)))
        await idle(scene)
        assert link.reasons == ["store_unavailable"]
        scene.store.batches[0].ask(asker)
        await scene.ask(link, link.check(issue(client)))
        (last,) = [one for one in scene.store.batches[1].questions if one.key == KEYS.cut]
        assert last.tail != (cut.NEVER_READ,)
        scene.store.batches[1].ask(asker)
        assert link.reasons == ["store_unavailable", "revoked"]

    play()
