"""A real worker on a unix socket, with a real Redis: whatever arrives, in whatever pieces."""

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, cast

import pytest

from spoa.config.sections import Limits
from spoa.counters import Counters
from spoa.spop.constants import FrameType, StatusCode
from spoa.worker.answers import Answers
from spoa.worker.transport import CLOSE_TIMEOUT_S, MAX_CONNECTIONS, MAX_ENGINES, SpopServer
from tests.support import frames
from tests.support.eventually import eventually
from tests.support.leaks import open_files
from tests.support.redis import RedisServer
from tests.support.running_worker import LOOPS, RunningWorker, running_worker
from tests.support.spop_client import (
    TIMEOUT_S,
    Answer,
    SpopClient,
    check_http,
    disconnect_status,
    notify,
    now_ms,
)
from tokens.issue import Issuer
from tokens.token import mint

if TYPE_CHECKING:
    from spoa.worker.agent import Agent

PATIENT_MS = 10_000
"""A deadline that no test on a busy machine runs into."""

MAX_UNREAD_BYTES = 16 << 20
"""What one peer that does not read may make the kernel and the worker hold, by far."""

Issue = Callable[..., str]


@pytest.fixture(scope="module", params=LOOPS)
def worker(request: pytest.FixtureRequest, shared_redis: RedisServer) -> Iterator[RunningWorker]:
    """Run one worker on each kind of event loop for all tests here."""
    with (
        tempfile.TemporaryDirectory(prefix="kat-") as place,
        running_worker(
            Path(place), shared_redis.socket, request.param, deadline_ms=PATIENT_MS
        ) as running,
    ):
        yield running


@pytest.fixture
def issue(redis_server: RedisServer) -> Iterator[Issue]:
    """Issue a token for user1 and the ACL demo, with bindings if given."""
    with redis_server.client() as client:
        issuer = Issuer(client)
        yield lambda user="user1", **bindings: issuer.issue(user, "demo", 60, **bindings).token


def reasons(answers: Iterable[Answer]) -> list[str]:
    return [answer.reason for answer in answers]


# --- One ACK for each NOTIFY ---------------------------------------------------------------------


def test_a_token_is_consumed_once(worker: RunningWorker, issue: Issue) -> None:
    """The first request with a token is let through as its user, the second is a replay."""
    token = issue(groups=("staff", "editors"))
    with worker.greeted() as client:
        first, second = client.ask(token), client.ask(token)
    assert first.variables == {
        "class": b"allow",
        "reason": b"ok",
        "acl": b"demo",
        "kid": second.variables["kid"],
        "user": b"user1",
        "groups": b"staff,editors",
        "allow": True,
    }
    assert (second.reason, second.is_ok) == ("replayed", False)


def test_every_notify_has_one_ack(worker: RunningWorker, issue: Issue) -> None:
    """Whatever is asked on however many connections, each question is answered once, as itself."""
    token = issue()
    asked = {
        "malformed": b"kat_\xff\x00",
        "missing": None,
        "unknown": mint(),
        "replayed": token,
    }
    with ExitStack() as stack:
        clients = [stack.enter_context(worker.greeted()) for _ in range(5)]
        assert clients[0].ask(token).is_ok
        expected: list[dict[bytes, str]] = []
        for client in clients:
            questions = [(client.next_ids(), reason) for reason in list(asked) * 10]
            client.send(*(notify(ids, check_http(token=asked[why])) for ids, why in questions))
            expected.append(dict(questions))
        for client, questions in zip(clients, expected, strict=True):
            answers = client.answers(len(questions))
            assert {ids: answer.reason for ids, answer in answers.items()} == questions
            assert client.is_silent()


def test_hundreds_in_one_write(worker: RunningWorker, issue: Issue) -> None:
    """300 NOTIFYs in one write, good ones, replays and nonsense mixed: 300 answers, each right."""
    good = [issue() for _ in range(100)]
    tokens = [token for one in good for token in (one, one, "kat_nonsense")]
    with worker.greeted() as client:
        answers = client.ask_all(tokens)
    assert reasons(answers) == ["ok", "replayed", "malformed"] * 100


