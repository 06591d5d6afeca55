"""The frames of the load generator: HELLO and NOTIFY as HAProxy writes them, ACKs read back.

A NOTIFY ends with the argument `at`, the wall clock in milliseconds, whose varint has the same
seven bytes until the year 4217. So a frame is kept without it, and one `at.join(frames)` stamps
a whole write: the agent refuses what looks older than its deadline, a constant would not do.
"""

from collections.abc import Mapping
from struct import Struct

from spoa.spop.codec import encode_frame, encode_string, encode_value
from spoa.spop.constants import (
    BOOL_TRUE,
    DEFAULT_MAX_FRAME_BYTES,
    FRAME_LENGTH_BYTES,
    PIPELINING,
    SPOP_VERSION,
    ActionType,
    DataType,
    FrameFlag,
    FrameType,
)
from spoa.spop.value import Address, Value
from spoa.spop.varint import decode_varint, encode_varint, to_signed

LENGTH = Struct(">I")
HEAD_BYTES = FRAME_LENGTH_BYTES + 5
"""Length, type and flags: what stands before the ids."""

AT_BYTES = 7
"""The varint of a wall clock in milliseconds, from the year 1987 to 4217."""

# Stream ids of three bytes, as on a connection that has lived for a while. HAProxy 3.2 counts
# 1, 3, 5 ... per connection; every frame having the same size is what makes the checks cheap.
FIRST_STREAM_ID = 2289
_STREAM_IDS = (264_432 - FIRST_STREAM_ID) // 2
_FRAME_ID = b"\x01"
IDS_BYTES = 4

_NOTIFY_HEAD = Struct(">BI").pack(FrameType.NOTIFY, FrameFlag.FIN)
_MESSAGE = b"check-http"
_SET_VAR_ARGS = 3


def encode_hello(engine_id: bytes) -> bytes:
    """Encode the HAPROXY-HELLO of HAProxy 3.2 (SPOE.txt 3.2.4)."""
    return encode_frame(
        FrameType.HAPROXY_HELLO,
        (
            (b"supported-versions", DataType.STRING, SPOP_VERSION),
            (b"max-frame-size", DataType.UINT32, DEFAULT_MAX_FRAME_BYTES),
            (b"capabilities", DataType.STRING, PIPELINING),
            (b"engine-id", DataType.STRING, engine_id),
        ),
    )


def encode_ids(index: int) -> bytes:
    """Encode the ids of the index-th request: always four bytes, distinct while in flight."""
    return encode_varint(FIRST_STREAM_ID + 2 * (index % _STREAM_IDS)) + _FRAME_ID


def encode_notify(ids: bytes, args: Mapping[bytes, Value]) -> bytes:
    """Encode a NOTIFY with these arguments and, last, an `at` whose bytes are still missing."""
    pairs = b"".join(encode_string(name) + encode_value(value) for name, value in args.items())
    message = encode_string(_MESSAGE) + b"%c" % (len(args) + 1) + pairs
    frame = _NOTIFY_HEAD + ids + message + encode_string(b"at") + b"%c" % DataType.INT64
    return LENGTH.pack(len(frame) + AT_BYTES) + frame


def encode_at(wall_s: float) -> bytes:
    """Encode the missing bytes of `at`."""
    return encode_varint(int(wall_s * 1000))


def decode_actions(frame: bytes) -> dict[bytes, Value]:
    """Decode the variables that a whole ACK sets, by name. Raises ValueError for anything else."""
    pos = HEAD_BYTES + IDS_BYTES
    variables: dict[bytes, Value] = {}
    try:
        while pos < len(frame):
            if frame[pos : pos + 2] != bytes((ActionType.SET_VAR, _SET_VAR_ARGS)):
                raise ValueError("an action that is not set-var")
            length, pos = decode_varint(frame, pos + 3)
            name, pos = frame[pos : pos + length], pos + length
            variables[name], pos = _decode_value(frame, pos)
    except IndexError:
        raise ValueError("an action list that ends early") from None
    if pos > len(frame):
        raise ValueError("an action that runs past the frame")
    return variables


def _decode_value(frame: bytes, pos: int) -> tuple[Value, int]:
    kind = frame[pos]
    pos += 1
    match kind & 0x0F:
        case DataType.NULL:
            return None, pos
        case DataType.BOOL:
            return kind == BOOL_TRUE, pos
        case DataType.IPV4:
            return Address(frame[pos : pos + 4]), pos + 4
        case DataType.IPV6:
            return Address(frame[pos : pos + 16]), pos + 16
        case DataType.STRING | DataType.BINARY:
            length, pos = decode_varint(frame, pos)
            return frame[pos : pos + length], pos + length
        case DataType.INT32 | DataType.INT64 | DataType.UINT32 | DataType.UINT64:
            number, pos = decode_varint(frame, pos)
            return to_signed(number), pos
        case reserved:
            raise ValueError(f"a value of reserved type {reserved}")
