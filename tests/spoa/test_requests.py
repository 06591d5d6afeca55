"""NOTIFYs as Checks: arguments by name, types as asked for, the same by template and without."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.spop.codec import Notify, decode_notify
from spoa.spop.constants import DataType
from spoa.spop.schema import TypedData
from spoa.spop.template import Templates
from spoa.worker import requests
from spoa.worker.requests import WANTED, Request
from tests.support.frames import boolean, ids, message, string, typed

How = Callable[[bytes], Request]
ROOM = 8000
CLIENT = bytes((192, 0, 2, 7))
TEXTS = (b"acl", b"token", b"host", b"method", b"path", b"nonce", b"session", b"via", b"id")
FULL: dict[bytes, TypedData] = {
    **{name: string(b"the " + name) for name in TEXTS},
    b"src": typed(DataType.IPV4, CLIENT),
    b"at": typed(DataType.INT64, 1234),
}


def ask(*names: bytes, **args: TypedData) -> bytes:
    """Word a NOTIFY of these messages, each with these arguments."""
    pairs = [(name.encode(), value) for name, value in args.items()]
    return ids(1) + b"".join(message(name, *pairs) for name in names)


def read(payload: bytes) -> Request:
    return requests.read(decode_notify(payload), ROOM)


def read_shaped(payload: bytes) -> Request:
    """Read it the second time, when its template is known."""
    templates = Templates(WANTED)
    decode_notify(payload, templates)
    return requests.read(decode_notify(payload, templates), ROOM)


BOTH = pytest.mark.parametrize("how", [read, read_shaped])


def full(**changes: TypedData) -> dict[str, TypedData]:
    return {**{name.decode(): value for name, value in FULL.items()}, **changes}


@BOTH
def test_every_argument_has_its_place(how: How) -> None:
    """Each argument ends where its name says, and nowhere else."""
    name, check, at_ms = how(ask(b"check-http", **full()))
    assert (name, at_ms, check.source, check.room_bytes) == (b"check-http", 1234, CLIENT, ROOM)
    told = (check.acl, check.token, check.host, check.method, check.path, check.nonce)
    assert (*told, check.session, check.via, check.unique_id) == tuple(
        b"the " + text for text in TEXTS
    )


@BOTH
@pytest.mark.parametrize("name", sorted(FULL))
def test_what_is_absent_is_empty(how: How, name: bytes) -> None:
    """An argument that HAProxy has no value for is as good as none, whichever it is."""
    absent = full(**{name.decode(): typed(DataType.NULL, None)})
    left_out = {key: value for key, value in full().items() if key != name.decode()}
    nothing = how(ask(b"check-http", **absent))
    assert nothing == how(ask(b"check-http", **left_out))
    assert nothing != how(ask(b"check-http", **full()))


@BOTH
@pytest.mark.parametrize("name", sorted(FULL))
@pytest.mark.parametrize("kind", ["text", "address", "integer", "bool"])
def test_another_type_counts_as_not_given(how: How, name: bytes, kind: str) -> None:
    """A number is no token, a text no address: whatever is of another type is not believed."""
    wrong = {
        "text": string(b"x"),
        "address": typed(DataType.IPV4, CLIENT),
        "integer": typed(DataType.INT64, 7),
        "bool": boolean(value=True),
    }[kind]
    if kind == {b"src": "address", b"at": "integer"}.get(name, "text"):
        return
    absent = full(**{name.decode(): typed(DataType.NULL, None)})
    got = how(ask(b"check-http", **full(**{name.decode(): wrong})))
    assert got == how(ask(b"check-http", **absent))


@BOTH
@pytest.mark.parametrize(
    "names", [(), (b"other",), (b"check-http",) * 2, (b"check-tcp", b"logout")]
)
def test_not_exactly_one_message_of_ours_is_none(how: How, names: tuple[bytes, ...]) -> None:
    """A NOTIFY has one ACK: with no question of ours, or two, there is none to answer."""
    name, _, _ = how(ask(*names, **full()))
    assert name == b""


@BOTH
@pytest.mark.parametrize("name", [b"check-http", b"check-tcp", b"logout"])
def test_messages_of_others_are_no_hindrance(how: How, name: bytes) -> None:
    """A question of ours is found among messages that are not."""
    found, check, _ = how(ask(b"other", name, **full()))
    assert (found, check.acl) == (name, b"the acl")


@given(
    st.lists(
        st.permutations(sorted(FULL)).flatmap(
            lambda names: st.integers(0, len(names)).map(lambda number: names[:number])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_templates_change_no_check(shapes: list[list[bytes]]) -> None:
    """In whatever order arguments come, and whatever came before, both ways read the same."""
    templates = Templates(WANTED)
    for shape in itertools.chain(shapes, shapes):
        payload = ids(1) + message(b"check-http", *((name, FULL[name]) for name in shape))
        got = requests.read(decode_notify(payload, templates), ROOM)
        assert got == read(payload)


def test_a_negative_time_is_negative_both_ways() -> None:
    """HAProxy's integers have a sign."""
    payload = ask(b"check-tcp", at=typed(DataType.INT64, -5))
    assert read(payload)[2] == read_shaped(payload)[2] == -5


def test_an_empty_notify_asks_nothing() -> None:
    """A NOTIFY without messages has no question of ours."""
    assert requests.read(Notify(ids(1), []), ROOM)[0] == b""
