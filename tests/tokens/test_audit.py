"""What happened is told: once per batch, as JSON, with no secrets."""

import json
import math
from ipaddress import ip_address

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.strategies import names
from tokens.audit import EVENTS, Journal, entry
from tokens.check import Check
from tokens.question import Command
from tokens.token import mint

_KEY = b"kat:audit"
_KID = b"0123456789ab"
_USUAL_ID = b"C0000207:C350_C0000201:01BB_65F0A1B2_0042:0007"

_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def _check(src: str = "192.0.2.7", *, acl: bytes = b"demo", unique_id: bytes = _USUAL_ID) -> Check:
    source = ip_address(src).packed if src else b""
    return Check(acl, b"", b"", b"GET", b"/", b"", source, 0, unique_id=unique_id)


def _told(journal: Journal, now_s: float = 0.0) -> list[dict[str, str | int]]:
    question = journal.take(now_s)
    return _events(question.head) if question else []


def _events(command: Command) -> list[dict[str, str | int]]:
    value = command[-1]
    assert isinstance(value, bytes)
    events: list[dict[str, str | int]] = json.loads(value)
    return events


def _limit(command: Command) -> int:
    return int(command[4])


@pytest.fixture
def journal() -> Journal:
    return Journal(_KEY, 1000)


def test_an_event_tells_who_where_and_with_what(journal: Journal) -> None:
    """A consume names ACL, kid, user, client and HAProxy's id, and nothing else."""
    journal.add(b"consumed", _check(), _KID, b"user1")
    assert _told(journal) == [
        {
            "event": "consumed",
            "acl": "demo",
            "kid": _KID.decode(),
            "user": "user1",
            "src": "192.0.2.7",
            "id": _USUAL_ID.decode(),
        }
    ]


def test_what_is_not_known_is_left_out(journal: Journal) -> None:
    """An event without kid, user, client or id has no such fields."""
    journal.add(b"logout", _check("", unique_id=b""))
    journal.add(b"consumed", _check(unique_id=b""), _KID, b"u")
    journal.add(b"consumed", _check(""), _KID, b"u")
    nothing, *others = _told(journal)
    assert nothing == {"event": "logout", "acl": "demo"}
    assert [{"src", "id"} & event.keys() for event in others] == [{"src"}, {"id"}]


def test_a_batch_is_one_entry(journal: Journal) -> None:
    """However many events there are, they leave in one command, and only once."""
    for number in range(300):
        journal.add(b"consumed", _check(), b"%012x" % number, b"u")
    question = journal.take(0.0)
    assert question is not None
    assert question.key == _KEY
    assert question.tail == ()
    assert [event["kid"] for event in _events(question.head)] == [
        f"{number:012x}" for number in range(300)
    ]
    assert journal.take(0.0) is None
    assert journal.take(9.0) is None


def test_redis_takes_the_entry(client: redis.Redis, journal: Journal) -> None:
    """The command is one that Redis understands, and the stream holds what was told."""
    journal.add(b"consumed", _check(), _KID, "J\u00fcrgen".encode())
    question = journal.take(0.0)
    assert question is not None
    client.execute_command(*question.head)
    client.execute_command(*entry(_KEY, [{"event": "issued"}], 1000))
    (_, first), (_, second) = client.xrange(_KEY)
    assert json.loads(first[b"e"])[0]["user"] == "J\u00fcrgen"
    assert json.loads(second[b"e"]) == [{"event": "issued"}]


@given(user=_texts | names, neighbour=names)
def test_any_name_survives(user: str, neighbour: str) -> None:
    """Quotes, backslashes, controls and any script come out of the JSON as they went in."""
    journal = Journal(_KEY, 1000)
    for name in (user, neighbour):
        journal.add(b"consumed", _check(), _KID, name.encode())
    journal.add(b"refused", _check(), _KID, user.encode(), b"wrong_src")
    journal.add(b"consumed", _check(), _KID, neighbour.encode())
    assert [event["user"] for event in _told(journal)] == [user, neighbour, user, neighbour]


@given(user=st.binary(max_size=200), unique_id=st.binary(max_size=200), detail=st.binary())
@example(user=b"\xff", unique_id=b"", detail=b"")
def test_rubbish_breaks_no_entry(user: bytes, unique_id: bytes, detail: bytes) -> None:
    """Whatever bytes a field has, its neighbours' events can be read."""
    journal = Journal(_KEY, 1000)
    check = _check(unique_id=unique_id)
    journal.add(b"consumed", _check(), _KID, b"before")
    for what in (b"consumed", b"replayed"):
        journal.add(what, check, b'"' + user[:11], user, detail)
    for kid in (_KID, b'"' * 12):
        journal.add(b"session", check, kid, user, detail)
    journal.add(b"consumed", _check(), _KID, b"after")
    events = _told(journal)
    assert len(events) == 6
    assert (events[0]["user"], events[-1]["user"]) == ("before", "after")
    assert all(event["event"] in EVENTS for event in events)


