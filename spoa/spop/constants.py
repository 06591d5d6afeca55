"""Every number of the protocol, once.

Source: HAProxy's doc/SPOE.txt, sections 3.1 to 3.5.
"""

from enum import IntEnum, IntFlag

SPOP_VERSION = b"2.0"
"""The only version ever spoken by a released HAProxy."""

PIPELINING = b"pipelining"
FRAGMENTATION = b"fragmentation"

FRAME_LENGTH_BYTES = 4
"""The length prefix, big-endian, itself not counted."""

MIN_FRAME_BYTES = 7
"""Type, flags and two one-byte varints: nothing shorter is a frame."""

MIN_MAX_FRAME_BYTES = 256
"""SPOE.txt 3.2: the agreed maximum must be at least this."""

DEFAULT_MAX_FRAME_BYTES = 16380
"""HAProxy's default tune.bufsize of 16384, less the length prefix."""

# Before HELLO no limit is agreed. HAProxy's default buffer is 16 KiB; nbari/spop allows 1 MiB.
# 64 KiB is four ordinary frames, and 1,000 silent peers can hold at most 64 MiB.
MAX_UNNEGOTIATED_FRAME_BYTES = 64 * 1024

# A NOTIFY of ours is a few hundred bytes. HAProxy up to 3.0 fragments what exceeds one frame;
# four default frames hold the longest URL and headers that its own buffer can.
MAX_REASSEMBLED_BYTES = 64 * 1024

MAX_VARINT_BYTES = 10
"""64 bits: one byte of four bits, nine of seven, and HAProxy writes no more."""


class FrameType(IntEnum):
    """SPOE.txt 3.2.2."""

    UNSET = 0
    HAPROXY_HELLO = 1
    HAPROXY_DISCONNECT = 2
    NOTIFY = 3
    AGENT_HELLO = 101
    AGENT_DISCONNECT = 102
    ACK = 103


class FrameFlag(IntFlag):
    """SPOE.txt 3.2."""

    FIN = 1
    ABORT = 2


class DataType(IntEnum):
    """SPOE.txt 3.1. In the LOW nibble of its byte, the picture in the manual notwithstanding."""

    NULL = 0
    BOOL = 1
    INT32 = 2
    UINT32 = 3
    INT64 = 4
    UINT64 = 5
    IPV4 = 6
    IPV6 = 7
    STRING = 8
    BINARY = 9


BOOL_TRUE = 0x11
"""A BOOL holds its value in the flags, the HIGH nibble: true is 0x11, false 0x01."""


class ActionType(IntEnum):
    """SPOE.txt 3.4."""

    SET_VAR = 1
    UNSET_VAR = 2


class Scope(IntEnum):
    """Where a variable lives in HAProxy (SPOE.txt 3.4)."""

    PROCESS = 0
    SESSION = 1
    TRANSACTION = 2
    REQUEST = 3
    RESPONSE = 4


class StatusCode(IntEnum):
    """Why a connection ended (SPOE.txt 3.5)."""

    NORMAL = 0
    IO_ERROR = 1
    TIMEOUT = 2
    FRAME_TOO_BIG = 3
    INVALID_FRAME = 4
    VERSION_NOT_FOUND = 5
    MAX_FRAME_SIZE_NOT_FOUND = 6
    CAPABILITIES_NOT_FOUND = 7
    UNSUPPORTED_VERSION = 8
    BAD_MAX_FRAME_SIZE = 9
    FRAGMENTATION_NOT_SUPPORTED = 10
    INTERLACED_FRAMES = 11
    FRAME_ID_NOT_FOUND = 12
    RESOURCE_ALLOCATION = 13
    UNKNOWN = 99
