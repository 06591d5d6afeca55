import pytest

from spoa.bench.load.frames import (
    AT_BYTES,
    HEAD_BYTES,
    IDS_BYTES,
    LENGTH,
    decode_actions,
    encode_at,
    encode_hello,
    encode_ids,
    encode_notify,
)
from spoa.spop.codec import decode_kv_list, decode_notify, encode_ack, encode_set_var
from spoa.spop.constants import FrameType, Scope
from spoa.spop.value import Address, Value

IDS = encode_ids(0)
VALUES: list[tuple[bytes, Value]] = [
    (b"allow", True),
    (b"not", False),
    (b"nothing", None),
    (b"user", b"user1"),
    (b"long", b"x" * 300),
    (b"retry_after", 5),
    (b"negative", -1),
    (b"v4", Address(b"\x7f\0\0\1")),
    (b"v6", Address(bytes(16))),
]


def encode_actions(*values: tuple[bytes, Value]) -> bytes:
    return b"".join(encode_set_var(Scope.TRANSACTION, name, value) for name, value in values)


def test_notify_and_at_make_one_frame() -> None:
    """A frame kept without its `at`, and the bytes of `at`, are a NOTIFY that the agent reads."""
    args: dict[bytes, Value] = {b"acl": b"demo", b"session": None, b"src": Address(b"\x0a\0\0\1")}
    frame = encode_notify(IDS, args) + encode_at(1_700_000_000.1239)
    (length,) = LENGTH.unpack_from(frame)
    notify = decode_notify(frame[HEAD_BYTES:])
    assert length == len(frame) - LENGTH.size
    assert (notify.ids, notify.messages[0].name) == (IDS, b"check-http")
    assert notify.messages[0].args == {**args, b"at": 1_700_000_000_123}


@pytest.mark.parametrize("wall_s", [554_084_600.1, 1.8e9, 70_922_828_777.0])
def test_at_always_takes_the_bytes_that_the_length_promises(wall_s: float) -> None:
    """From 1987 to 4217 `at` has one size, so a frame's length does not depend on the hour."""
    assert len(encode_at(wall_s)) == AT_BYTES


def test_ids_have_one_size_and_do_not_repeat_in_flight() -> None:
    """Among 100,000 requests in a row no two have the same ids, and all ids take four bytes."""
    all_ids = [encode_ids(index) for index in range(1_000_000, 1_100_000)]
    assert {len(ids) for ids in all_ids} == {IDS_BYTES}
    assert len(set(all_ids)) == len(all_ids)


def test_hello_says_what_haproxy_says() -> None:
    """The generator offers pipelining, or its connections would carry one request at a time."""
    frame = encode_hello(b"engine")
    assert frame[LENGTH.size] == FrameType.HAPROXY_HELLO
    assert decode_kv_list(frame[HEAD_BYTES + 2 :]) == {
        b"supported-versions": b"2.0",
        b"max-frame-size": 16380,
        b"capabilities": b"pipelining",
        b"engine-id": b"engine",
    }


def test_actions_are_read_back() -> None:
    """Every type of value that an agent may set is read as it was written."""
    assert decode_actions(encode_ack(IDS, encode_actions(*VALUES))) == dict(VALUES)


@pytest.mark.parametrize(
    "actions",
    [
        b"\x02\x02\x02\x01a",
        b"\x01\x03\x02\x05allow",
        b"\x01\x03\x02\x04user\x08\x7fshort",
        b"\x01\x03\x02\x01a\x0a",
        b"\x01",
    ],
    ids=["unset-var", "no value", "past the end", "reserved type", "cut"],
)
def test_other_actions_are_refused(actions: bytes) -> None:
    """What is not a list of set-var actions is not taken for an answer."""
    with pytest.raises(ValueError, match=r"action|type"):
        decode_actions(encode_ack(IDS, actions))
