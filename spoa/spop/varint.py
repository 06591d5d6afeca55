"""HAProxy's variable-length integers (SPOE.txt 3.1, "Peers encoding"); not LEB128.

Below 240 a value is one byte. Otherwise the first byte is 240 or more and holds four bits, each
further byte holds seven, and every byte ADDS its whole value, continuation bit included. So each
number has exactly one encoding and over-long forms do not exist.

All integers of SPOP are read into 64 bits, so a negative INT32 arrives sign-extended.
"""

from spoa.spop.constants import MAX_VARINT_BYTES, StatusCode
from spoa.spop.errors import ProtocolError

ONE_BYTE_LIMIT = 240
"""Values below it are their own encoding."""

_UINT64_MAX = (1 << 64) - 1
_INT64_MAX = (1 << 63) - 1


def decode_varint(data: bytes, pos: int) -> tuple[int, int]:
    """Read one varint at `pos`: (value in 0 ... 2^64 - 1, position after it).

    Raises IndexError when `data` ends inside it, ProtocolError when it needs more than 64 bits.
    """
    value = data[pos]
    if value < ONE_BYTE_LIMIT:
        return value, pos + 1
    last = pos + MAX_VARINT_BYTES
    shift = 4
    while True:
        pos += 1
        byte = data[pos]
        value += byte << shift
        if byte < 128:  # noqa: PLR2004 - the continuation bit
            break
        shift += 7
        if pos == last:
            raise ProtocolError(StatusCode.INVALID_FRAME, "varint longer than 64 bits")
    if value > _UINT64_MAX:
        raise ProtocolError(StatusCode.INVALID_FRAME, "varint longer than 64 bits")
    return value, pos + 1


def decode_length(data: bytes, pos: int) -> tuple[int, int]:
    """Read the length of a name or value: what `data` cannot hold is an IndexError as well.

    So no position leaves 64 bits, where an index is a ValueError in the compiled form.
    """
    length, pos = decode_varint(data, pos)
    if length > len(data):
        raise IndexError
    return length, pos


def skip_varint(data: bytes, pos: int) -> int:
    """Return the position after the varint at `pos`. Raises as `decode_varint` does."""
    if data[pos] < ONE_BYTE_LIMIT:
        return pos + 1
    end = pos + 1
    while data[end] >= 128:  # noqa: PLR2004 - the continuation bit
        end += 1
    # Only the longest ones may be too long.
    return end + 1 if end - pos < MAX_VARINT_BYTES - 1 else decode_varint(data, pos)[1]


def encode_varint(value: int) -> bytes:
    """Write one varint; a negative value as HAProxy does, in two's complement of 64 bits."""
    value &= _UINT64_MAX
    if value < ONE_BYTE_LIMIT:
        return bytes((value,))
    out = bytearray(((value & 0xFF) | 0xF0,))
    value = (value - ONE_BYTE_LIMIT) >> 4
    while value >= 128:  # noqa: PLR2004 - the continuation bit
        out.append((value & 0xFF) | 0x80)
        value = (value - 128) >> 7
    out.append(value)
    return bytes(out)


def to_signed(value: int) -> int:
    """Read 64 bits as two's complement."""
    return value if value <= _INT64_MAX else value - (1 << 64)
