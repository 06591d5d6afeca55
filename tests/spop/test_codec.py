import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.spop import schema
from spoa.spop.codec import (
    Notify,
    ack_overhead_bytes,
    decode_kv_list,
    decode_notify,
    encode_ack,
    encode_set_var,
)
from spoa.spop.constants import DataType, FrameType, Scope, StatusCode
from spoa.spop.errors import ProtocolError
from spoa.spop.value import Address, Value
from tests.support.frames import frame, ids, message, pairs, string, typed
from tests.support.vectors import all_vectors

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)

_VALUES = {
    DataType.NULL: st.none(),
    DataType.BOOL: st.booleans(),
    DataType.INT32: INT64,
    DataType.UINT32: UINT64,
    DataType.INT64: INT64,
    DataType.UINT64: UINT64,
    DataType.IPV4: st.binary(min_size=4, max_size=4),
    DataType.IPV6: st.binary(min_size=16, max_size=16),
    DataType.STRING: st.binary(max_size=300),
    DataType.BINARY: st.binary(max_size=300),
}


@st.composite
def _typed(draw: st.DrawFn) -> schema.TypedData:
    kind = draw(st.sampled_from(DataType))
    flags = draw(st.integers(0, 15)) & ~(kind is DataType.BOOL)
    return typed(kind, draw(_VALUES[kind]), flags)


names = st.sampled_from([b"", b"acl", b"token", b"\x00\xff"]) | st.binary(max_size=250)
arguments = st.lists(st.builds(schema.Pair, names, _typed()), max_size=6)
message_lists = st.lists(st.builds(schema.Message, names, arguments), max_size=4)
stream_ids = UINT64


def _value(data: schema.TypedData) -> Value:
    """Return what the codec makes of a value: an address keeps its kind."""
    is_address = data.tag.type in (DataType.IPV4, DataType.IPV6)
    return Address(data.value) if is_address and isinstance(data.value, bytes) else data.value


def _by_name(items: list[schema.Pair]) -> dict[bytes, tuple[type, Value]]:
    return {item.name: _typed_value(_value(item.data)) for item in items}


def _typed_value(value: Value) -> tuple[type, Value]:
    """Keep the type beside it: an Address equals the same bytes, and True equals 1."""
    return type(value), value


def _told(notify: Notify) -> list[tuple[bytes, dict[bytes, tuple[type, Value]]]]:
    return [
        (told.name, {name: _typed_value(value) for name, value in told.args.items()})
        for told in notify.messages
    ]


def _expected(
    messages: list[schema.Message],
) -> list[tuple[bytes, dict[bytes, tuple[type, Value]]]]:
    return [(told.name, _by_name(told.args)) for told in messages]


def _agree_on_notify(payload: bytes) -> None:
    """Hold the codec against the schema on the bytes behind a NOTIFY's flags."""
    try:
        parsed = schema.frame.parse(frame(FrameType.NOTIFY, payload, ids=b""))
    except schema.SchemaError:
        with pytest.raises(ProtocolError):
            decode_notify(payload)
        return
    notify = decode_notify(payload)
    assert payload.startswith(notify.ids)
    assert isinstance(parsed.payload, list)
    messages = [item for item in parsed.payload if isinstance(item, schema.Message)]
    assert _told(notify) == _expected(messages)


@given(stream_ids, stream_ids, message_lists)
def test_notify(stream_id: int, frame_id: int, messages: list[schema.Message]) -> None:
    """Whatever the schema writes, the codec reads: names, types, values, the last of a name."""
    notify = decode_notify(ids(stream_id, frame_id) + schema.messages.build(messages))
    assert notify.ids == ids(stream_id, frame_id)
    assert _told(notify) == _expected(messages)


@given(arguments)
def test_kv_list(items: list[schema.Pair]) -> None:
    """A key/value list is read as the schema wrote it."""
    read = decode_kv_list(schema.kv_list.build(items))
    assert {name: _typed_value(value) for name, value in read.items()} == _by_name(items)


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    """Codec and schema accept the same bytes, agree on them, and only ProtocolError escapes."""
    _agree_on_notify(data)
    _agree_on_notify(ids(1) + data)
    _agree_on_notify(ids(1) + b"\x00\x01\x00" + data)
    try:
        items = schema.kv_list.parse(data)
    except schema.SchemaError:
        with pytest.raises(ProtocolError):
            decode_kv_list(data)
    else:
        read = decode_kv_list(data)
        assert {name: _typed_value(value) for name, value in read.items()} == _by_name(items)


_RECORDED = [
    data[9:]
    for recorded in all_vectors()
    for data in recorded.frames[:4]
    if data[4] == FrameType.NOTIFY
]


@given(st.data(), st.sampled_from(_RECORDED))
def test_mutated_recordings(data: st.DataObject, recorded: bytes) -> None:
    """Codec and schema agree on what HAProxy said after any few bytes of it were damaged."""
    payload = bytearray(recorded)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.sampled_from(["change", "remove", "insert", "cut"])):
            case "change":
                payload[at] = data.draw(st.integers(0, 255))
            case "remove" if len(payload) > 1:
                del payload[at]
            case "insert":
                payload.insert(at, data.draw(st.integers(0, 255)))
            case "cut" if at:
                del payload[at:]
    _agree_on_notify(bytes(payload))


