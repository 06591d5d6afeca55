"""The conformance cases: what HAProxy, or somebody who is not HAProxy, may send to an agent."""

from collections.abc import Iterable
from dataclasses import dataclass

from spoa.spop.constants import (
    MAX_REASSEMBLED_BYTES,
    MAX_UNNEGOTIATED_FRAME_BYTES,
    DataType,
    FrameType,
    StatusCode,
)
from tests.support.frames import (
    ABORT,
    FIN,
    boolean,
    fragment,
    frame,
    hello,
    message,
    notify,
    offer,
    pairs,
    string,
    typed,
    uint32,
)

MESSAGE = message(b"check-http", (b"acl", string(b"demo")))


@dataclass(frozen=True)
class Case:
    """Bytes from HAProxy, and how they end: with a status of ours, or not at all."""

    name: str
    data: bytes
    status: StatusCode | None = None
    notifies: int = 0

    def __str__(self) -> str:
        return self.name


def _bad(name: str, data: bytes, status: StatusCode = StatusCode.INVALID_FRAME) -> Case:
    return Case(name, data, status)


def _open(data: bytes) -> bytes:
    return hello() + data


def length_prefix(length: int) -> bytes:
    return length.to_bytes(4)


def _cut(pieces: int, flags: Iterable[int]) -> bytes:
    """One NOTIFY of stream 5 in fragments."""
    size = -(-len(MESSAGE) // pieces)
    parts = [MESSAGE[at : at + size] for at in range(0, len(MESSAGE), size)]
    first, *rest = zip(parts, flags, strict=True)
    return notify(5, *first) + b"".join(fragment(5, *part) for part in rest)


HELLOS = [
    Case("hello", hello()),
    Case("hello 2.0", hello(supported_versions=string(b"2.0"))),
    Case("hello with blanks", hello(supported_versions=string(b" 2.0 , 1.5"))),
    Case("hello of a newer minor", hello(supported_versions=string(b"2.1"))),
    Case("hello without engine-id", hello(without=b"engine-id")),
    Case("hello with an unknown key", hello(new_thing=string(b"?"))),
    Case("hello with unknown capabilities", hello(capabilities=string(b" pipelining , warp"))),
    Case("hello without capabilities to name", hello(capabilities=string(b""))),
    Case("hello size 256", hello(max_frame_size=uint32(256))),
    Case("hello size 16380", hello(max_frame_size=uint32(16380))),
    Case("hello size 2^31", hello(max_frame_size=uint32(1 << 31))),
    Case("healthcheck false", hello(healthcheck=boolean(value=False))),
    Case(
        "hello with a duplicated key",
        frame(
            FrameType.HAPROXY_HELLO,
            pairs([(b"max-frame-size", uint32(0)), *offer()]),
        ),
    ),
    _bad("no versions", hello(without=b"supported-versions"), StatusCode.VERSION_NOT_FOUND),
    _bad("no size", hello(without=b"max-frame-size"), StatusCode.MAX_FRAME_SIZE_NOT_FOUND),
    _bad("no capabilities", hello(without=b"capabilities"), StatusCode.CAPABILITIES_NOT_FOUND),
    _bad("no keys", frame(FrameType.HAPROXY_HELLO), StatusCode.VERSION_NOT_FOUND),
    _bad("version 1.0", hello(supported_versions=string(b"1.0")), StatusCode.UNSUPPORTED_VERSION),
    _bad("version 20", hello(supported_versions=string(b"20.0")), StatusCode.UNSUPPORTED_VERSION),
    _bad("version none", hello(supported_versions=string(b"")), StatusCode.UNSUPPORTED_VERSION),
    _bad("size 0", hello(max_frame_size=uint32(0)), StatusCode.BAD_MAX_FRAME_SIZE),
    _bad("size 255", hello(max_frame_size=uint32(255)), StatusCode.BAD_MAX_FRAME_SIZE),
    _bad("versions mistyped", hello(supported_versions=uint32(2))),
    _bad("versions an address", hello(supported_versions=typed(DataType.IPV4, b"2.0,"))),
    _bad("size mistyped", hello(max_frame_size=string(b"16380"))),
    _bad("size a boolean", hello(max_frame_size=boolean(value=True))),
    _bad("capabilities mistyped", hello(capabilities=typed(DataType.NULL, None))),
    _bad("engine-id mistyped", hello(engine_id=uint32(1))),
    _bad("healthcheck mistyped", hello(healthcheck=string(b"true"))),
    _bad("ids 1 0", frame(FrameType.HAPROXY_HELLO, pairs(offer()), ids=b"\x01\x00")),
    _bad("ids 0 1", frame(FrameType.HAPROXY_HELLO, pairs(offer()), ids=b"\x00\x01")),
    _bad(
        "flags 0",
        frame(FrameType.HAPROXY_HELLO, pairs(offer()), flags=0),
        StatusCode.FRAGMENTATION_NOT_SUPPORTED,
    ),
    _bad("hello cut inside", frame(FrameType.HAPROXY_HELLO, pairs(offer())[:-1])),
    _bad("NOTIFY before HELLO", notify()),
    _bad("UNSET before HELLO", fragment(1, b"x")),
    _bad("ACK before HELLO", frame(FrameType.ACK)),
    _bad("second HELLO", _open(hello())),
]

FRAMING = [
    *[_bad(f"length {length}", length_prefix(length)) for length in range(7)],
    *[_bad(f"length {length} once open", _open(length_prefix(length))) for length in range(7)],
    _bad("length 2^32 - 1", length_prefix((1 << 32) - 1), StatusCode.FRAME_TOO_BIG),
    _bad(
        "length above the first limit",
        length_prefix(MAX_UNNEGOTIATED_FRAME_BYTES + 1),
        StatusCode.FRAME_TOO_BIG,
    ),
    _bad("length above the agreed one", _open(length_prefix(16381)), StatusCode.FRAME_TOO_BIG),
    Case("length agreed", _open(notify(1, message(b"m", (b"", string(b"x" * 16362))))), None, 1),
    _bad("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", StatusCode.FRAME_TOO_BIG),
    _bad("TLS", bytes.fromhex("1603010200010001fc0303"), StatusCode.FRAME_TOO_BIG),
    Case("unknown types", _open(frame(4) + frame(200, b"?") + frame(255) + notify()), None, 1),
    Case("unknown type before HELLO", frame(77, b"?") + hello()),
    Case("hundreds in one segment", _open(b"".join(map(notify, range(500)))), None, 500),
    Case("stream id 0", _open(notify(0)), None, 1),
    Case("the longest ids", _open(notify((1 << 64) - 1)), None, 1),
    _bad("our own kind of frame", _open(frame(FrameType.AGENT_HELLO))),
    _bad("our own goodbye", _open(frame(FrameType.AGENT_DISCONNECT))),
]

PAYLOADS = [
    Case("0 messages", _open(notify(1, b"")), None, 1),
    Case("two messages", _open(notify(1, MESSAGE * 2)), None, 1),
    Case(
        "255 args",
        _open(notify(1, message(b"m", *[(b"%d" % n, uint32(n)) for n in range(255)]))),
        None,
        1,
    ),
    _bad("length past the end", _open(notify(1, MESSAGE[:-1]))),
    _bad("a byte too many", _open(notify(1, MESSAGE + b"\x05"))),
    *[
        _bad(f"data type {kind}", _open(notify(1, b"\x01m\x01\x01a%c\x00" % kind)))
        for kind in range(10, 16)
    ],
    _bad("varint truncated in ids", _open(frame(FrameType.NOTIFY, ids=b"\xf0\xff"))),
    _bad("varint over-long in ids", _open(frame(FrameType.NOTIFY, ids=b"\xff" * 12 + b"\x00"))),
]

FRAGMENTS = [
    Case("two fragments", _open(_cut(2, (0, FIN))), None, 1),
    Case("one byte each", _open(_cut(len(MESSAGE), [0] * (len(MESSAGE) - 1) + [FIN])), None, 1),
    Case("an empty last fragment", _open(notify(5, MESSAGE, 0) + fragment(5, b"", FIN)), None, 1),
    Case("fragments, then another", _open(_cut(2, (0, FIN)) + notify(6)), None, 2),
    Case("a fragment is missing", _open(notify(5, MESSAGE[:9], 0))),
    Case("ABORT on NOTIFY", _open(notify(5, MESSAGE, FIN | ABORT) + notify(6)), None, 1),
    Case(
        "ABORT drops a partial",
        _open(notify(5, MESSAGE[:9], 0) + fragment(5, b"", FIN | ABORT) + notify(6)),
        None,
        1,
    ),
    _bad("UNSET alone", _open(fragment(5, b"x", FIN)), StatusCode.INTERLACED_FRAMES),
    _bad(
        "UNSET of another stream",
        _open(notify(5, MESSAGE[:9], 0) + fragment(6, MESSAGE[9:], FIN)),
        StatusCode.INTERLACED_FRAMES,
    ),
    _bad(
        "NOTIFY between fragments",
        _open(notify(5, MESSAGE[:9], 0) + notify(6)),
        StatusCode.INTERLACED_FRAMES,
    ),
    _bad(
        "UNSET after the last fragment",
        _open(_cut(2, (0, FIN)) + fragment(5, b"", FIN)),
        StatusCode.INTERLACED_FRAMES,
    ),
    _bad("fragments of nothing sensible", _open(notify(5, b"\x0a", 0) + fragment(5, b"x", FIN))),
    _bad(
        "fragments without end",
        _open(notify(5, b"", 0) + fragment(5, bytes(8000)) * (MAX_REASSEMBLED_BYTES // 8000 + 1)),
        StatusCode.FRAME_TOO_BIG,
    ),
]

CASES = HELLOS + FRAMING + PAYLOADS + FRAGMENTS
