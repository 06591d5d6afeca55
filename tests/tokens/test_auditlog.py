"""The audit stream, read while it is written, trimmed, lost and forged."""

import json
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
import redis

from tests.support.redis import RedisServer
from tokens.admin import auditlog
from tokens.admin.auditlog import PAGE_ENTRIES, Event, Trail, Wanted
from tokens.audit import entry
from tokens.store.client import Client, connect

_KEY = b"kat:audit"
_ALL = Wanted()

# More than two pages, and no multiple of one.
_MANY = 2 * PAGE_ENTRIES + 7


@pytest.fixture
def reader(redis_server: RedisServer) -> Iterator[Client]:
    """Give the client that commands use: it decodes nothing."""
    with connect(f"unix://{redis_server.socket}") as client:
        yield client


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def trail(complaints: list[str]) -> Trail:
    return Trail(_KEY, complaints.append)


def _tell(client: redis.Redis, *users: str, at: str = "*", **facts: str) -> None:
    """Write one entry with one event per user."""
    events = [{"event": "consumed", "user": user, **facts} for user in users]
    *_, field, value = entry(_KEY, events, 1000)
    client.xadd(_KEY, {field: value}, id=at)


def _users(events: list[Event]) -> list[object]:
    return [event.facts["user"] for event in events]


def test_all_of_it_in_order(client: redis.Redis, reader: Client, trail: Trail) -> None:
    """Every event of every page comes once, oldest first, with the time of its entry."""
    for number in range(_MANY):
        _tell(client, f"a{number}", f"b{number}", at=f"{1000 + number}-1")
    events = list(trail.past(reader, _ALL))
    assert _users(events) == [f"{one}{number}" for number in range(_MANY) for one in "ab"]
    assert [event.at_ms for event in events[::2]] == [1000 + number for number in range(_MANY)]


@pytest.mark.parametrize("number", [1, 3, 4, 2 * PAGE_ENTRIES + 1, 2 * _MANY, 9999])
def test_the_last_of_it(client: redis.Redis, reader: Client, trail: Trail, number: int) -> None:
    """The latest so many are the tail of all, also where an entry or a page is cut in two."""
    for one in range(_MANY):
        _tell(client, f"a{one}", f"b{one}", at=f"{1000 + one}-1")
    everything = _users(list(trail.past(reader, _ALL)))
    assert _users(trail.latest(reader, _ALL, number)) == everything[-number:]


def test_an_absent_stream_is_an_empty_one(reader: Client, trail: Trail) -> None:
    """Nothing was ever told: nothing is read, and nothing is wrong."""
    assert list(trail.past(reader, _ALL)) == trail.latest(reader, _ALL, 5) == []


def test_times_are_bounds(client: redis.Redis, reader: Client, trail: Trail) -> None:
    """Both ends belong to it, to the millisecond, in either direction."""
    for at_ms in range(10, 20):
        _tell(client, str(at_ms), at=f"{at_ms}-7")
    span = Wanted(since_ms=12, until_ms=15)
    assert _users(list(trail.past(reader, span))) == ["12", "13", "14", "15"]
    assert _users(trail.latest(reader, span, 2)) == ["14", "15"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(user="u1"), {"by user"}),
        (Wanted(user="u"), set()),
        (Wanted(kid="0123456789ab"), {"by kid"}),
        (Wanted(acl="b"), {"by acl", "by acls"}),
        (Wanted(event="refused"), {"by event"}),
        (Wanted(network=ip_network("10.1.2.3")), {"by address", "by network", "by addresses"}),
        (Wanted(network=ip_network("10.0.0.0/8")), {"by address", "by network", "by addresses"}),
        (Wanted(network=ip_network("10.1.3.0/24")), {"by network"}),
        (Wanted(network=ip_network("2001:db8::/32")), {"by IPv6"}),
        (Wanted(user="u1", kid="0123456789ab"), set()),
    ],
)
def test_filters(reader: Client, trail: Trail, wanted: Wanted, found: set[str]) -> None:
    """Each filter finds what it names and nothing else; all of them must fit."""
    told = {
        "by user": {"user": "u1"},
        "by kid": {"kid": "0123456789ab"},
        "by acl": {"acl": "b"},
        "by acls": {"acl": "a,b"},
        "by event": {"event": "refused"},
        "by address": {"src": "10.1.2.3"},
        "by network": {"src": "10.1.0.0/16"},
        "by addresses": {"src": "192.0.2.1,10.1.2.3"},
        "by IPv6": {"src": "2001:db8::1"},
        "nowhere": {"src": "-"},
        "of another kind": {"src": "7", "user": "", "acl": "bb"},
    }
    events = [{"event": "consumed", **facts, "name": name} for name, facts in told.items()]
    reader.execute_command(*entry(_KEY, events, 1000))
    assert {event.facts["name"] for event in trail.past(reader, wanted)} == found