@pytest.mark.parametrize("recorded", sorted(set(_RECORDED), key=len)[:3], ids=len)
def test_truncated(recorded: bytes) -> None:
    """A recorded NOTIFY cut anywhere is for the codec what it is for the schema."""
    for size in range(len(recorded)):
        _agree_on_notify(recorded[:size])


@pytest.mark.parametrize("kind", range(10, 16))
def test_reserved_types(kind: int) -> None:
    """A reserved data type ends the connection with status 4."""
    with pytest.raises(ProtocolError, match=f"{kind}") as raised:
        decode_kv_list(b"\x01a" + bytes((kind, 0)))
    assert raised.value.status is StatusCode.INVALID_FRAME


@pytest.mark.parametrize(
    "payload",
    [
        b"\x01a\x08\x05abcd",  # a string
        b"\x01a\x09\xf0\x80\x80\x80\x80\x00abcd",  # a length of 4 GB
        b"\x01a\x08" + b"\xff\xf0\xfe\xfe\xfe\xfe\xfe\xfe\xfe\x0e",  # a length of 2^64 - 1
        b"\x05abcd",  # a name
        b"\x01a",  # no value at all
        b"\x01a\x06\x7f\x00\x00",
        b"\x01a\x07" + bytes(15),
        b"\x01a\x04\xf0",
    ],
)
def test_length_past_the_end(payload: bytes) -> None:
    """A length past the end is a protocol error wherever it stands, and reads nothing there."""
    for whole in (payload, b"\x01b\x00" + payload):
        with pytest.raises(ProtocolError) as raised:
            decode_kv_list(whole)
        assert raised.value.status is StatusCode.INVALID_FRAME
    with pytest.raises(ProtocolError):
        decode_notify(ids(1) + b"\x01m\x01" + payload)


def test_no_messages() -> None:
    """A NOTIFY without messages is one, and has none."""
    assert decode_notify(ids(0)).messages == []


def test_255_arguments() -> None:
    """A message carries as many arguments as its one byte can count."""
    args = [(str(number).encode(), typed(DataType.INT64, number)) for number in range(255)]
    (told,) = decode_notify(ids(1) + message(b"m", *args)).messages
    assert told.args == {str(number).encode(): number for number in range(255)}


def test_argument_count_lies() -> None:
    """A message that counts one argument more than it has is refused."""
    lie = b"\x01m\x02" + message(b"m", (b"a", string(b"x")))[3:]
    with pytest.raises(ProtocolError):
        decode_notify(ids(1) + lie)


def test_duplicate_names() -> None:
    """Of arguments with the same name the last one counts."""
    twice = message(b"m", (b"a", string(b"first")), (b"a", string(b"last")))
    assert decode_notify(ids(1) + twice).messages[0].args == {b"a": b"last"}


def test_any_bytes_in_strings() -> None:
    """NUL and what is not UTF-8 arrive as they are, in names and in values."""
    told = decode_notify(ids(1) + message(b"\xff\x00", (b"\x00", string(b"\x00\xc3\x28"))))
    assert told.messages[0].name == b"\xff\x00"
    assert told.messages[0].args == {b"\x00": b"\x00\xc3\x28"}


def test_error_keeps_secrets() -> None:
    """A protocol error never quotes the payload."""
    cut = pairs([(b"token", string(b"kat_secret"))])[:-1]
    with pytest.raises(ProtocolError) as raised:
        decode_kv_list(cut)
    assert "secret" not in raised.value.message


set_vars = st.tuples(
    st.sampled_from(Scope),
    st.binary(min_size=1, max_size=64),
    st.none()
    | st.booleans()
    | INT64
    | st.binary(max_size=300)
    | st.binary(min_size=4, max_size=4).map(Address)
    | st.binary(min_size=16, max_size=16).map(Address),
)


@given(stream_ids, stream_ids, st.lists(set_vars, max_size=5))
def test_ack(stream_id: int, frame_id: int, sets: list[tuple[Scope, bytes, Value]]) -> None:
    """The schema reads back what the codec answers: one final frame, ids echoed, every value."""
    actions = b"".join(encode_set_var(*arguments) for arguments in sets)
    data = encode_ack(ids(stream_id, frame_id), actions)
    ack = schema.frame.parse(data)
    assert (ack.type, ack.flags, ack.stream_id, ack.frame_id) == (103, 1, stream_id, frame_id)
    assert len(data) == 4 + ack_overhead_bytes(ids(stream_id, frame_id)) + len(actions)
    read = [
        (action.scope, action.name, _typed_value(_value(action.data)))
        for action in ack.payload
        if isinstance(action, schema.SetVar)
    ]
    assert read == [(scope, name, _typed_value(value)) for scope, name, value in sets]
