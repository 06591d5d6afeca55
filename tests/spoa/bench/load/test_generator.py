import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from spoa.bench.load import generator
from spoa.bench.load.channel import Channel
from spoa.bench.load.corpus import ACL, mint
from spoa.bench.load.frames import HEAD_BYTES, IDS_BYTES, LENGTH, encode_ids
from spoa.bench.load.generator import Generator
from spoa.bench.load.prepared import Load, Span, blanked, encode_request
from spoa.bench.scenario import Scenario
from spoa.spop.codec import decode_notify, encode_ack, encode_frame, encode_set_var
from spoa.spop.constants import DataType, FrameType, Scope

Answer = Callable[[list[bytes]], Sequence[bytes]]
"""From the ACKs that are due for one read to what is written instead, one write each."""


def ack(index: int, reason: bytes = b"ok") -> bytes:
    values = ((b"reason", reason), (b"acl", ACL), (b"allow", reason == b"ok"))
    actions = (encode_set_var(Scope.TRANSACTION, *value) for value in values)
    return encode_ack(encode_ids(index), b"".join(actions))


def load_of(count: int) -> Load:
    case = Scenario.CONSUME.case
    frames = [encode_request(i, encode_ids(i), token, case) for i, token in enumerate(mint(count))]
    return Load(frames, [ack(index) for index in range(count)])


@contextmanager
def peers(load: Load, answer: Answer, count: int = 1) -> Iterator[list[Channel]]:
    """Connect to agents that answer as told, each in a thread of its own."""
    by_ids = {encode_ids(index): due for index, due in enumerate(load.acks)}
    pairs = [socket.socketpair() for _ in range(count)]
    threads = [threading.Thread(target=serve, args=(theirs, by_ids, answer)) for _, theirs in pairs]
    for thread in threads:
        thread.start()
    try:
        for ours, _ in pairs:
            ours.settimeout(0)
        yield [Channel(ours) for ours, _ in pairs]
    finally:
        for ours, _ in pairs:
            ours.close()
        for thread in threads:
            thread.join()


def serve(sock: socket.socket, by_ids: dict[bytes, bytes], answer: Answer) -> None:
    with sock:
        rest = b""
        while data := sock.recv(65536):
            frames, rest = split(rest + data)
            for frame in frames:
                decode_notify(frame[HEAD_BYTES:])  # raises unless `at` completed it
            dues = [by_ids[frame[HEAD_BYTES : HEAD_BYTES + IDS_BYTES]] for frame in frames]
            for chunk in answer(dues):
                if not chunk:
                    return
                sock.sendall(chunk)


def split(data: bytes) -> tuple[list[bytes], bytes]:
    frames = []
    while len(data) >= LENGTH.size:
        end = LENGTH.size + LENGTH.unpack_from(data)[0]
        if len(data) < end:
            break
        frames.append(data[:end])
        data = data[end:]
    return frames, data


def whole(dues: list[bytes]) -> Sequence[bytes]:
    return [b"".join(dues)]


RIGHT: dict[str, Answer] = {
    "as it should be": whole,
    "in another order": lambda dues: [b"".join(reversed(dues))],
    "one write each": lambda dues: dues,
    "cut in two": lambda dues: [whole(dues)[0][:20], whole(dues)[0][20:]],
    "byte by byte": lambda dues: [bytes((byte,)) for byte in whole(dues)[0]],
}


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_right_answers_are_right_however_they_arrive(answer: Answer) -> None:
    """Order and segments are the agent's affair: every right ACK counts, once."""
    load = load_of(200)
    with peers(load, answer, count=3) as channels:
        tally = Generator(channels, load, in_flight=20).run_closed()
    assert (tally.right, tally.wrong, len(tally.latencies)) == (200, {}, 200)


def mixed_load_of(count: int) -> Load:
    """Every third ACK is another one, of another length."""
    load = load_of(count)
    acks = [ack(i, b"malformed") if i % 3 == 2 else due for i, due in enumerate(load.acks)]
    return Load(load.frames, acks, is_mixed=True)


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_answers_of_several_lengths_are_told_apart(answer: Answer) -> None:
    """In a mixed load, too, every right ACK counts once, and it is known whose it was."""
    load = mixed_load_of(200)
    with peers(load, answer, count=3) as channels:
        tally = Generator(channels, load, in_flight=20).run_closed()
    assert (tally.right, tally.wrong, len(tally.latencies)) == (200, {}, 200)
    assert sorted(tally.settled) == list(range(200))


def test_a_wrong_answer_in_a_mixed_load_is_counted() -> None:
    """An ACK that another request would be right with is wrong for this one."""
    load = mixed_load_of(50)
    wrong = lambda dues: [b"".join(ack(2) if due == load.acks[2] else due for due in dues)]  # noqa: E731
    with peers(load, wrong) as channels:
        tally = Generator(channels, load, in_flight=20).run_closed()
    assert tally.wrong == {"reason b'ok'": 1}
    assert sorted(tally.settled) == [0, 1, *range(3, 50)]


