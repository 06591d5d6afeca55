"""SPOP frames for tests, right ones and wrong ones, built on `schema` and never on the codec."""

from collections.abc import Iterable

from spoa.spop import schema
from spoa.spop.constants import DataType, FrameType

FIN, ABORT = 1, 2
CONTROL_IDS = b"\x00\x00"


def typed(kind: DataType, value: schema.Value, flags: int = 0) -> schema.TypedData:
    if kind is DataType.BOOL:
        flags |= bool(value)
    return schema.TypedData(schema.Tag(flags, kind), value)


def string(text: bytes) -> schema.TypedData:
    return typed(DataType.STRING, text)


def uint32(number: int) -> schema.TypedData:
    return typed(DataType.UINT32, number)


def boolean(*, value: bool) -> schema.TypedData:
    return typed(DataType.BOOL, value)


def frame(kind: int, payload: bytes = b"", flags: int = FIN, ids: bytes = CONTROL_IDS) -> bytes:
    """Build a frame with any payload whatever, its length prefix right."""
    body = bytes((kind,)) + flags.to_bytes(4) + ids + payload
    return len(body).to_bytes(4) + body


def pairs(items: Iterable[tuple[bytes, schema.TypedData]]) -> bytes:
    return schema.kv_list.build([schema.Pair(name, data) for name, data in items])


_OFFER = {
    b"supported-versions": string(b"2.0"),
    b"max-frame-size": uint32(16380),
    b"capabilities": string(b"pipelining,async"),
    b"engine-id": string(b"9c3f87b2-2208-401e-9eb3-15fa5fbff612"),
}


def offer(
    *, without: bytes = b"", **changes: schema.TypedData
) -> list[tuple[bytes, schema.TypedData]]:
    """Return what HAProxy 2.6 offers, keys replaced, added (`max_frame_size=`) or left out."""
    changed = {name.replace("_", "-").encode(): data for name, data in changes.items()}
    return [(name, data) for name, data in {**_OFFER, **changed}.items() if name != without]


def hello(*, without: bytes = b"", **changes: schema.TypedData) -> bytes:
    return frame(FrameType.HAPROXY_HELLO, pairs(offer(without=without, **changes)))


def message(name: bytes, *args: tuple[bytes, schema.TypedData]) -> bytes:
    return schema.message.build(schema.Message(name, [schema.Pair(*arg) for arg in args]))


def notify(stream_id: int = 1, payload: bytes | None = None, flags: int = FIN) -> bytes:
    body = message(b"check-http", (b"acl", string(b"demo"))) if payload is None else payload
    return frame(FrameType.NOTIFY, body, flags, ids(stream_id))


def fragment(stream_id: int, piece: bytes, flags: int = 0) -> bytes:
    return frame(FrameType.UNSET, piece, flags, ids(stream_id))


def disconnect(status: int = 0, text: bytes = b"normal") -> bytes:
    payload = pairs([(b"status-code", uint32(status)), (b"message", string(text))])
    return frame(FrameType.HAPROXY_DISCONNECT, payload)


def ids(stream_id: int, frame_id: int = 1) -> bytes:
    return schema.varint.build(stream_id) + schema.varint.build(frame_id)
