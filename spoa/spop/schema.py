"""SPOP declared once more, to be read as a specification (SPOE.txt section 3).

The agent never runs this: it is made to be read, not to be fast. It is the oracle that the tests
hold `codec` against, and the eyes of `kat inspect`. It parses and it builds.

Upper half: the wire, from the smallest thing to the frame, each a `construct` declaration.
Lower half: the same as typed `Format`s, because construct itself knows no types.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Generic, TypeVar

from construct import (
    BitStruct,
    Bytes,
    Computed,
    Const,
    Construct,
    ConstructError,
    ExprAdapter,
    GreedyBytes,
    GreedyRange,
    If,
    Int8ub,
    Int32ub,
    Nibble,
    Pass,
    Prefixed,
    PrefixedArray,
    RepeatUntil,
    Select,
    Struct,
    Switch,
    Terminated,
)

from spoa.spop.constants import (
    MAX_VARINT_BYTES,
    ActionType,
    DataType,
    FrameFlag,
    FrameType,
    Scope,
)

T = TypeVar("T")

Value = None | bool | int | bytes


class SchemaError(ValueError):
    """The bytes are not what the schema says; the message names the field and what is wrong."""


@dataclass(frozen=True)
class Tag:
    """The byte before every value."""

    flags: int
    type: DataType


@dataclass(frozen=True)
class TypedData:
    """A value as it is written, with the type that Python's own types would lose."""

    tag: Tag
    value: Value


@dataclass(frozen=True)
class Pair:
    """A key of a HELLO or DISCONNECT, or an argument of a message."""

    name: bytes
    data: TypedData


@dataclass(frozen=True)
class Message:
    """One message of a NOTIFY."""

    name: bytes
    args: list[Pair]


@dataclass(frozen=True)
class SetVar:
    """One action of an ACK: give a variable a value."""

    scope: Scope
    name: bytes
    data: TypedData


@dataclass(frozen=True)
class UnsetVar:
    """One action of an ACK: remove a variable."""

    scope: Scope
    name: bytes


Action = SetVar | UnsetVar
Payload = list[Pair] | list[Message] | list[Action] | bytes


@dataclass(frozen=True)
class Frame:
    """A frame; its payload is bytes where it is a fragment, aborted, or of an unknown type."""

    type: int
    flags: int
    stream_id: int
    frame_id: int
    payload: Payload


def _as(kind: Callable[..., T], struct: Construct) -> Construct:
    """Give the fields of a struct to a dataclass with the same names, and take them back."""

    def encode(value: T, _context: object) -> dict[str, object]:
        if not isinstance(value, kind if isinstance(kind, type) else ()):
            raise SchemaError(f"{type(value).__name__} where {kind.__name__} belongs")
        return vars(value)

    def decode(fields: dict[str, object], _context: object) -> T:
        return kind(**{name: fields[name] for name in fields if name != "_io"})

    return ExprAdapter(struct, decode, encode)


# --- Integers (SPOE.txt 3.1) -------------------------------------------------------------------
#
#      0 <= X < 240      1 byte    [ XXXX XXXX ]
#    240 <= X < 2288     2 bytes   [ 1111 XXXX ] [ 0XXX XXXX ]
#   2288 <= X < 264432   3 bytes   [ 1111 XXXX ] [ 1XXX XXXX ] [ 0XXX XXXX ]
#
# and so on. The X are the lowest bits first, and they count from where the shorter form ends:
# each number has exactly one form, and an over-long one does not exist.

_LONG_FORM = 240
_LAST_BYTE = 128
_BITS_64 = (1 << 64) - 1
_FORM_STARTS = [0, _LONG_FORM]
while len(_FORM_STARTS) < MAX_VARINT_BYTES:
    _FORM_STARTS.append(_FORM_STARTS[-1] + 16 * 128 ** (len(_FORM_STARTS) - 1))


def _varint_decode(form: dict[str, object], _context: object) -> int:
    first, rest = form["first"], form["rest"]
    assert isinstance(first, int)
    if not isinstance(rest, list):
        return first
    if len(rest) >= MAX_VARINT_BYTES:
        raise SchemaError(f"a varint of more than {MAX_VARINT_BYTES} bytes")
    bits = first & 0x0F
    for place, byte in enumerate(rest):
        bits |= (byte & 0x7F) << (4 + 7 * place)
    value = _FORM_STARTS[len(rest)] + bits
    if value > _BITS_64:
        raise SchemaError("a varint of more than 64 bits")
    return value


def _varint_encode(value: int, _context: object) -> dict[str, object]:
    size = max(size for size, start in enumerate(_FORM_STARTS) if start <= value)
    if size == 0:
        return {"first": value, "rest": None}
    bits = value - _FORM_STARTS[size]
    rest = [(bits >> (4 + 7 * place)) & 0x7F | 0x80 for place in range(size)]
    rest[-1] &= 0x7F
    return {"first": 0xF0 | bits & 0x0F, "rest": rest}


_VARINT = ExprAdapter(
    Struct(
        "first" / Int8ub,
        "rest"
        / If(
            lambda form: form.first >= _LONG_FORM,
            RepeatUntil(
                lambda byte, read, _: byte < _LAST_BYTE or len(read) >= MAX_VARINT_BYTES, Int8ub
            ),
        ),
    ),
    _varint_decode,
    _varint_encode,
)

# HAProxy keeps every integer in 64 signed bits, so a negative INT32 is as long as an INT64.
_SIGNED = ExprAdapter(
    _VARINT,
    lambda value, _: value - (1 << 64) if value >> 63 else value,
    lambda value, _: value & _BITS_64,
)

# --- Values: type in the LOW nibble, flags in the HIGH one (the manual draws it otherwise) -------