@pytest.mark.parametrize(
    "fields",
    [
        {"x": "y"},
        {"e": ""},
        {"e": "["},
        {"e": "{}"},
        {"e": "[1]"},
        {"e": "[{}]"},
        {"e": '[{"event":1}]'},
        {"e": '[{"event":"consumed"},null]'},
        {"e": b"\xff"},
        {"e": '[{"event":"x"}]'.encode("utf-16")},
        {"e": "[" * 100_000},
        {"e": f'[{{"event":"x","n":{"9" * 5000}}}]'},
        {"e": '[{"event":"x","n":1e400}]'},
        {"e": '[{"event":"x","n":[-1e400]}]'},
        {"e": '[{"event":"x","n":NaN}]'},
        {"e": '[{"event":"x","n":-Infinity}]'},
    ],
)
def test_what_is_none_of_ours_is_skipped(
    client: redis.Redis,
    reader: Client,
    trail: Trail,
    complaints: list[str],
    fields: dict[str, str | bytes],
) -> None:
    """An entry of somebody else's costs one sentence, and no neighbour."""
    _tell(client, "before")
    first = client.xadd(_KEY, fields)
    client.xadd(_KEY, fields)
    _tell(client, "after")
    assert _users(list(trail.past(reader, _ALL))) == ["before", "after"]
    assert _users(trail.latest(reader, _ALL, 9)) == ["before", "after"]
    [complaint] = complaints
    assert first.decode() in complaint
    assert len(complaint) < 200


def test_a_time_beyond_calendars_is_none_of_ours(
    client: redis.Redis, reader: Client, trail: Trail, complaints: list[str]
) -> None:
    """The highest id that Redis allows ends no reading."""
    _tell(client, "now")
    _tell(client, "never", at=f"{2**64 - 1}-1")
    assert _users(list(trail.past(reader, _ALL))) == ["now"]
    assert "3000" in complaints[0]


def test_reading_goes_on_when_the_stream_is_trimmed(
    client: redis.Redis, reader: Client, trail: Trail
) -> None:
    """What is trimmed between two pages is missing, and what follows it is not."""
    for number in range(_MANY):
        _tell(client, str(number))
    events = trail.past(reader, _ALL)
    assert next(events).facts["user"] == "0"
    client.xtrim(_KEY, maxlen=3, approximate=False)
    rest = _users(list(events))
    assert rest[-3:] == [str(number) for number in range(_MANY - 3, _MANY)]
    assert len(rest) == PAGE_ENTRIES - 1 + 3


def test_reading_ends_when_the_stream_is_deleted(
    client: redis.Redis, reader: Client, trail: Trail
) -> None:
    """A stream that is gone after the first page has no second one."""
    for number in range(_MANY):
        _tell(client, str(number))
    events = trail.past(reader, _ALL)
    next(events)
    client.delete(_KEY)
    assert len(list(events)) == PAGE_ENTRIES - 1


