"""What Redis is asked about tokens, sessions and grants, and whose reply is whose."""

import itertools
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gates import CHECK, bringing, coming, digest_of, kid_of, returning
from tests.support.records import GOOD
from tokens.check import LOGOUT, SESSION, Check
from tokens.policy.proofs import SCRIPT, SHA, Grants, Sessions, Tokens
from tokens.policy.redeem import Redeemer, ReplyMismatch
from tokens.policy.session import mint_session
from tokens.record import Keys
from tokens.token import mint

FAULT = redis.ResponseError("LOADING not yet")


def sessions_of(*checks: Check, per_call: int = 128, idle_of_acl: int | None = None) -> Sessions:
    acls = {check.acl for check in checks}
    return Sessions(checks, dict.fromkeys(acls, idle_of_acl), Keys(), per_call)


def visitor(idle_ms: int | None = None, needs: int = SESSION) -> Check:
    return returning(mint_session(idle_ms), needs=needs)


def key_of(check: Check) -> bytes:
    return b"kat:s:" + digest_of(check.session)


def grants_of(*checks: Check) -> Grants:
    return Grants(checks, Keys())


def from_(address: str, acl: str = "ip") -> Check:
    return coming(acl, source=ip_address(address).packed if address else b"")


# Tokens.


def test_tokens_of_several_calls_are_read_as_one() -> None:
    """The answers of all calls stand in the order of the checks."""
    checks = [bringing(mint().encode()) for _ in range(3)]
    tokens = Tokens(checks, Redeemer(Keys(), 80, 2))
    calls = tokens._calls
    kids = [kid_of(check.token) for check in checks]
    replies: list[Any] = [
        [1, calls[0].claim, kids[0], 5, GOOD, kids[1], b"unknown", b""],
        [1, calls[1].claim, kids[2], b"early", b""],
    ]
    assert [code for _, code, _ in tokens.read(replies)] == [5, b"unknown", b"early"]
    with pytest.raises(ReplyMismatch):
        tokens.read(replies[::-1])


# Sessions.


def test_what_is_asked_about_sessions() -> None:
    """GETDEL for who leaves, one MGET for all that need no more, one touch.lua for the others."""
    plain, other = visitor(), visitor()
    idle, leaving = visitor(60_000), visitor(60_000, LOGOUT)
    sessions = sessions_of(plain, idle, leaving, other)
    assert [question.head for question in sessions.questions] == [
        (b"GETDEL", key_of(leaving)),
        (b"MGET", key_of(plain), key_of(other)),
        (b"EVALSHA", SHA, b"1", key_of(idle)),
    ]
    assert sessions.questions[-1].tail == (b"60000",)
    assert [question.key for question in sessions.questions] == [
        key_of(leaving),
        key_of(plain),
        key_of(idle),
    ]
    assert sessions.read([b"3", [b"1", None], [b"2"]]) == [b"1", b"2", b"3", None]


def test_a_session_id_is_not_asked_about() -> None:
    """Redis is told digests; an id stands in no command."""
    checks = [visitor(), visitor(60_000), visitor(None, LOGOUT)]
    questions = sessions_of(*checks).questions
    said = b" ".join(part for it in questions for part in it.head if isinstance(part, bytes))
    assert not any(check.session[:43] in said for check in checks)


@pytest.mark.parametrize(
    ("number", "per_call", "sizes"),
    [(0, 128, []), (1, 128, [1]), (128, 128, [128]), (129, 128, [128, 1]), (3, 1, [1, 1, 1])],
)
def test_sessions_are_cut_to_size(number: int, per_call: int, sizes: list[int]) -> None:
    """A batch is cut into calls, in order; in a cluster each key goes where it lives."""
    checks = [visitor() for _ in range(number)]
    sessions = sessions_of(*checks, per_call=per_call)
    assert [len(question.head) - 1 for question in sessions.questions] == sizes
    keys = [key for question in sessions.questions for key in question.head[1:]]
    assert keys == [key_of(check) for check in checks]
    replies: list[Any] = [list(question.head[1:]) for question in sessions.questions]
    assert sessions.read(replies) == keys


def test_an_error_is_one_for_each_it_answers() -> None:
    """An error in place of a reply is the one of each check that it is about, and of no other."""
    checks = [visitor(), visitor(60_000), visitor()]
    assert sessions_of(*checks).read([FAULT, [b"x"]]) == [FAULT, b"x", FAULT]
    assert sessions_of(*checks).read([[b"x", b"y"], [FAULT]]) == [b"x", FAULT, b"y"]
    assert sessions_of(*checks).read([[b"x", None], FAULT]) == [b"x", FAULT, None]


@pytest.mark.parametrize("reply", [None, b"x", 1, [], [b"x"], [b"x", b"y", b"z"]])
def test_what_is_no_answer_to_mget(reply: Any) -> None:
    """Anything but one value for each key is believed in nothing."""
    with pytest.raises(ReplyMismatch):
        sessions_of(visitor(), visitor()).read([reply])


