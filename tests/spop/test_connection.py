import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.spop import schema
from spoa.spop.codec import Notify
from spoa.spop.connection import Connection, EndedBy, State
from spoa.spop.constants import (
    DataType,
    FrameType,
    StatusCode,
)
from spoa.spop.template import Templates
from tests.support.cases import CASES, MESSAGE, Case, length_prefix
from tests.support.frames import (
    ABORT,
    FIN,
    boolean,
    disconnect,
    fragment,
    frame,
    hello,
    notify,
    string,
    uint32,
)
from tests.support.vectors import VERSIONS, Vector, all_vectors, vector

TAIL = b"\x00\x00\x00"
"""The start of one more frame."""

Delivery = Callable[[bytes], list[bytes]]


def _whole(data: bytes) -> list[bytes]:
    return [data]


def _byte_by_byte(data: bytes) -> list[bytes]:
    """Single bytes; of the long cases the middle in one piece, to be done in time."""
    if len(data) <= 4000:
        return [data[at : at + 1] for at in range(len(data))]
    return [*_byte_by_byte(data[:1000]), data[1000:-1000], *_byte_by_byte(data[-1000:])]


def _with_a_tail(data: bytes) -> list[bytes]:
    return [data + TAIL]


deliveries = pytest.mark.parametrize("deliver", [_whole, _byte_by_byte, _with_a_tail])


def _feed(connection: Connection, parts: Iterable[bytes]) -> list[Notify]:
    return [told for part in parts for told in connection.receive_data(part)]


def _sent(connection: Connection) -> list[schema.Frame]:
    """Take what the agent says; each element must be exactly one frame."""
    return [schema.frame.parse(data) for data in connection.take_outgoing()]


def _keys(sent: schema.Frame) -> dict[bytes, schema.Value]:
    assert isinstance(sent.payload, list)
    return {item.name: item.data.value for item in sent.payload if isinstance(item, schema.Pair)}


@deliveries
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conformance(case: Case, deliver: Delivery) -> None:
    """Each case ends with its status, or not at all, however its bytes are cut."""
    connection = Connection()
    notifies = _feed(connection, deliver(case.data))
    sent = _sent(connection)
    if case.status is None:
        assert connection.ending is None
        assert connection.state is State.OPEN
        assert len(notifies) == case.notifies
        assert [answer.type for answer in sent] == [FrameType.AGENT_HELLO]
        return
    assert connection.ending is not None
    assert (connection.ending.by, connection.ending.status) == (EndedBy.AGENT, case.status)
    assert connection.state is State.CLOSING
    assert sent[-1].type == FrameType.AGENT_DISCONNECT
    assert (sent[-1].flags, sent[-1].stream_id, sent[-1].frame_id) == (FIN, 0, 0)
    assert _keys(sent[-1]) == {
        b"status-code": case.status,
        b"message": connection.ending.message.encode("ascii"),
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_silent_after_the_last_word(case: Case) -> None:
    """A connection that is CLOSING reads nothing and says nothing more."""
    connection = Connection()
    connection.receive_data(case.data)
    connection.disconnect(StatusCode.NORMAL, "bye")
    connection.take_outgoing()
    ending = connection.ending
    assert connection.receive_data(hello() + notify() + disconnect()) == []
    connection.disconnect(StatusCode.UNKNOWN, "again")
    assert connection.take_outgoing() == []
    assert connection.ending is ending


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.status is None and len(case.data) < 4000], ids=str
)
def test_end_of_file_anywhere(case: Case) -> None:
    """Bytes that stop anywhere inside a good session are no fault: nothing is said about it."""
    connection = Connection()
    for byte in _byte_by_byte(case.data):
        connection.receive_data(byte)
        assert connection.ending is None


@pytest.mark.parametrize(
    ("offered", "ours", "agreed"),
    [(256, 16380, 256), (16380, 16380, 16380), (1 << 31, 16380, 16380), (32764, 65532, 32764)],
)
def test_agreed_size(offered: int, ours: int, agreed: int) -> None:
    """The smaller of both sizes is announced, and one byte more is too big."""
    connection = Connection(ours)
    connection.receive_data(hello(max_frame_size=uint32(offered)))
    (answer,) = _sent(connection)
    assert _keys(answer)[b"max-frame-size"] == agreed
    connection.receive_data(length_prefix(agreed))
    assert connection.ending is None
    connection = Connection(ours)
    connection.receive_data(hello(max_frame_size=uint32(offered)) + length_prefix(agreed + 1))
    assert connection.ending is not None
    assert connection.ending.status == StatusCode.FRAME_TOO_BIG


def test_hello_answer() -> None:
    """AGENT-HELLO is one final frame with ids 0: version, size, pipelining, fragmentation."""
    connection = Connection()
    connection.receive_data(hello())
    (answer,) = _sent(connection)
    assert (answer.type, answer.flags, answer.stream_id, answer.frame_id) == (101, FIN, 0, 0)
    keys = _keys(answer)
    assert set(keys) == {b"version", b"max-frame-size", b"capabilities"}
    assert keys[b"version"] == b"2.0"
    assert isinstance(keys[b"capabilities"], bytes)
    # `fragmentation` says what its speaker can receive (SPOE.txt 3.2.1): HAProxy never offers it.
    assert keys[b"capabilities"].split(b",") == [b"pipelining", b"fragmentation"]