def test_a_token_twice_in_one_batch_admits_one(worker: RunningWorker, issue: Issue) -> None:
    """The same token on many connections in the same turn is consumed once."""
    token = issue()
    with ExitStack() as stack:
        clients = [stack.enter_context(worker.greeted()) for _ in range(20)]
        for client in clients:
            client.send(notify(client.next_ids(), check_http(token=token)))
        answers = reasons(client.answer() for client in clients)
    assert sorted(answers) == ["ok", *["replayed"] * 19]


def test_byte_by_byte(worker: RunningWorker, issue: Issue) -> None:
    """HELLO and NOTIFYs that arrive one byte at a time are understood as if whole."""
    with worker.connect() as client:
        for byte in frames.hello():
            client.send(bytes((byte,)))
        assert client.read_hello()[b"version"] == b"2.0"
        asked = [client.next_ids(), client.next_ids()]
        for byte in b"".join(notify(ids, check_http(token=issue())) for ids in asked):
            client.send(bytes((byte,)))
        assert reasons(client.answers(2).values()) == ["ok", "ok"]


@pytest.mark.parametrize("seed", range(5))
def test_any_pieces(worker: RunningWorker, seed: int) -> None:
    """However a stream is cut into writes, the answers are the same."""
    dice = random.Random(seed)
    with worker.greeted() as client:
        asked = [client.next_ids() for _ in range(40)]
        stream = b"".join(notify(ids, check_http(token="kat_x")) for ids in asked)
        while stream:
            size = dice.choice((1, 3, 4, 5, 200, 3000))
            client.send(stream[:size])
            stream = stream[size:]
        assert set(client.answers(40)) == set(asked)


@pytest.mark.parametrize("frame_id", [0, 1, 240])
@pytest.mark.parametrize("stream_id", [0, 239, 240, 2288, 2**31, 2**63, 2**64 - 1])
def test_ids_are_echoed(worker: RunningWorker, stream_id: int, frame_id: int) -> None:
    """Stream and frame ids come back byte for byte, 0 (HAProxy up to 3.0) and 64 bits included."""
    ids = frames.ids(stream_id, frame_id)
    with worker.greeted() as client:
        client.send(notify(ids, check_http()))
        assert client.answer().ids == ids


def test_what_waits_for_the_same_turn_shares_a_batch(worker: RunningWorker) -> None:
    """Requests of several connections that wait together go to Redis together."""
    layout = worker.counters.layout

    def batches() -> int:
        cells = worker.counters.block(0)[0]
        return sum(cells[layout.batch : layout.store_errors - 1])

    with ExitStack() as stack:
        clients = [stack.enter_context(worker.greeted()) for _ in range(30)]
        before = batches()
        worker.freeze()
        for client in clients:
            client.send(notify(client.next_ids(), check_http(token=mint())))
        worker.thaw()
        assert reasons(client.answer() for client in clients) == ["unknown"] * 30
        assert batches() - before <= 10


@pytest.mark.parametrize(("size", "user_bytes"), [(350, 1), (500, 128), (2000, 128)])
def test_an_answer_fits_the_agreed_frame(
    worker: RunningWorker, issue: Issue, size: int, user_bytes: int
) -> None:
    """The longest user and groups that fit are told; one byte more and the token stays whole."""
    room_bytes = Answers([]).room_bytes(size) - user_bytes
    with worker.greeted(max_frame_size=frames.uint32(size)) as client:
        fits = client.ask(issue("u" * user_bytes, groups=_groups(room_bytes)))
        assert fits.is_ok
        assert fits.size_bytes <= size
        exceeds = issue("u" * user_bytes, groups=_groups(room_bytes + 1))
        assert client.ask(exceeds).reason == "bad_record"
    with worker.greeted() as client:
        assert client.ask(exceeds).is_ok


def _groups(size: int) -> list[str]:
    """Name groups that take so many bytes, commas between them included."""
    whole, rest = divmod(size, 101)
    names = ["g" * 100] * whole
    return [*names, "g" * rest] if rest else [*names[:-1], "g" * 101]


def test_latencies_below_a_millisecond_are_told_apart(worker: RunningWorker) -> None:
    """The histogram's finest buckets mean something on either loop."""
    layout = worker.counters.layout
    with worker.greeted() as client:
        client.ask_all([None] * 20)
        for _ in range(20):
            client.ask(mint())
    total_ms = 1000 * worker.counters.block(0)[1][layout.redis - 1]
    assert abs(total_ms - round(total_ms)) > 1e-6