# Grants.


def test_one_question_for_each_acl() -> None:
    """All clients of an ACL are looked up by one ZMSCORE, with every network they belong to."""
    grants = grants_of(from_("192.0.2.7"), from_("2001:db8::1"), from_("10.0.0.1", "grant"))
    first, second = [question.head for question in grants.questions]
    assert first[:2] == (b"ZMSCORE", b"kat:grants:{ip}")
    assert first[2:] == (
        *(b"192.0.2.7", b"192.0.2.0/24", b"192.0.0.0/16", b"192.0.0.0/8"),
        *(b"2001:db8::1", b"2001:db8::/64", b"2001:db8::/56", b"2001:db8::/48", b"2001:db8::/32"),
    )
    assert second[:3] == (b"ZMSCORE", b"kat:grants:{grant}", b"10.0.0.1")
    assert [question.key for question in grants.questions] == [first[1], second[1]]


def test_the_longest_grant_of_a_client_counts() -> None:
    """Of an address and its networks the last end is told; without any it is 0."""
    grants = grants_of(from_("192.0.2.7"), from_("10.0.0.1"), from_("198.51.100.1"))
    scores = [b"5", None, b"9.5", None, None, None, None, None, None, b"7", None, b"1e3"]
    assert grants.read([scores]) == [9.5, 0, 1000.0]


def test_a_client_without_address_has_no_grant() -> None:
    """It is looked up under no name that anybody could grant."""
    grants = grants_of(from_(""))
    assert grants.questions[0].head[2:] == (b"",)
    assert grants.read([[None]]) == [0]


clients = st.sampled_from(["192.0.2.7", "192.0.2.8", "10.0.0.1", "2001:db8::1", ""])
visits = st.lists(st.tuples(clients, st.sampled_from("abcdefgh")), max_size=30)


@given(visits)
def test_no_reply_fits_the_question_of_another_acl(batch: list[tuple[str, str]]) -> None:
    """Scores do not say whose they are: no two questions of a batch have as many members."""
    grants = grants_of(*itertools.starmap(from_, batch))
    sizes = [len(question.head) for question in grants.questions]
    assert len(set(sizes)) == len(sizes) == len({acl for _, acl in batch})


@given(visits.filter(bool), st.data())
def test_moved_replies_grant_nothing(batch: list[tuple[str, str]], data: st.DataObject) -> None:
    """Replies of a batch in another order, or one in place of another, are a mismatch."""
    grants = grants_of(*itertools.starmap(from_, batch))
    replies: list[Any] = [[b"9"] * (len(it.head) - 2) for it in grants.questions]
    moved = data.draw(
        st.permutations(replies)
        | st.lists(st.sampled_from(replies), min_size=len(replies), max_size=len(replies))
    )
    if [*map(len, moved)] == [*map(len, replies)]:
        assert grants.read(moved) == [9.0] * len(batch)
    else:
        with pytest.raises(ReplyMismatch):
            grants.read(moved)


def test_an_error_is_one_for_each_client_of_its_acl() -> None:
    """Who is asked about under another ACL is not touched by it."""
    grants = grants_of(from_("192.0.2.7"), from_("192.0.2.7", "grant"))
    replies: list[Any] = [FAULT, [b"9"] * (len(grants.questions[1].head) - 2)]
    assert grants.read(replies) == [FAULT, 9.0]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        1,
        b"9",
        [],
        [b"9"],
        [b"9"] * 5,
        [b"9", None, None, b"x"],
        [9, None, None, None],
        [[b"9"]] * 4,
    ],
)
def test_what_is_no_answer_to_zmscore(reply: Any) -> None:
    """Anything but one score, or none, for each member is believed in nothing."""
    with pytest.raises(ReplyMismatch):
        grants_of(from_("192.0.2.7")).read([reply])


def test_the_record_of_a_session_is_no_score() -> None:
    """MGET's reply in place of ZMSCORE's grants nothing."""
    with pytest.raises(ReplyMismatch):
        grants_of(replace(CHECK, acl=b"ip")).read([[b'{"v":1}', None, None, None]])


def test_touch_lua_keeps_alive_what_it_reads(client: redis.Redis) -> None:
    """Each session lives on for its own time; what is gone or no text is so for itself alone."""
    for key, lasts_ms in ((b"a", 5_000), (b"c", 90_000)):
        client.set(key, b"record " + key, px=lasts_ms)
    client.hset("b", "no", "text")
    keys, times = (b"a", b"gone", b"b", b"c"), (60_000, 1_000, 1_000, 60_000)
    reply = client.eval(SCRIPT, len(keys), *keys, b"replid", 0, *times)
    assert isinstance(reply, list)
    first, gone, wrong, last = reply
    assert (first, gone, last) == (b"record a", None, b"record c")
    assert str(wrong).startswith("WRONGTYPE")
    assert all(50_000 < client.pttl(key) <= 60_000 for key in (b"a", b"c"))
    assert client.pttl("gone") == -2
