"""What nodes of a cluster say about slots, read; and rubbish, refused."""

import pytest
from hiredis import ReplyError

from tokens.question import Reply
from tokens.store.slots import (
    SLOTS,
    Detour,
    SlotRange,
    hosts,
    key_slot,
    missing,
    read_detour,
    read_slots,
)
from tokens.store.url import Host

A, B, C = Host("10.0.0.1", 7001), Host("10.0.0.2", 7002), Host("::1", 7003)
TOLD_BY = Host("asked", 7000)


@pytest.mark.parametrize(
    ("said", "detour"),
    [
        ("MOVED 3999 10.0.0.1:7001", Detour(A, is_asking=False)),
        ("ASK 3999 10.0.0.2:7002", Detour(B, is_asking=True)),
        ("MOVED 3999 ::1:7003", Detour(C, is_asking=False)),
        ("MOVED 3999 :7001", Detour(Host("asked", 7001), is_asking=False)),
        ("MOVED", None),
        ("MOVED 3999", None),
        ("MOVED 3999 10.0.0.1", None),
        ("MOVED 3999 10.0.0.1:x", None),
        ("MOVED 3999 10.0.0.1:0", None),
        ("MOVED 3999 10.0.0.1:65536", None),
        ("ASKED 3999 10.0.0.1:7001", None),
        ("ERR MOVED 3999 10.0.0.1:7001", None),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
    ],
)
def test_redirections(said: str, detour: Detour | None) -> None:
    """Only MOVED and ASK with an address lead anywhere."""
    assert read_detour(ReplyError(said), TOLD_BY) == detour


def test_slots() -> None:
    """Each range has a primary and replicas; a node without a name is the one that was asked."""
    reply: Reply = [
        [0, 99, [b"10.0.0.1", 7001, b"id", []], [b"10.0.0.2", 7002, b"id"]],
        [100, 199, [b"", 7001, b"id"]],
        [300, 300, [None, 7001, b"id"]],
    ]
    ranges = read_slots(reply, TOLD_BY)
    here = Host("asked", 7001)
    assert ranges == [
        *(SlotRange(0, 99, A, (B,)), SlotRange(100, 199, here, ()), SlotRange(300, 300, here, ()))
    ]
    assert missing(ranges) == SLOTS - 201
    assert hosts(ranges) == [A, B, here]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"OK",
        [],
        [1],
        [[0, 99]],
        [[0, SLOTS, [b"h", 1]]],
        [[-1, 5, [b"h", 1]]],
        [[5, 4, [b"h", 1]]],
        [[0, 99, []]],
        [[0, 99, [1, 1]]],
        [[0, 99, [b"h", b"1"]]],
        [[0, 99, [b"h", 1], None]],
    ],
)
def test_rubbish(reply: Reply) -> None:
    """What is no answer to CLUSTER SLOTS is refused, never half believed."""
    with pytest.raises(ValueError, match="CLUSTER SLOTS"):
        read_slots(reply, TOLD_BY)


def test_where_a_key_lives() -> None:
    """The braces of a key keep it in the slot of what they hold."""
    assert (
        key_slot(b"kat:grants:{wiki}") == key_slot(b"kat:grants:{wiki}:meta") == key_slot(b"wiki")
    )