# --- Ages ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(shared_redis: RedisServer) -> Iterator[RunningWorker]:
    """Run a worker with a short deadline and a short handshake."""
    with (
        tempfile.TemporaryDirectory(prefix="kat-") as place,
        running_worker(
            Path(place),
            shared_redis.socket,
            deadline_ms=500,
            handshake_timeout_s=0.5,
        ) as running,
    ):
        yield running


def engine(name: str) -> dict[str, object]:
    return {"engine_id": frames.string(name.encode())}


def test_an_engine_has_one_clock_on_all_its_connections(
    impatient: RunningWorker, issue: Issue
) -> None:
    """What one connection has learned of HAProxy's clock tells the next one what is old."""
    token = issue()
    with impatient.greeted(**engine("one")) as first:
        assert first.ask().reason == "missing"
        assert first.ask(mint()).reason == "unknown"
    with impatient.greeted(**engine("one")) as second:
        assert second.ask(token, at=now_ms() - 2000).reason == "deadline"
        assert second.ask(token).is_ok


AN_HOUR_MS = 3_600_000


def test_another_engine_may_have_another_clock(impatient: RunningWorker, issue: Issue) -> None:
    """A HAProxy whose clock is an hour behind, at the far end of a tunnel, is soon served, too."""
    with impatient.greeted(**engine("here")) as here, impatient.greeted(**engine("there")) as there:
        assert there.ask(issue(), at=now_ms() - AN_HOUR_MS).reason == "deadline"
        eventually(lambda: there.ask(issue(), at=now_ms() - AN_HOUR_MS).is_ok, "it is believed")
        for _ in range(3):
            assert here.ask(issue()).is_ok
            assert there.ask(issue(), at=now_ms() - AN_HOUR_MS).is_ok
        assert there.ask(issue(), at=now_ms() - AN_HOUR_MS - 2000).reason == "deadline"


def test_a_new_engine_may_have_a_backlog(impatient: RunningWorker, issue: Issue) -> None:
    """Of a neighbour's very first message the agent knows how old it is, and consumes nothing."""
    token = issue()
    with impatient.greeted(**engine("new")) as client:
        assert client.ask(token, at=now_ms() - 2000).reason == "deadline"
        assert client.ask(token).is_ok


def test_without_an_engine_id_each_connection_is_its_own(
    impatient: RunningWorker, issue: Issue
) -> None:
    """Nameless peers share nothing: one an hour behind does not age the other."""
    hello = frames.hello(without=b"engine-id")
    with impatient.connect() as one, impatient.connect() as other:
        for client in (one, other):
            client.send(hello)
            client.read_hello()
        eventually(lambda: other.ask(issue(), at=now_ms() - AN_HOUR_MS).is_ok, "it is believed")
        assert one.ask(issue()).is_ok
        assert other.ask(issue(), at=now_ms() - AN_HOUR_MS).is_ok


# --- Handshakes ----------------------------------------------------------------------------------


def test_a_health_check_is_answered_and_closed(worker: RunningWorker) -> None:
    """AGENT-HELLO, then the end at once: no DISCONNECT, no log line."""
    before = worker.log
    with worker.connect() as client:
        client.send(frames.hello(healthcheck=frames.boolean(value=True)))
        agreed = client.read_hello()
        assert set(agreed) == {b"version", b"max-frame-size", b"capabilities"}
        began = monotonic()
        assert client.is_at_end()
        assert monotonic() - began < CLOSE_TIMEOUT_S / 2
    worker.wait_idle()
    assert worker.log == before


def test_a_health_check_is_hung_up_on_in_silence(worker: RunningWorker) -> None:
    """HAProxy resets the connection after its check: that is normal."""
    before = worker.log
    for _ in range(20):
        with worker.connect() as client:
            client.send(frames.hello(healthcheck=frames.boolean(value=True)))
    worker.wait_idle()
    assert worker.log == before


def test_silence_is_ended_by_the_handshake_timeout(impatient: RunningWorker) -> None:
    """Whoever says no whole HELLO, not a byte or byte after byte, hears status 2 and the end."""
    before = impatient.protocol_errors(StatusCode.TIMEOUT)
    began = monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(impatient.connect()) for _ in range(3)]
        clients[1].send(frames.hello()[:1])
        clients[2].send(frames.hello()[:-1])
        assert [client.farewell() for client in clients] == [StatusCode.TIMEOUT] * 3
    assert 0.4 < monotonic() - began < 5
    impatient.wait_idle()
    assert impatient.protocol_errors(StatusCode.TIMEOUT) - before == 3
    assert "no HELLO within 0.5 s" in impatient.log