def test_engine_id() -> None:
    """The engine is known by the id that its HELLO gave."""
    connection = Connection()
    connection.receive_data(hello(engine_id=string(b"engine \xff")))
    assert connection.engine_id == b"engine \xff"


@deliveries
def test_health_check(deliver: Delivery) -> None:
    """A health check gets AGENT-HELLO and nothing else, and is closed without a DISCONNECT."""
    connection = Connection()
    _feed(connection, deliver(hello(healthcheck=boolean(value=True))))
    (answer,) = connection.take_outgoing()
    parsed = schema.frame.parse(answer)
    assert parsed.type == FrameType.AGENT_HELLO
    assert set(_keys(parsed)) == {b"version", b"max-frame-size", b"capabilities"}
    assert connection.state is State.CLOSING
    assert connection.ending is not None
    assert connection.ending.by is EndedBy.HEALTH_CHECK


@deliveries
@pytest.mark.parametrize("before", [b"", hello(), hello() + notify(5, MESSAGE[:9], 0)])
def test_haproxy_disconnects(before: bytes, deliver: Delivery) -> None:
    """HAPROXY-DISCONNECT is answered by AGENT-DISCONNECT 0 and its own status is reported."""
    connection = Connection()
    _feed(connection, deliver(before + disconnect(2, b"a timeout\n\xff" + b"." * 500)))
    assert _keys(_sent(connection)[-1])[b"status-code"] == StatusCode.NORMAL
    assert connection.ending is not None
    assert (connection.ending.by, connection.ending.status) == (EndedBy.HAPROXY, 2)
    assert connection.ending.message.isascii()
    assert connection.ending.message.isprintable()
    assert len(connection.ending.message) < 600


def test_notify_beside_a_disconnect() -> None:
    """A NOTIFY that came in the same read as a DISCONNECT can not be answered: it is dropped."""
    connection = Connection()
    assert connection.receive_data(hello() + notify() + disconnect()) == []


_STRING = bytes((DataType.STRING,))


