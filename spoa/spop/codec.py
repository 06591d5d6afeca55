"""Payloads: NOTIFY and key/value lists in, ACK and HELLO payloads out.

Readers take the bytes of exactly one frame. That is what keeps them short: an index past the
end is an IndexError, a slice past the end leaves the position beyond the end, and one comparison
after the loop catches both lies. Everything a peer can do wrong comes out as ProtocolError.

The clear twin of this module is `schema`; the tests hold each against the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct

from spoa.spop.constants import (
    BOOL_TRUE,
    ActionType,
    DataType,
    FrameFlag,
    FrameType,
    Scope,
    StatusCode,
)
from spoa.spop.errors import ProtocolError
from spoa.spop.template import Taken, Templates
from spoa.spop.value import Address, Value
from spoa.spop.varint import (
    ONE_BYTE_LIMIT,
    decode_length,
    decode_varint,
    encode_varint,
    skip_varint,
    to_signed,
)

_TYPE_MASK = 0x0F
_TRUE = BOOL_TRUE & ~_TYPE_MASK
_NULL = DataType.NULL.value
_BOOL = DataType.BOOL.value
_INT32 = DataType.INT32.value
_UINT32 = DataType.UINT32.value
_INT64 = DataType.INT64.value
_UINT64 = DataType.UINT64.value
_IPV4 = DataType.IPV4.value
_IPV6 = DataType.IPV6.value
_STRING = DataType.STRING.value
_BINARY = DataType.BINARY.value

_LENGTH = Struct(">I")
_FRAME_HEAD = Struct(">BI")
_ACK_HEAD = _FRAME_HEAD.pack(FrameType.ACK, FrameFlag.FIN)
_ONE_BYTE = [bytes((number,)) for number in range(ONE_BYTE_LIMIT)]


@dataclass(slots=True)
class Message:
    """One message of a NOTIFY. Of arguments with the same name the last one counts."""

    name: bytes
    args: dict[bytes, Value]


@dataclass(slots=True)
class Notify:
    """What HAProxy asks. `ids` are the raw stream and frame id, to be echoed in the ACK."""

    ids: bytes
    messages: Sequence[Message]


class ShapedNotify:
    """The same, with one message that a template has read: the values that were wanted of it."""

    __slots__ = ("ids", "name", "values")

    # Not a dataclass: mypyc leaves their __init__ to the interpreter.
    def __init__(self, ids: bytes, name: bytes, values: Taken) -> None:
        self.ids = ids
        self.name = name
        self.values = values


def decode_notify(payload: bytes, templates: Templates | None = None) -> Notify | ShapedNotify:
    """Decode a NOTIFY from its stream id to its end; with `templates`, by them if it can be.

    Raises ProtocolError and nothing else.
    """
    messages: list[Message] = []
    end = len(payload)
    count = 0
    try:
        ids_end = pos = _skip_ids(payload)
        if templates and (shaped := templates.read(payload, pos)):
            name, values = shaped
            return ShapedNotify(payload[:pos], name, values)
        while pos < end:
            name, pos = _decode_name(payload, pos)
            count = payload[pos]
            args, pos = _decode_pairs(payload, pos + 1, count)
            messages.append(Message(name, args))
    except IndexError:
        raise _truncated(payload) from None
    if pos > end:
        raise _truncated(payload)
    # Of arguments with the same name the last one counts: a template has no order for that.
    if templates and len(messages) == 1 and len(messages[0].args) == count:
        templates.learn(payload, ids_end)
    return Notify(payload[:ids_end], messages)


def split_ids(payload: bytes) -> tuple[bytes, bytes]:
    """Split a frame behind its flags into (raw stream and frame id, what follows them).

    Raises ProtocolError and nothing else.
    """
    try:
        pos = _skip_ids(payload)
    except IndexError:
        raise _truncated(payload) from None
    return payload[:pos], payload[pos:]


def _skip_ids(payload: bytes) -> int:
    return skip_varint(payload, skip_varint(payload, 0))


def decode_kv_list(payload: bytes) -> dict[bytes, Value]:
    """Decode the key/value list that fills `payload`.

    Raises ProtocolError and nothing else.
    """
    pairs: dict[bytes, Value] = {}
    pos = 0
    end = len(payload)
    try:
        while pos < end:
            pair, pos = _decode_pairs(payload, pos, 1)
            pairs.update(pair)
    except IndexError:
        raise _truncated(payload) from None
    if pos > end:
        raise _truncated(payload)
    return pairs


def _decode_name(data: bytes, pos: int) -> tuple[bytes, int]:
    length, pos = decode_length(data, pos)
    end = pos + length
    return data[pos:end], end


def _decode_pairs(data: bytes, pos: int, count: int) -> tuple[dict[bytes, Value], int]:
    """Decode `count` pairs of name and typed value. Raises IndexError, ProtocolError.

    The one long function: nearly all of an interpreted agent's decoding is this loop, so
    nothing in it is a call that a byte comparison can replace (`make bench`).
    """
    pairs: dict[bytes, Value] = {}
    for _ in range(count):
        length = data[pos]
        pos += 1
        if length >= ONE_BYTE_LIMIT:
            length, pos = decode_length(data, pos - 1)
        end = pos + length
        name = data[pos:end]
        kind = data[end]
        pos = end + 1
        kind_of = kind & _TYPE_MASK
        if kind_of == _STRING or kind_of == _BINARY:
            length = data[pos]
            pos += 1
            if length >= ONE_BYTE_LIMIT:
                length, pos = decode_length(data, pos - 1)
            end = pos + length
            pairs[name] = data[pos:end]
            pos = end
        elif kind_of == _NULL:
            pairs[name] = None
        elif kind_of == _IPV4:
            end = pos + 4
            pairs[name] = Address(data[pos:end])
            pos = end
        elif kind_of == _INT64 or kind_of == _INT32:
            value, pos = decode_varint(data, pos)
            pairs[name] = to_signed(value)
        elif kind_of == _BOOL:
            pairs[name] = kind & _TRUE != 0
        elif kind_of == _IPV6:
            end = pos + 16
            pairs[name] = Address(data[pos:end])
            pos = end
        elif kind_of == _UINT32 or kind_of == _UINT64:
            pairs[name], pos = decode_varint(data, pos)
        else:
            raise ProtocolError(StatusCode.INVALID_FRAME, f"data type {kind_of} is reserved")
    return pairs, pos


def _truncated(payload: bytes) -> ProtocolError:
    return ProtocolError(
        StatusCode.INVALID_FRAME, f"a value runs past the end of a frame of {len(payload)} bytes"
    )


# What stands before the ids of an ACK, by the length of all that follows it.
_ACK_STARTS = [_LENGTH.pack(len(_ACK_HEAD) + size) + _ACK_HEAD for size in range(512)]


def encode_ack(ids: bytes, actions: bytes) -> bytes:
    """Encode a whole ACK frame, length prefix included, from echoed ids and encoded actions."""
    size = len(ids) + len(actions)
    if size < len(_ACK_STARTS):
        return _ACK_STARTS[size] + ids + actions
    return _LENGTH.pack(len(_ACK_HEAD) + size) + _ACK_HEAD + ids + actions


def ack_overhead_bytes(ids: bytes) -> int:
    """Return how much of the agreed frame size an ACK spends before its first action."""
    return len(_ACK_HEAD) + len(ids)


def encode_set_var(scope: Scope, name: bytes, value: Value) -> bytes:
    """Encode one set-var action (SPOE.txt 3.4)."""
    return b"%c\x03%c" % (ActionType.SET_VAR, scope) + encode_string(name) + encode_value(value)


def encode_frame(kind: FrameType, pairs: Iterable[tuple[bytes, int, Value]]) -> bytes:
    """Encode a control frame: ids 0, flags exactly FIN, a list of (key, data type, value)."""
    payload = b"".join(
        encode_string(key) + (b"%c" % data_type + _encode_body(value))
        for key, data_type, value in pairs
    )
    frame = _FRAME_HEAD.pack(kind, FrameFlag.FIN) + b"\x00\x00" + payload
    return _LENGTH.pack(len(frame)) + frame


def encode_string(text: bytes) -> bytes:
    """Encode a length and the bytes, as names and string values are written."""
    length = len(text)
    return (_ONE_BYTE[length] if length < ONE_BYTE_LIMIT else encode_varint(length)) + text


def encode_value(value: Value) -> bytes:
    """Encode one typed value: bytes as STRING, int as INT64, Address as IPV4 or IPV6."""
    match value:
        case None:
            return _ONE_BYTE[_NULL]
        case True:
            return _ONE_BYTE[BOOL_TRUE]
        case False:
            return _ONE_BYTE[_BOOL]
        case int():
            return _ONE_BYTE[_INT64] + encode_varint(value)
        case Address():
            return _ONE_BYTE[_IPV4 if len(value) == 4 else _IPV6] + value  # noqa: PLR2004
        case bytes():
            return _ONE_BYTE[_STRING] + encode_string(value)


def _encode_body(value: Value) -> bytes:
    """Encode an integer or a string without its type byte: control frames choose their own."""
    return encode_varint(value) if isinstance(value, int) else encode_string(value or b"")