def test_who_does_not_close_is_closed(impatient: RunningWorker) -> None:
    """A peer that ignores its DISCONNECT stays no longer than CLOSE_TIMEOUT_S."""
    with impatient.connect() as mute, impatient.connect() as babbler:
        babbler.send(b"\xff" * 8)
        began = monotonic()
        for client, status in ((babbler, StatusCode.FRAME_TOO_BIG), (mute, StatusCode.TIMEOUT)):
            assert client.read_disconnect() == status
            assert client.is_at_end()
        assert monotonic() - began < CLOSE_TIMEOUT_S + 2


def test_the_timeout_ends_with_the_handshake(impatient: RunningWorker) -> None:
    """A connection that has said HELLO may be idle for longer than a handshake may take."""
    with impatient.connect() as silent, impatient.greeted() as idle:
        assert silent.farewell() == StatusCode.TIMEOUT
        assert idle.ask().reason == "missing"


# --- What is not SPOP ----------------------------------------------------------------------------

HELLO = frames.hello()
TLS_HELLO = bytes.fromhex("16030102000100") + bytes(507)
NOISE = random.Random(2).randbytes(5000)
BROKEN_ARGS = frames.notify(payload=b"\x0acheck-http\x02\x03acl\x08\xfftoo long")

ATTACKS = {
    "an HTTP GET": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode.FRAME_TOO_BIG),
    "a TLS ClientHello": (TLS_HELLO, StatusCode.FRAME_TOO_BIG),
    "noise": (NOISE, StatusCode.FRAME_TOO_BIG),
    "zeros": (bytes(100), StatusCode.INVALID_FRAME),
    "a frame of 6 bytes": (b"\0\0\0\6" + bytes(6), StatusCode.INVALID_FRAME),
    "NOTIFY before HELLO": (frames.notify(), StatusCode.INVALID_FRAME),
    "an ACK": (frames.frame(FrameType.ACK), StatusCode.INVALID_FRAME),
    "our own HELLO": (frames.frame(FrameType.AGENT_HELLO), StatusCode.INVALID_FRAME),
    "HELLO of SPOP 1.0": (
        frames.hello(supported_versions=frames.string(b"1.0")),
        StatusCode.UNSUPPORTED_VERSION,
    ),
    "HELLO without a size": (
        frames.hello(without=b"max-frame-size"),
        StatusCode.MAX_FRAME_SIZE_NOT_FOUND,
    ),
    "HELLO with frames of 255": (
        frames.hello(max_frame_size=frames.uint32(255)),
        StatusCode.BAD_MAX_FRAME_SIZE,
    ),
}

LATE_ATTACKS = {
    "a second HELLO": (HELLO, StatusCode.INVALID_FRAME),
    "more than agreed": ((16381).to_bytes(4), StatusCode.FRAME_TOO_BIG),
    "4 GiB": (b"\xff" * 4, StatusCode.FRAME_TOO_BIG),
    "arguments past the end": (BROKEN_ARGS, StatusCode.INVALID_FRAME),
    "a reserved type": (
        frames.notify(payload=b"\x0acheck-http\x01\x03acl\x0f"),
        StatusCode.INVALID_FRAME,
    ),
    "an endless varint": (
        frames.frame(FrameType.NOTIFY, ids=b"\xff" * 12),
        StatusCode.INVALID_FRAME,
    ),
    "a fragment of nothing": (frames.fragment(1, b"x"), StatusCode.INTERLACED_FRAMES),
    "HTTP later": (b"GET / HTTP/1.1\r\n\r\n", StatusCode.FRAME_TOO_BIG),
}


@pytest.mark.parametrize("attack", [*ATTACKS, *LATE_ATTACKS])
def test_what_is_not_spop_is_refused(worker: RunningWorker, attack: str) -> None:
    """It hears its status code and is gone; counted once; neighbours notice nothing."""
    is_late = attack in LATE_ATTACKS
    said, status = LATE_ATTACKS[attack] if is_late else ATTACKS[attack]
    before = worker.protocol_errors(status)
    with worker.greeted() as neighbour, worker.connect() as attacker:
        if is_late:
            attacker.hello()
        ids = neighbour.next_ids()
        half = notify(ids, check_http())
        neighbour.send(half[:50])
        attacker.send(said)
        assert attacker.farewell() == status
        neighbour.send(half[50:])
        assert neighbour.answer().ids == ids
        assert neighbour.ask(mint()).reason == "unknown"
    worker.wait_idle()
    assert worker.protocol_errors(status) == before + 1