@pytest.mark.parametrize("read", ["past", "latest"])
def test_waiting_goes_on_where_reading_ended(
    client: redis.Redis, reader: Client, trail: Trail, read: str
) -> None:
    """Nothing between the two is told twice or not at all: neither filtered nor trimmed events."""
    _tell(client, "old")
    if read == "past":
        events = trail.past(reader, _ALL)
        seen = [next(events)]
        _tell(client, "while reading")
        seen += events
    else:
        seen = trail.latest(reader, _ALL, 5)
        _tell(client, "while reading")
    client.xtrim(_KEY, maxlen=1, approximate=False)
    seen += trail.wait(reader, _ALL)
    _tell(client, "new", "newer")
    seen += trail.wait(reader, _ALL)
    assert _users(seen) == ["old", "while reading", "new", "newer"]


def test_waiting_for_a_stream_that_is_not_there(
    client: redis.Redis, reader: Client, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first event ever is seen; until then there is nothing, and no complaint."""
    assert trail.latest(reader, _ALL, 5) == []
    with monkeypatch.context() as quick:
        quick.setattr(auditlog, "BLOCK_MS", 1)
        assert trail.wait(reader, _ALL) == []
    _tell(client, "first")
    assert _users(trail.wait(reader, _ALL)) == ["first"]


def test_waiting_filters(client: redis.Redis, reader: Client, trail: Trail) -> None:
    """What is not wanted is passed over, and not met again."""
    trail.latest(reader, _ALL, 5)
    _tell(client, "u1", "u2")
    assert trail.wait(reader, Wanted(user="u3")) == []
    _tell(client, "u3")
    assert _users(trail.wait(reader, Wanted(user="u3"))) == ["u3"]


def test_silence_is_shorter_than_the_clients_patience(reader: Client, trail: Trail) -> None:
    """A gate where nothing happens is no Redis that does not answer."""
    assert trail.wait(reader, _ALL) == []


def test_a_deleted_stream_is_followed_again(
    client: redis.Redis,
    reader: Client,
    trail: Trail,
    complaints: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deleted and begun anew by the clock, it simply goes on."""
    monkeypatch.setattr(auditlog, "BLOCK_MS", 1)
    _tell(client, "old")
    trail.latest(reader, _ALL, 5)
    client.delete(_KEY)
    assert trail.wait(reader, _ALL) == []
    _tell(client, "new")
    assert _users(trail.wait(reader, _ALL)) == ["new"]
    assert complaints == []


def test_a_stream_that_was_set_back_is_followed_again(
    client: redis.Redis,
    reader: Client,
    trail: Trail,
    complaints: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where new entries have lower ids than the last one read, it is said and reading goes on."""
    monkeypatch.setattr(auditlog, "BLOCK_MS", 1)
    _tell(client, "old", at="10000-0")
    trail.latest(reader, _ALL, 5)
    client.delete(_KEY)
    _tell(client, "lost", at="9000-0")
    assert trail.wait(reader, _ALL) == []
    assert len(complaints) == 1
    _tell(client, "new", at="9001-0")
    assert _users(trail.wait(reader, _ALL)) == ["new"]
    assert len(complaints) == 1


def test_deleted_entries_are_no_setback(
    client: redis.Redis,
    reader: Client,
    trail: Trail,
    complaints: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An entry that somebody took out at the end makes nothing be told twice."""
    monkeypatch.setattr(auditlog, "BLOCK_MS", 1)
    _tell(client, "one", at="1000-0")
    _tell(client, "two", at="2000-0")
    trail.latest(reader, _ALL, 5)
    client.xdel(_KEY, "2000-0")
    assert trail.wait(reader, _ALL) == []
    assert complaints == []
    _tell(client, "three", at="2001-0")
    assert _users(trail.wait(reader, _ALL)) == ["three"]


def test_facts_are_what_was_told(reader: Client, trail: Trail) -> None:
    """An event keeps each fact, with its type."""
    told = {
        "event": "refused",
        "n": 3,
        "x": 1.5e300,
        "user": "J\u00fcrgen\x00",
        "reason": "unknown",
    }
    reader.execute_command(*entry(_KEY, [told], 1000))
    [event] = trail.past(reader, _ALL)
    assert json.dumps(event.facts) == json.dumps(told)