def test_what_is_no_text_is_shown_as_none(journal: Journal) -> None:
    """A name that is no UTF-8 does not make its entry unreadable."""
    journal.add(b"consumed", _check(), _KID, b"J\xfcrgen")
    [event] = _told(journal)
    assert event["user"] == "J\ufffdrgen"


@given(unique_id=st.binary(min_size=1, max_size=140) | _texts.map(str.encode))
@example(unique_id="\u202e".encode())
@example(unique_id=b"x" * 128)
@example(unique_id=b"x" * 129)
def test_an_id_is_printable_or_absent(unique_id: bytes) -> None:
    """HAProxy's id is told if it is at most 128 printable characters, whole or not at all."""
    journal = Journal(_KEY, 1000)
    journal.add(b"consumed", _check(unique_id=unique_id), _KID, b"u")
    [event] = _told(journal)
    text = unique_id.decode(errors="replace")
    is_told = len(unique_id) <= 128 and text.isprintable()
    assert event.get("id") == (text if is_told else None)


def test_an_address_has_one_spelling(journal: Journal) -> None:
    """An IPv4-mapped client is told as the IPv4 one, an IPv6 one as RFC 5952 writes it."""
    for src in ("::ffff:192.0.2.7", "2001:DB8:0::1"):
        journal.add(b"consumed", _check(src), _KID, b"u")
    assert [event["src"] for event in _told(journal)] == ["192.0.2.7", "2001:db8::1"]


def test_no_token_is_told(journal: Journal) -> None:
    """A token in a field that somebody else chooses is hidden; so is all of a digest but a kid."""
    token, digest = mint(), b"0123456789ab" + b"c" * 52
    journal.add(b"consumed", _check(unique_id=f"x-{token}".encode()), _KID, b"kat_user")
    journal.add(b"consumed", _check(), digest, token.encode())
    journal.add(b"refused", _check(), digest, b"u", b"wrong_src")
    journal.fence_moved(digest, 1)
    question = journal.take(0.0)
    assert question is not None
    told = str(question.head) + str(entry(_KEY, [{"event": "issued", "user": token}], 9))
    assert token not in told
    assert "kat_user" in told
    assert digest[:13].decode() not in told


def test_a_refusal_says_why(journal: Journal) -> None:
    """A refusal has its reason; a replay, when and from where its token was consumed."""
    journal.add(b"refused", _check(), _KID, b"u", b"wrong_host")
    journal.add(b"replayed", _check(), _KID, b"", b"1714557600000 2001:db8::1")
    journal.add(b"replayed", _check("192.0.2.8"), _KID, b"", b"1714557600000 -")
    refused, replayed, from_nowhere = _told(journal)
    assert refused["reason"] == "wrong_host"
    assert (replayed["first_at"], replayed["first_src"]) == (1714557600000, "2001:db8::1")
    assert "reason" not in replayed
    assert "first_src" not in from_nowhere


@pytest.mark.parametrize("what", [b"session", b"logout"])
def test_a_session_has_a_name(journal: Journal, what: bytes) -> None:
    """What opens and ends a session is told with its sid, the name that a revocation takes."""
    sid = b"ba9876543210"
    journal.add(b"consumed", _check(), _KID, b"u")
    journal.add(what, _check(), _KID, b"u", sid)
    journal.add(what, _check(unique_id=b""), _KID, b"u", sid)
    journal.add(what, _check(), _KID, b"\xff", sid)
    journal.add(what, _check(), _KID, b"u", sid + b"c" * 52)
    consumed, *sessions = _told(journal)
    assert "sid" not in consumed
    assert [event["sid"] for event in sessions] == [sid.decode()] * 4
    assert ["id" in event for event in sessions] == [True, False, True, True]
    assert all("reason" not in event for event in sessions)


def test_a_moved_fence_is_told(journal: Journal) -> None:
    """A server with another memory is named by the beginning of its replid."""
    journal.fence_moved(b"8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb", 1714557600000)
    assert _told(journal) == [{"event": "fenced", "replid": "8371b4fb1155", "since": 1714557600000}]