def test_nothing_after_the_fault_is_acted_on(worker: RunningWorker, issue: Issue) -> None:
    """NOTIFYs in the same write as a broken frame, before it or behind, consume nothing.

    HAProxy fails every stream of a connection that ends, so their visitors would lose a token.
    """
    before, behind = issue(), issue()
    with worker.greeted() as client:
        client.send(
            notify(client.next_ids(), check_http(token=before)),
            BROKEN_ARGS,
            notify(client.next_ids(), check_http(token=behind)),
        )
        assert client.farewell() == StatusCode.INVALID_FRAME
    with worker.greeted() as client:
        assert client.ask(before).is_ok
        assert client.ask(behind).is_ok


def test_a_flood_of_nonsense_is_one_line_a_second(worker: RunningWorker) -> None:
    """200 peers that speak HTTP are all counted, and logged in no more than a few lines."""
    worker.wait_idle()
    counted = worker.protocol_errors(StatusCode.FRAME_TOO_BIG)
    logged = worker.log.count("spop peer refused")
    began = monotonic()
    for _ in range(200):
        with worker.connect() as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.farewell() == StatusCode.FRAME_TOO_BIG
    seconds = monotonic() - began
    worker.wait_idle()
    assert worker.protocol_errors(StatusCode.FRAME_TOO_BIG) - counted == 200
    lines = worker.log.count("spop peer refused") - logged
    assert lines <= seconds + 1


def test_the_log_says_status_reason_and_how_many_were_not_said(worker: RunningWorker) -> None:
    """A line holds the status and the limits, and nothing of what the peer sent."""
    worker.wait_idle()
    refused = [line for line in worker.log.splitlines() if "spop peer refused" in line]
    if not refused:
        with worker.connect() as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            client.farewell()
        refused = worker.log.splitlines()[-1:]
    for line in refused:
        assert "level=warning" in line
        assert " status=" in line
        assert " reason=" in line
        assert " unsaid=" in line
        assert "HTTP" not in line


# --- Fragments, farewells ------------------------------------------------------------------------


def test_a_notify_in_fragments_is_one_question(worker: RunningWorker, issue: Issue) -> None:
    """HAProxy up to 3.0 cuts what is too long: one ACK for all pieces."""
    payload = check_http(token=issue())
    with worker.greeted(capabilities=frames.string(b"pipelining,fragmentation")) as client:
        client.send(
            frames.notify(7, payload[:30], flags=0),
            frames.fragment(7, payload[30:60]),
            frames.fragment(7, payload[60:], flags=frames.FIN),
        )
        answer = client.answer()
        assert (answer.ids, answer.reason) == (frames.ids(7), "ok")
        assert client.is_silent()


def test_unknown_frames_are_skipped(worker: RunningWorker) -> None:
    """A frame of a type that SPOP does not have is no answer and no end."""
    with worker.greeted() as client:
        client.send(frames.frame(77, b"whatever"), frames.frame(200))
        assert client.is_silent()


def test_haproxys_farewell_is_answered(worker: RunningWorker, issue: Issue) -> None:
    """DISCONNECT gets DISCONNECT 0; a NOTIFY in the same write is not acted upon."""
    token = issue()
    ended = worker.ended("haproxy")
    with worker.greeted() as client:
        client.send(notify(client.next_ids(), check_http(token=token)), frames.disconnect())
        assert client.farewell() == StatusCode.NORMAL
    eventually(lambda: worker.ended("haproxy") == ended + 1, "counted as HAProxy's end")
    with worker.greeted() as client:
        assert client.ask(token).is_ok