_NAME = Prefixed(_VARINT, GreedyBytes)

_TAG = _as(
    Tag,
    BitStruct(
        "flags" / Nibble,
        "type" / ExprAdapter(Nibble, lambda number, _: DataType(number), lambda kind, _: int(kind)),
    ),
)

_TYPED_DATA = _as(
    TypedData,
    Struct(
        "tag" / _TAG,
        "value"
        / Switch(
            lambda data: data.tag.type,
            {
                DataType.NULL: Pass,
                DataType.BOOL: Computed(lambda data: data.tag.flags & 1 == 1),
                DataType.INT32: _SIGNED,
                DataType.UINT32: _VARINT,
                DataType.INT64: _SIGNED,
                DataType.UINT64: _VARINT,
                DataType.IPV4: Bytes(4),
                DataType.IPV6: Bytes(16),
                DataType.STRING: Prefixed(_VARINT, GreedyBytes),
                DataType.BINARY: Prefixed(_VARINT, GreedyBytes),
            },
        ),
    ),
)

# --- Payloads (SPOE.txt 3.2): a name may be empty, and may occur twice ---------------------------

_PAIR = _as(Pair, Struct("name" / _NAME, "data" / _TYPED_DATA))
_KV_LIST = GreedyRange(_PAIR)

_MESSAGE = _as(Message, Struct("name" / _NAME, "args" / PrefixedArray(Int8ub, _PAIR)))
_MESSAGES = GreedyRange(_MESSAGE)

_SCOPE = ExprAdapter(Int8ub, lambda number, _: Scope(number), lambda scope, _: int(scope))

# The second byte is the number of arguments. Scope and name are arguments without a type byte.
_SET_VAR = _as(
    SetVar,
    Struct(
        Const(ActionType.SET_VAR.value, Int8ub),
        Const(3, Int8ub),
        "scope" / _SCOPE,
        "name" / _NAME,
        "data" / _TYPED_DATA,
    ),
)
_UNSET_VAR = _as(
    UnsetVar,
    Struct(
        Const(ActionType.UNSET_VAR.value, Int8ub),
        Const(2, Int8ub),
        "scope" / _SCOPE,
        "name" / _NAME,
    ),
)
_ACTION = Select(_SET_VAR, _UNSET_VAR)
_ACTIONS = GreedyRange(_ACTION)

# --- Frames: the length prefix counts everything but itself -------------------------------------


def is_whole(flags: int) -> bool:
    """Tell whether a first frame is its own last fragment and means what it says."""
    return flags & (FrameFlag.FIN | FrameFlag.ABORT) == FrameFlag.FIN


_PAYLOADS = {
    FrameType.HAPROXY_HELLO: _KV_LIST,
    FrameType.HAPROXY_DISCONNECT: _KV_LIST,
    FrameType.NOTIFY: _MESSAGES,
    FrameType.AGENT_HELLO: _KV_LIST,
    FrameType.AGENT_DISCONNECT: _KV_LIST,
    FrameType.ACK: _ACTIONS,
}

_HEAD = ("type" / Int8ub, "flags" / Int32ub, "stream_id" / _VARINT, "frame_id" / _VARINT)

_FRAME = Prefixed(
    Int32ub,
    _as(
        Frame,
        Struct(
            *_HEAD,
            "payload"
            / Switch(
                lambda frame: frame.type if is_whole(frame.flags) else None,
                _PAYLOADS,
                default=GreedyBytes,
            ),
            Terminated,
        ),
    ),
)


class Format(Generic[T]):
    """One declaration from above, and the type of what it holds."""

    def __init__(self, construct: Construct) -> None:
        self._construct = construct

    def parse(self, data: bytes) -> T:
        """Parse bytes that hold exactly one T. Raises SchemaError."""
        stream = BytesIO(data)
        value = self.read(stream)
        if stream.tell() != len(data):
            raise SchemaError(f"{len(data) - stream.tell()} bytes too many or unreadable")
        return value

    def read(self, stream: BinaryIO) -> T:
        """Parse one T and leave the stream behind it. Raises SchemaError."""
        try:
            value: T = self._construct.parse_stream(stream)
        except (ConstructError, ValueError) as error:
            raise SchemaError(_sentence(error)) from None
        return value

    def build(self, value: T) -> bytes:
        """Write one T. Raises SchemaError when it does not fit."""
        try:
            return bytes(self._construct.build(value))
        except (ConstructError, ValueError) as error:
            raise SchemaError(_sentence(error)) from None


_TOO_SHORT = re.compile(r"stream read less than specified amount, expected (\d+), found (\d+)")


def _sentence(error: Exception) -> str:
    """Turn construct's two lines, `Error in path (parsing) -> data -> value`, into one."""
    place, _, text = str(error).rpartition("\n")
    field = place.rpartition(" -> ")[2] if " -> " in place else ""
    text = _TOO_SHORT.sub(r"\1 bytes expected, \2 left", text)
    return f"{field}: {text}" if field else text


varint: Format[int] = Format(_VARINT)
byte: Format[int] = Format(Int8ub)
flags: Format[int] = Format(Int32ub)
scope: Format[Scope] = Format(_SCOPE)
name: Format[bytes] = Format(_NAME)
typed_data: Format[TypedData] = Format(_TYPED_DATA)
pair: Format[Pair] = Format(_PAIR)
kv_list: Format[list[Pair]] = Format(_KV_LIST)
message: Format[Message] = Format(_MESSAGE)
messages: Format[list[Message]] = Format(_MESSAGES)
action: Format[Action] = Format(_ACTION)
actions: Format[list[Action]] = Format(_ACTIONS)
frame: Format[Frame] = Format(_FRAME)
"""A whole frame, length prefix included."""