@pytest.mark.parametrize("what", [b"refused", b"replayed"])
def test_a_flood_is_one_event_per_second(journal: Journal, what: bytes) -> None:
    """The first is told at once, the others as one with their number, also when no more come."""
    reason = b"wrong_src" if what == b"refused" else b"1714557600000 192.0.2.1"
    for _ in range(1000):
        journal.add(what, _check(), _KID, b"u", reason)
    [first] = _told(journal, 10.0)
    assert "n" not in first
    assert first["id"] == _USUAL_ID.decode()
    for _ in range(500):
        journal.add(what, _check(), _KID, b"u", reason)
        assert journal.take(10.5) is None
    [rest] = _told(journal, 11.0)
    assert rest == {name: fact for name, fact in first.items() if name != "id"} | {"n": 1499}
    assert journal.take(12.0) is None


def test_honest_events_are_told_one_by_one(journal: Journal) -> None:
    """Consumes, sessions, grants and logouts are never summarised, however alike they are."""
    for what in (b"consumed", b"session", b"grant", b"logout"):
        for _ in range(20):
            journal.add(what, _check(), _KID, b"u")
    assert len(_told(journal)) == 80


def test_guessing_is_a_number(journal: Journal) -> None:
    """Unknown tokens of many clients are one event per ACL and second, without kid and src."""
    for number in range(100):
        src = f"10.0.0.{number}"
        journal.add(b"refused", _check(src), b"%012x" % number, b"", b"unknown")
    assert journal.take(0.0) is None
    assert _told(journal, 1.0) == [
        {"event": "refused", "acl": "demo", "reason": "unknown", "n": 100}
    ]


def test_a_flood_does_not_hold_up_the_others(journal: Journal) -> None:
    """While one is counted, a consume is told with its own batch."""
    for _ in range(5):
        journal.add(b"refused", _check(), _KID, b"u", b"wrong_src")
    journal.take(0.0)
    journal.add(b"refused", _check(), _KID, b"u", b"wrong_src")
    journal.add(b"consumed", _check(), _KID, b"u")
    assert [event["event"] for event in _told(journal, 0.5)] == ["consumed"]


def test_the_end_tells_all(journal: Journal) -> None:
    """Nothing counted is lost when a worker stops."""
    for _ in range(3):
        journal.add(b"refused", _check(), _KID, b"u", b"unknown")
    journal.take(0.0)
    assert [event["n"] for event in _told(journal, math.inf)] == [3]


def test_a_listener_hears_what_is_told() -> None:
    """It is given the very list of each entry; with 0 entries there is no stream beside it."""
    heard: list[bytes] = []
    for max_entries in (1000, 0):
        journal = Journal(_KEY, max_entries, heard.append)
        journal.add(b"consumed", _check(), _KID, b"u")
        question = journal.take(0.0)
        assert (question is None) is (max_entries == 0)
        if question:
            assert question.head[-1] == heard[0]
    assert heard[0] == heard[1]


def test_single_events_fill_the_stream_to_its_limit(journal: Journal) -> None:
    """Where an entry is an event, as many entries are kept as are configured."""
    for _ in range(2000):
        journal.add(b"consumed", _check(), _KID, b"u")
        question = journal.take(0.0)
        assert question is not None
        assert _limit(question.head) == 1000


def test_full_batches_do_not_fill_the_store() -> None:
    """Where entries are batches, fewer are kept: about as many events as are configured."""
    max_events, batch = 10_000, 100
    journal = Journal(_KEY, max_events)
    stream: list[int] = []
    for size in [1] * max_events + [batch] * 1000:
        for _ in range(size):
            journal.add(b"consumed", _check(), _KID, b"u")
        question = journal.take(0.0)
        assert question is not None
        stream.append(size)
        del stream[: -_limit(question.head)]
        assert sum(stream) <= 3 * max_events
    assert sum(stream) < 1.1 * max_events


def test_one_burst_does_not_bury_the_past() -> None:
    """A burst costs the stream about what it wrote, times four."""
    max_events, batch = 10_000, 100
    journal = Journal(_KEY, max_events)
    for size in [batch] * 10:
        for _ in range(size):
            journal.add(b"consumed", _check(), _KID, b"u")
        question = journal.take(0.0)
        assert question is not None
        assert _limit(question.head) > max_events - 5 * 10 * batch


def test_an_admins_event_survives() -> None:
    """Any text of an event by hand comes out of the command as it went in."""
    events = [{"event": "revoked", "user": 'a"\\\u2028\u00e9\x00', "n": 3}, {"event": "blocked"}]
    command = entry(_KEY, events, 77)
    assert command[:7] == (b"XADD", _KEY, b"MAXLEN", b"~", b"77", b"*", b"e")
    assert _events(command) == events