ENDS = {
    "at once": b"",
    "in HELLO": HELLO[:20],
    "after HELLO": HELLO,
    "in a length": HELLO + b"\0\0",
    "in NOTIFY": HELLO + frames.notify()[:-5],
    "after NOTIFY": HELLO + frames.notify(),
    "in fragments": HELLO + frames.notify(flags=0),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_reset", [False, True], ids=["eof", "reset"])
def test_an_end_at_any_point_is_quiet(worker: RunningWorker, end: str, is_reset: bool) -> None:  # noqa: FBT001
    """HAProxy 3.1+ lets connections go without a word: no line, no error, nothing left."""
    worker.wait_idle()
    before = worker.log
    for _ in range(5):
        with worker.connect() as client:
            client.send(ENDS[end])
            if not is_reset and end not in ("at once", "in HELLO"):
                client.read_hello()  # what is unread at its close makes a unix socket reset
    worker.wait_idle()
    assert worker.log == before


# --- Many, slow ----------------------------------------------------------------------------------


def test_a_peer_that_does_not_read_is_not_read_from(worker: RunningWorker) -> None:
    """Its writes come to a stop and memory stays where it is; when it reads, all is answered."""
    question = notify(frames.ids(7), check_http(token="kat_x"))
    with worker.greeted() as slow, worker.greeted() as neighbour:
        began_kb = _rss_kb(worker.pid)
        sent_bytes = _send_until_blocked(slow, question * 100, neighbour)
        assert sent_bytes < MAX_UNREAD_BYTES
        assert (_rss_kb(worker.pid) - began_kb) << 10 < MAX_UNREAD_BYTES
        whole, rest = divmod(sent_bytes, len(question))
        answer = slow.frame()
        assert slow.take((whole - 1) * len(answer)) == answer * (whole - 1)
        slow.send(question[rest:])
        assert slow.frame() == answer
        assert slow.is_silent()


def _send_until_blocked(slow: SpopClient, block: bytes, neighbour: SpopClient) -> int:
    """Write until the worker takes no more, though it turns: its neighbour is served."""
    sent_bytes = 0
    refusals = 0
    slow.socket.settimeout(0)
    while refusals < 20 and sent_bytes < MAX_UNREAD_BYTES:
        try:
            sent_bytes += slow.socket.send(block[sent_bytes % len(block) :])
            refusals = 0
        except BlockingIOError:
            assert neighbour.ask().reason == "missing"
            refusals += 1
    slow.socket.settimeout(TIMEOUT_S)
    return sent_bytes


def _rss_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_thousand_connections_at_once(worker: RunningWorker) -> None:
    """All opened before the first is served: each gets its HELLO and its answer, and is gone."""
    worker.wait_idle()
    files = open_files(worker.pid)
    with ExitStack() as stack:
        worker.freeze()
        clients = [stack.enter_context(worker.connect()) for _ in range(1000)]
        hello = frames.hello()
        for client in clients:
            client.send(hello)
        worker.thaw()
        for client in clients:
            assert client.read_hello()[b"version"] == b"2.0"
        for client in clients:
            client.send(notify(frames.ids(1), check_http(token=mint())))
        assert {client.answer().reason for client in clients} == {"unknown"}
        assert worker.connections == 1000
    worker.wait_idle()
    eventually(lambda: open_files(worker.pid) <= files, "no file is left open")


# --- Bounds, without a socket for each -----------------------------------------------------------


class Transport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


def _bare_server() -> SpopServer:
    """Make a server whose connections never get as far as an agent."""
    return SpopServer(cast("Agent", None), Limits(), Counters(["demo"], 1).worker(0))


def test_one_connection_too_many_is_refused() -> None:
    """Up to MAX_CONNECTIONS all are welcome; the next one hears status 13, and why."""

    async def play() -> None:
        server = _bare_server()
        transports = [Transport() for _ in range(MAX_CONNECTIONS + 1)]
        for transport in transports:
            server(is_local=True).connection_made(transport)
        *welcome, refused = transports
        assert not any(transport.written for transport in welcome)
        assert disconnect_status(refused.written) == StatusCode.RESOURCE_ALLOCATION
        assert b"8192 connections are the limit" in refused.written

    asyncio.run(play())


def test_the_oldest_engines_are_forgotten() -> None:
    """However many engine ids are made up, MAX_ENGINES are remembered, the latest of them."""

    async def play() -> None:
        server = _bare_server()
        first = server.ages_of(b"first", is_local=True)
        ids = [b"%d" % number for number in range(MAX_ENGINES)]
        latest = [server.ages_of(one, is_local=True) for one in ids]
        assert [server.ages_of(one, is_local=True) for one in ids] == latest
        assert server.ages_of(b"first", is_local=True) is not first

    asyncio.run(play())