@pytest.mark.parametrize("length", [2**31, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("is_learned", [False, True])
@pytest.mark.parametrize(
    ("kind", "before"),
    [
        (FrameType.HAPROXY_HELLO, b""),
        (FrameType.HAPROXY_HELLO, b"\x01k" + _STRING),
        (FrameType.HAPROXY_DISCONNECT, b""),
        (FrameType.HAPROXY_DISCONNECT, b"\x01k" + _STRING),
        (FrameType.NOTIFY, b""),
        (FrameType.NOTIFY, b"\x0acheck-http\x01"),
        (FrameType.NOTIFY, b"\x0acheck-http\x01\x03acl" + _STRING),
    ],
)
def test_no_length_is_too_long_to_be_refused(
    kind: FrameType,
    before: bytes,
    is_learned: bool,  # noqa: FBT001 - a case
    length: int,
) -> None:
    """A name or value that claims to be of any length up to 2^64 ends the connection, no more."""
    payload = before + schema.varint.build(length) + b"zz"
    templates = Templates(((b"acl", (DataType.STRING,)),))
    connection = Connection(templates=templates if is_learned else None)
    if kind is FrameType.NOTIFY:
        connection.receive_data(hello() + notify() * 2)
        connection.receive_data(notify(payload=payload))
    else:
        connection.receive_data(
            (hello() if kind is not FrameType.HAPROXY_HELLO else b"") + frame(kind, payload)
        )
    assert connection.ending is not None
    assert connection.ending.status == StatusCode.INVALID_FRAME


def test_length_is_judged_before_its_frame() -> None:
    """Four bytes of a bad length are enough, and nothing is kept for it."""
    connection = Connection()
    connection.receive_data(hello())
    connection.receive_data(length_prefix(16381))
    assert connection.ending is not None
    assert connection.ending.message == "frame of 16381 bytes, the agreed limit is 16380"


def _notifies_by_schema(data: bytes) -> list[tuple[int, list[bytes]]]:
    """Stream id and message names of every NOTIFY in a recording, by the schema alone."""
    told = []
    payload = b""
    while data:
        size = 4 + int.from_bytes(data[:4])
        parsed = schema.frame.parse(data[:size])
        data = data[size:]
        if parsed.type not in (FrameType.NOTIFY, FrameType.UNSET):
            continue
        if isinstance(parsed.payload, bytes):
            payload += parsed.payload
            if not parsed.flags & FIN:
                continue
            messages, payload = schema.messages.parse(payload), b""
        else:
            messages = [item for item in parsed.payload if isinstance(item, schema.Message)]
        told.append((parsed.stream_id, [message.name for message in messages]))
    return told


def _told(notifies: list[Notify]) -> list[tuple[int, list[bytes]]]:
    return [
        (
            schema.varint.parse(told.ids[: -1 if told.ids[-1] < 240 else None]),
            [message.name for message in told.messages],
        )
        for told in notifies
    ]


@pytest.mark.parametrize("recorded", all_vectors(), ids=str)
def test_vectors_byte_by_byte(recorded: Vector) -> None:
    """What real HAProxy said is taken without fault, every NOTIFY of it."""
    connection = Connection()
    data = recorded.from_haproxy
    notifies = _feed(connection, (data[at : at + 1] for at in range(len(data))))
    assert connection.ending is None or connection.ending.by is not EndedBy.AGENT
    assert _told(notifies) == _notifies_by_schema(data)


@pytest.mark.parametrize("recorded", all_vectors(), ids=str)
def test_vectors_in_any_pieces(recorded: Vector) -> None:
    """A recording gives the same events, answers and ending in any pieces."""
    data = recorded.from_haproxy
    reference = Connection()
    expected = _feed(reference, (data[at : at + 1] for at in range(len(data))))
    answers = reference.take_outgoing()
    for seed in range(10):
        connection = Connection()
        notifies = _feed(connection, _pieces(data, random.Random(seed)))
        assert connection.take_outgoing() == answers
        assert connection.ending == reference.ending
        assert notifies == expected[: len(notifies)]
        # Only a last word may swallow what came in one read with it.
        assert connection.ending is not None or len(notifies) == len(expected)


def _pieces(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.choices(range(len(data) + 1), k=chance.randrange(8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize(
    ("version", "name", "status"),
    [
        *[(version, "idle", StatusCode.TIMEOUT) for version in VERSIONS[:2]],
        *[(version, "soft-stop", StatusCode.NORMAL) for version in VERSIONS[:2]],
        *[(version, "bad-version", StatusCode.UNSUPPORTED_VERSION) for version in VERSIONS],
        *[(version, "bad-size", StatusCode.BAD_MAX_FRAME_SIZE) for version in VERSIONS],
        *[(version, "too-big", StatusCode.FRAGMENTATION_NOT_SUPPORTED) for version in VERSIONS[:2]],
    ],
)
def test_vectors_that_end(version: str, name: str, status: StatusCode) -> None:
    """HAProxy ends these connections with this status."""
    connection = Connection()
    connection.receive_data(vector(version, name).from_haproxy)
    assert connection.ending is not None
    assert (connection.ending.by, connection.ending.status) == (EndedBy.HAPROXY, status)


@pytest.mark.parametrize("name", ["idle", "soft-stop"])
def test_haproxy_32_ends_without_a_word(name: str) -> None:
    """HAProxy 3.2 resets an idle connection and a stopped one: no DISCONNECT, no fault."""
    recorded = vector("3.2", name)
    connection = Connection()
    connection.receive_data(recorded.from_haproxy)
    assert connection.ending is None
    assert recorded.closings == [(">", "reset")]


@pytest.mark.parametrize("version", VERSIONS)
def test_vector_of_a_health_check(version: str) -> None:
    """A recorded health check is known for one."""
    connection = Connection()
    connection.receive_data(vector(version, "health-check").from_haproxy)
    assert connection.ending is not None
    assert connection.ending.by is EndedBy.HEALTH_CHECK


PIECES = [
    hello(),
    notify(0),
    notify(7),
    notify(5, MESSAGE[:9], 0),
    fragment(5, MESSAGE[9:], FIN),
    fragment(5, b"", FIN | ABORT),
    frame(99, b"?"),
    disconnect(),
    notify(1, b"\x01m\x01"),
    b"\x00",
]
sessions = st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=8).map(b"".join)


@given(sessions, st.randoms(use_true_random=False))
def test_any_chunking(data: bytes, chance: random.Random) -> None:
    """Any cutting gives the same answers and ending, and no other NOTIFYs."""
    data = chance.choice((b"", hello())) + data
    reference = Connection()
    expected = _feed(reference, (data[at : at + 1] for at in range(len(data))))
    connection = Connection()
    notifies = _feed(connection, _pieces(data, chance))
    assert connection.ending == reference.ending
    assert connection.take_outgoing() == reference.take_outgoing()
    assert notifies == expected[: len(notifies)]
    assert connection.ending is not None or len(notifies) == len(expected)


@given(st.lists(st.binary(max_size=100) | st.sampled_from(PIECES), max_size=20))
def test_nothing_escapes(parts: list[bytes]) -> None:
    """Whatever comes in, `receive_data` returns, and says at most one HELLO and one goodbye."""
    connection = Connection()
    _feed(connection, [hello(), *parts])
    sent = [answer.type for answer in _sent(connection)]
    assert sent[0] == FrameType.AGENT_HELLO
    assert sent[1:] in ([], [FrameType.AGENT_DISCONNECT])
    assert (connection.ending is not None) == (len(sent) > 1)
