import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.spop import schema
from spoa.spop.constants import DataType, FrameType, Scope
from tests.support.frames import frame, notify, string, typed
from tests.support.vectors import VERSIONS, Vector, all_vectors, vector


def test_type_is_the_low_nibble() -> None:
    """A true BOOL is 0x11: type low, flags high, whatever the manual's picture says."""
    assert schema.typed_data.parse(b"\x11").value is True
    assert schema.typed_data.parse(b"\x01").value is False
    assert schema.typed_data.parse(b"\x21").value is False


@pytest.mark.parametrize("kind", range(10, 16))
def test_reserved_types(kind: int) -> None:
    """A reserved data type is refused by its number."""
    with pytest.raises(schema.SchemaError, match=f"{kind} is not a valid DataType"):
        schema.typed_data.parse(bytes((kind, 0)))


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (typed(DataType.NULL, None), "00"),
        (typed(DataType.INT32, -1), "02 ff f0 fe fe fe fe fe fe fe 0e"),
        (typed(DataType.UINT32, 16380), "03 fc f0 06"),
        (typed(DataType.INT64, 239), "04 ef"),
        (typed(DataType.UINT64, 240), "05 f0 00"),
        (typed(DataType.IPV4, b"\x7f\x00\x00\x01"), "06 7f 00 00 01"),
        (typed(DataType.IPV6, bytes(15) + b"\x01"), "07" + "00" * 15 + "01"),
        (string(b"a\x00\xff"), "08 03 61 00 ff"),
        (typed(DataType.BINARY, b""), "09 00"),
    ],
)
def test_typed_data(value: schema.TypedData, data: str) -> None:
    """Each type has this form, parsed and built."""
    assert schema.typed_data.parse(bytes.fromhex(data)) == value
    assert schema.typed_data.build(value) == bytes.fromhex(data)


def test_actions() -> None:
    """The manual's two actions: scope and name stand without a type byte."""
    actions: list[schema.Action] = [
        schema.SetVar(Scope.TRANSACTION, b"allow", typed(DataType.BOOL, value=True)),
        schema.UnsetVar(Scope.SESSION, b"user"),
    ]
    data = b"\x01\x03\x02\x05allow\x11" + b"\x02\x02\x01\x04user"
    assert schema.actions.build(actions) == data
    assert schema.actions.parse(data) == actions


@pytest.mark.parametrize(
    "data",
    [
        b"\x03\x02\x02\x01a",  # no such action
        b"\x01\x02\x02\x01a\x00",  # set-var with two arguments
        b"\x02\x02\x05\x01a",  # no such scope
        b"\x02\x02\x02\x05a",  # the name is longer than the rest
    ],
)
def test_bad_actions(data: bytes) -> None:
    """An action that is wrong anywhere is refused, not half read."""
    with pytest.raises(schema.SchemaError):
        schema.actions.parse(data)


@pytest.mark.parametrize(
    "data",
    [b"", bytes(4), b"\x00\x00\x00\x06\x03\x00\x00\x00\x01\x00", notify()[:-1], notify() + b"\x00"],
)
def test_bad_frames(data: bytes) -> None:
    """A frame is exactly as long as it says, and never shorter than its head."""
    with pytest.raises(schema.SchemaError):
        schema.frame.parse(data)


def test_fragments_stay_bytes() -> None:
    """Half a list of messages is not parsed as one."""
    piece = schema.frame.parse(frame(FrameType.NOTIFY, b"\x0acheck", flags=0))
    assert piece.payload == b"\x0acheck"


def test_error_names_the_field() -> None:
    """The message says which field, how much was expected and how much is left."""
    with pytest.raises(schema.SchemaError, match=r"^value: 9 bytes expected, 3 left$"):
        schema.pair.parse(b"\x01a\x08\x09abc")


def test_wrong_value_is_not_built() -> None:
    """What does not fit a declaration is refused, and says so."""
    with pytest.raises(schema.SchemaError):
        schema.typed_data.build(typed(DataType.IPV4, b"\x7f"))
    with pytest.raises(schema.SchemaError, match="UnsetVar"):
        schema.kv_list.build([schema.UnsetVar(Scope.SESSION, b"user")])  # type: ignore[list-item]


@pytest.mark.parametrize("recorded", all_vectors(), ids=str)
def test_vectors(recorded: Vector) -> None:
    """Every recorded frame, of either side, is built again to the same bytes."""
    assert recorded.frames
    for data in recorded.frames:
        assert schema.frame.build(schema.frame.parse(data)) == data


@pytest.mark.parametrize("version", VERSIONS)
def test_every_type_haproxy_sends(version: str) -> None:
    """HAProxy sends its seven types of argument with the values it was configured to send."""
    (parsed,) = (
        schema.frame.parse(data)
        for data in vector(version, "notify").frames
        if data[4] == FrameType.NOTIFY
    )
    assert isinstance(parsed.payload, list)
    (message,) = parsed.payload
    assert isinstance(message, schema.Message)
    sent = [(arg.name, arg.data.tag.type.name, arg.data.value) for arg in message.args]
    assert sent == [
        (b"null", "NULL", None),
        (b"yes", "BOOL", True),
        (b"no", "BOOL", False),
        (b"zero", "INT64", 0),
        (b"small", "INT64", 239),
        (b"two", "INT64", 240),
        (b"big", "INT64", 4328786160),
        (b"negative", "INT64", -1),
        (b"v4", "IPV4", bytes((192, 0, 2, 7))),
        (b"v6", "IPV6", bytes.fromhex("20010db8000000000000000000000007")),
        (b"text", "STRING", b"demo"),
        (b"binary", "BINARY", b"\x00\xff\x80A"),
        (b"long", "STRING", b"x" * 300),
        (b"", "IPV4", bytes((127, 0, 0, 1))),
        (b"twice", "INT64", 1),
        (b"twice", "INT64", 2),
    ]


@given(st.binary(max_size=64))
def test_only_schema_error(data: bytes) -> None:
    """Whatever the bytes, the schema parses them or raises its own error."""
    for kind in (0, 1, 3, 103, 250):
        try:
            parsed = schema.frame.parse(frame(kind, data))
        except schema.SchemaError:
            continue
        assert schema.frame.parse(schema.frame.build(parsed)) == parsed