SPAN = Span(ack(0).index(b"ok"), ack(0).index(b"ok") + 2)
"""Where `ok` stands in an ACK of ours: now nobody can foresee it."""


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_what_nobody_can_foresee_is_kept(answer: Answer) -> None:
    """It is not compared; each request's own is there afterwards, however the ACKs arrive."""
    foreseen = load_of(200)
    fresh = [b"%02x" % index for index in range(200)]
    come = {due: due.replace(b"ok", fresh[index]) for index, due in enumerate(foreseen.acks)}
    load = Load(foreseen.frames, [blanked(due, SPAN) for due in foreseen.acks], SPAN)

    def fill(dues: list[bytes]) -> Sequence[bytes]:
        by_blank = {blanked(due, SPAN): due for due in come.values()}
        return answer([by_blank[due] for due in dues])

    with peers(load, fill, count=3) as channels:
        tally = Generator(channels, load, in_flight=20).run_closed()
    assert (tally.right, tally.wrong) == (200, {})
    assert sorted(tally.fresh) == list(enumerate(fresh))


def instead(index: int, wrong: bytes) -> Answer:
    """Answer rightly, but for one request."""
    return lambda dues: [b"".join(wrong if due == ack(index) else due for due in dues)]


WRONG: dict[str, tuple[Answer, dict[str, int], int]] = {
    "refused": (instead(7, ack(7, b"deadline")), {"reason b'deadline'": 1}, 49),
    "a neighbour's": (instead(7, ack(8)), {"ACK for no request in flight": 1, "unanswered": 1}, 49),
    "twice": (instead(7, ack(7) * 2), {"ACK for no request in flight": 1}, 50),
    "to nobody": (instead(7, ack(7) + ack(99)), {"ACK for no request in flight": 1}, 50),
    "no actions": (instead(7, encode_ack(encode_ids(7), b"")), {"reason None": 1}, 49),
    "half an action": (
        instead(7, encode_ack(encode_ids(7), b"\x01\x03")),
        {"an action list that ends early": 1},
        49,
    ),
    "not at all": (instead(7, b""), {"unanswered": 1}, 49),
    "another frame": (
        instead(7, ack(7) + encode_frame(FrameType.AGENT_HELLO, ((b"v", DataType.STRING, b"2"),))),
        {"frame of type 101 instead of ACK": 1},
        50,
    ),
}


@pytest.mark.parametrize(("answer", "wrong", "right"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_counted_by_its_reason(
    answer: Answer, wrong: dict[str, int], right: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wrong ACK among fifty is seen and named, and is neither a request nor a latency."""
    monkeypatch.setattr(generator, "PATIENCE_S", 0.3)
    load = load_of(50)
    with peers(load, answer) as channels:
        tally = Generator(channels, load, in_flight=5).run_closed()
    assert tally.wrong == wrong
    assert tally.right == len(tally.latencies) == right


def test_a_lost_connection_costs_its_own_requests_only() -> None:
    """What waited on a closed connection is counted as lost; the others send the rest."""
    load = load_of(100)
    closes_on_the_first = lambda dues: [b""] if ack(0) in dues else whole(dues)  # noqa: E731
    with peers(load, closes_on_the_first, count=2) as channels:
        tally = Generator(channels, load, in_flight=10).run_closed()
    assert tally.wrong == {"connection closed": 10}
    assert tally.right == 90


def test_a_round_ends_when_every_connection_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent, no hang: what could not be sent is counted, too."""
    monkeypatch.setattr(generator, "PATIENCE_S", 0.3)
    load = load_of(100)
    with peers(load, lambda _: [b""], count=2) as channels:
        tally = Generator(channels, load, in_flight=10).run_closed()
    assert tally.wrong == {"connection closed": 20, "never sent": 80}
    assert tally.right == 0


def test_noise_ends_its_connection() -> None:
    """A length that no frame has is not waited for."""
    load = load_of(10)
    with peers(load, lambda _: [b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as channels:
        tally = Generator(channels, load, in_flight=10).run_closed()
    assert tally.wrong == {"frame of 1213486160 bytes": 10}


def test_in_flight_is_never_exceeded() -> None:
    """Neither loop has more requests on a connection than it was told."""
    seen: list[int] = []

    def count(dues: list[bytes]) -> Sequence[bytes]:
        seen.append(len(dues))
        return whole(dues)

    load = load_of(60)
    with peers(load, count) as channels:
        Generator(channels, load, in_flight=4).run_closed()
    with peers(load, count) as channels:
        Generator(channels, load, in_flight=4).run_open(1e6, time.perf_counter())
    assert max(seen) == 4
    assert sum(seen) == 120


def test_open_loop_latency_counts_from_the_schedule() -> None:
    """A request that the generator sent 9 s late took more than 9 s: nothing is omitted."""
    load = load_of(40)
    with peers(load, whole, count=2) as channels:
        start = time.perf_counter() - 10
        tally = Generator(channels, load, in_flight=20).run_open(40.0, start)
    assert (tally.right, tally.wrong, len(tally.late)) == (40, {}, 40)
    assert min(tally.latencies) > 9
    assert min(tally.late) > 9


def test_open_loop_keeps_to_its_schedule() -> None:
    """Nothing is sent before its moment, so the last of 20 at 100/s leaves after 190 ms."""
    load = load_of(20)
    with peers(load, whole, count=2) as channels:
        start = time.perf_counter()
        tally = Generator(channels, load, in_flight=20).run_open(100.0, start)
    assert min(tally.late) >= 0
    assert tally.finished - start >= 0.19


def test_open_loop_ends_with_a_silent_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that never answers ends the round after PATIENCE_S; its requests are counted."""
    monkeypatch.setattr(generator, "PATIENCE_S", 0.3)
    load = load_of(30)
    with peers(load, lambda _: [], count=2) as channels:
        tally = Generator(channels, load, in_flight=10).run_open(1e5, time.perf_counter())
    assert tally.wrong == {"unanswered": 20, "never sent": 10}
