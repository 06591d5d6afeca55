from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.spop import schema
from spoa.spop.errors import ProtocolError
from spoa.spop.varint import decode_varint, encode_varint, skip_varint, to_signed

UINT64_MAX = (1 << 64) - 1

# Each pair of neighbours is the end of one form and the start of the next (SPOE.txt 3.1).
FORMS = {
    0: "00",
    239: "ef",
    240: "f0 00",
    2287: "ff 7f",
    2288: "f0 80 00",
    16380: "fc f0 06",
    264431: "ff ff 7f",
    264432: "f0 80 80 00",
    33818863: "ff ff ff 7f",
    33818864: "f0 80 80 80 00",
    4328786159: "ff ff ff ff 7f",
    4328786160: "f0 80 80 80 80 00",
    (1 << 63) - 1: "ff f0 fe fe fe fe fe fe fe 06",
    1 << 63: "f0 f1 fe fe fe fe fe fe fe 06",
    UINT64_MAX: "ff f0 fe fe fe fe fe fe fe 0e",
}


@pytest.mark.parametrize(("value", "form"), FORMS.items())
def test_forms(value: int, form: str) -> None:
    """Each number has exactly this form, written and read."""
    data = bytes.fromhex(form)
    assert encode_varint(value) == data
    assert decode_varint(data, 0) == (value, len(data))


@pytest.mark.parametrize(("value", "form"), FORMS.items())
def test_tail(value: int, form: str) -> None:
    """What follows a varint is not read, and it may start anywhere."""
    data = bytes.fromhex(form)
    assert decode_varint(b"\xff" + data + b"\xff\x00", 1) == (value, 1 + len(data))


@pytest.mark.parametrize("form", FORMS.values())
def test_truncated(form: str) -> None:
    """A varint cut anywhere is an IndexError, which the codec turns into its own."""
    data = bytes.fromhex(form)
    for size in range(len(data)):
        with pytest.raises(IndexError):
            decode_varint(data[:size], 0)


@pytest.mark.parametrize(
    "form",
    [
        "f0 f1 fe fe fe fe fe fe fe 0e",  # 2^64
        "ff ff ff ff ff ff ff ff ff 7f",  # the longest of ten bytes
        "ff ff ff ff ff ff ff ff ff ff 00",
        "f0 80 80 80 80 80 80 80 80 80 80 00",
        "ff" * 40,
    ],
)
def test_over_long(form: str) -> None:
    """More than 64 bits is a protocol error, not a bigger number."""
    with pytest.raises(ProtocolError):
        decode_varint(bytes.fromhex(form), 0)
    with pytest.raises(schema.SchemaError):
        schema.varint.parse(bytes.fromhex(form))


@pytest.mark.parametrize(
    ("value", "form"),
    [(-1, FORMS[UINT64_MAX]), (-7, "f9 f0 fe fe fe fe fe fe fe 0e"), (-(1 << 63), FORMS[1 << 63])],
)
def test_negative(value: int, form: str) -> None:
    """A negative number is written in 64 bits whatever its type, as HAProxy does."""
    data = bytes.fromhex(form)
    assert encode_varint(value) == data
    assert to_signed(decode_varint(data, 0)[0]) == value


@given(st.integers(0, UINT64_MAX))
def test_round_trip(value: int) -> None:
    """Any 64 bits survive, and the specification writes them the same way."""
    data = encode_varint(value)
    assert decode_varint(data, 0) == (value, len(data))
    assert schema.varint.build(value) == data
    assert schema.varint.parse(data) == value


@given(st.binary(max_size=14))
def test_same_as_schema(data: bytes) -> None:
    """Bytes are a varint for the codec exactly when they are one for the schema."""
    try:
        value, pos = decode_varint(data, 0)
    except (IndexError, ProtocolError):
        with pytest.raises(schema.SchemaError):
            schema.varint.parse(data)
    else:
        assert schema.varint.parse(data[:pos]) == value
        assert encode_varint(value) == data[:pos]


@given(st.binary(max_size=14), st.integers(0, 3))
def test_skipping_is_reading_without_the_value(data: bytes, pos: int) -> None:
    """Whatever the bytes are, a varint is skipped to where reading it ends, or refused alike."""

    def outcome(take: Callable[[], int]) -> object:
        try:
            return take()
        except (IndexError, ProtocolError) as error:
            return type(error)

    assert outcome(lambda: skip_varint(data, pos)) == outcome(lambda: decode_varint(data, pos)[1])
