"""The record of a session: what is written reads the same, and all else is refused."""

import json
import math
import re
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import json_values, records
from tokens.policy.sessionrecord import (
    MAX_HOST_BYTES,
    MAX_SESSION_BYTES,
    Only,
    Session,
    read_session,
    write_session,
)
from tokens.record import MAX_RECORD_BYTES, BadRecord, Record, write_record

SESSION = Session(
    user=b"user1",
    groups=b"staff,wiki editors",
    acl=b"wiki",
    host=b"wiki.example",
    src=b"192.0.2.7",
    issued_ms=1_760_000_000_000,
    expires_ms=1_760_000_100_000,
    kid=b"0123456789ab",
    sid=b"ba9876543210",
)
FIELDS: dict[str, Any] = json.loads(write_session(SESSION))
ONLY = {"src": ["192.0.2.0/24"], "method": ["GET"], "path": ["/x"]}


def written(fields: object) -> bytes:
    return json.dumps(fields).encode()


def sessions() -> st.SearchStrategy[Session]:
    """Draw sessions as records of the contract open them."""
    return st.builds(
        lambda record, host, src, times, sid: Session(
            user=record.sub.encode(),
            groups=",".join(record.groups).encode(),
            acl=record.acl[0].encode(),
            host=host,
            src=src,
            issued_ms=min(times),
            expires_ms=max(times),
            kid=sid[::-1],
            sid=sid,
            only=Only.of(record),
        ),
        records(),
        st.binary(max_size=MAX_HOST_BYTES),
        st.just(b"") | st.ip_addresses().filter(_is_plain).map(lambda it: str(it).encode()),
        st.lists(st.integers(0, 2**53), min_size=1),
        st.from_regex(r"[0-9a-f]{12}", fullmatch=True).map(str.encode),
    )


def _is_plain(address: Any) -> bool:
    return address.version == 4 or not (address.ipv4_mapped or address.scope_id)


@given(sessions())
def test_what_is_written_reads_the_same(session: Session) -> None:
    """Every session that a token can open reads as it was written: any host, any name."""
    raw = write_session(session)
    assert read_session(raw) == session
    assert raw.isascii()


@given(st.sampled_from('\U0001f600\u20ac\u00e4"'))
def test_the_largest_session_fits(char: str) -> None:
    """A session takes over texts of a record, escaped, and still reads."""
    groups: tuple[str, ...] = ()
    path = "/" + "x" * 100
    size = 128 // len(char.encode())
    while len(write_record(Record(char * size, ("wiki",), 60, groups, path=(path,)))) < 3900:
        groups += (char * (size - 1) + str(len(groups) % 10),)
    record = Record(char * size, ("wiki",), 60, groups, path=(path,))
    assert len(write_record(record)) <= MAX_RECORD_BYTES
    session = SESSION._replace(
        user=record.sub.encode(),
        groups=",".join(groups).encode(),
        host=b"\xff" * MAX_HOST_BYTES,
        only=Only.of(record),
    )
    raw = write_session(session)
    assert len(raw) <= MAX_SESSION_BYTES
    assert read_session(raw) == session


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in FIELDS.items() if field != name}


BAD = {
    "empty": b"",
    "no JSON": b"user1",
    "no UTF-8": written(FIELDS).replace(b"user1", b"user\xe9"),
    "UTF-16": json.dumps(FIELDS).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + written(FIELDS),
    "a list": b"[1]",
    "null": b"null",
    "a text": b'"v"',
    "a number": b"1",
    "followed by more": written(FIELDS) + b"{}",
    "deep": b"[" * 10_000,
    "deep as a field": written(FIELDS)[:-1] + b',"only":' + b"[" * 10_000,
    "large": written(FIELDS) + b" " * MAX_SESSION_BYTES,
    **{f"without {name}": written(without(name)) for name in FIELDS if name != "groups"},
    **{f"{name} null": written(FIELDS | {name: None}) for name in FIELDS},
    **{f"{name} as list": written(FIELDS | {name: [1]}) for name in FIELDS},
    **{f"{name} as object": written(FIELDS | {name: {"1": "a"}}) for name in FIELDS},
    **{f"{name} true": written(FIELDS | {name: True}) for name in FIELDS},
    **{f"{name} NaN": written(FIELDS | {name: math.nan}) for name in FIELDS},
    **{f"{name} Infinity": written(FIELDS | {name: math.inf}) for name in FIELDS},
    **{f"{name} of 17 digits": written(FIELDS | {name: 10**16}) for name in FIELDS},
    **{f"{name} negative": written(FIELDS | {name: -1}) for name in ("iat", "exp")},
    **{f"{name} a fraction": written(FIELDS | {name: 1.5}) for name in ("iat", "exp", "v")},
    **{f"{name} 1.0": written(FIELDS | {name: 1.0}) for name in ("iat", "exp", "v")},
    "v of tomorrow": written(FIELDS | {"v": 2}),
    "an unknown field": written(FIELDS | {"onli": ONLY}),
    "a field in capitals": written(FIELDS | {"Only": ONLY}),
    "sub with a line end": written(FIELDS | {"sub": "user1\r\nX-User: admin"}),
    "sub with a blank behind": written(FIELDS | {"sub": "admin "}),
    "sub with half a pair": written(FIELDS).replace(b"user1", b"\\ud83d"),
    "sub empty": written(FIELDS | {"sub": ""}),
    "groups empty": written(FIELDS | {"groups": []}),
    "a group with a comma": written(FIELDS | {"groups": ["staff,admin"]}),
    "acl with a space": written(FIELDS | {"acl": "wiki docs"}),
    "host beyond latin-1": written(FIELDS | {"host": "\u20ac"}),
    "host of 256": written(FIELDS | {"host": "h" * 256}),
    "src a network": written(FIELDS | {"src": "192.0.2.0/24"}),
    "src no address": written(FIELDS | {"src": "x:y"}),
    "src with a port": written(FIELDS | {"src": "192.0.2.7:80"}),
    "src in long form": written(FIELDS | {"src": "2001:0db8::1"}),
    "src mapped": written(FIELDS | {"src": "::ffff:192.0.2.7"}),
    "kid short": written(FIELDS | {"kid": "0123"}),
    "kid in capitals": written(FIELDS | {"kid": "0123456789AB"}),
    "sid long": written(FIELDS | {"sid": "0123456789abc"}),
    "sid with a line end": written(FIELDS | {"sid": "0123456789a\n"}),
    "only empty": written(FIELDS | {"only": {}}),
    "only null": written(FIELDS | {"only": None}),
    "only a list": written(FIELDS | {"only": ["GET"]}),
    "only with more": written(FIELDS | {"only": ONLY | {"host": ["wiki.example"]}}),
    "only of no src": written(FIELDS | {"only": {"src": []}}),
    "only of a text": written(FIELDS | {"only": {"src": "192.0.2.7"}}),
    "only of an object": written(FIELDS | {"only": {"src": {"1": "192.0.2.7"}}}),
    "only of an odd path": written(FIELDS | {"only": {"path": ["/x/../y"]}}),
    "only of a number": written(FIELDS | {"only": {"method": [1]}}),
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_a_bad_session_is_refused(raw: bytes) -> None:
    """What the contract does not name is refused, in a sentence that quotes nothing of it."""
    with pytest.raises(BadRecord) as caught:
        read_session(raw)
    assert "user1" not in str(caught.value)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    "fields",
    [FIELDS, without("groups"), FIELDS | {"only": ONLY}, FIELDS | {"src": ""}, FIELDS | {"iat": 0}],
)
def test_a_right_session_reads(fields: dict[str, Any]) -> None:
    """What a session may leave out, it may leave out."""
    assert read_session(written(fields)).user == b"user1"


# The oracle: the same rules once more, as dull as possible.


def _is_name(value: Any, *, group: bool = False) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value.encode()) <= 128
        and value == value.strip()
        and not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value)
        and not (group and "," in value)
    )


def _is_list_of(value: Any, is_right: Any) -> bool:
    return isinstance(value, list) and value != [] and all(map(is_right, value))


def _matches(pattern: str) -> Any:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)


def _is_address(value: Any, networks: tuple[int, ...] = ()) -> bool:
    if not isinstance(value, str):
        return False
    try:
        if "/" in value:
            network = ip_network(value)
            return str(network) == value and network.prefixlen in networks
        return str(ip_address(value)) == value and _is_plain(ip_address(value))
    except ValueError:
        return False


def _is_binding(value: Any) -> bool:
    sizes = (8, 16, 24, 32, 48, 56, 64)
    rules = {
        "src": lambda it: _is_address(it, sizes),
        "method": _matches(r"[A-Z][A-Z-]{0,31}"),
        "path": lambda it: (
            _matches(r"/[!-~]{0,1023}")(it)
            and not re.search(r"\.\.|//|[\\;?#]|%2e|%2f|%5c|%00", it, re.IGNORECASE)
        ),
    }
    return (
        isinstance(value, dict)
        and value != {}
        and all(name in rules and _is_list_of(list_, rules[name]) for name, list_ in value.items())
    )


def _is_moment(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**53


def _is_host(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 255 and all(ord(char) < 256 for char in value)


RULES: dict[str, Any] = {
    "v": lambda it: type(it) is int and it == 1,
    "sub": _is_name,
    "groups": lambda it: _is_list_of(it, lambda name: _is_name(name, group=True)),
    "acl": _matches(r"[A-Za-z0-9_.-]{1,64}"),
    "host": _is_host,
    "src": lambda it: it == "" or _is_address(it),
    "iat": _is_moment,
    "exp": _is_moment,
    "kid": _matches(r"[0-9a-f]{12}"),
    "sid": _matches(r"[0-9a-f]{12}"),
    "only": _is_binding,
}


def is_right(raw: bytes) -> bool:
    try:
        fields = json.loads(raw.decode())
        return (
            isinstance(fields, dict)
            and fields.keys() - {"groups", "only"} == RULES.keys() - {"groups", "only"}
            and all(RULES[name](value) for name, value in fields.items())
        )
    except (ValueError, RecursionError):
        return False


texts = st.text(st.sampled_from("aZ0/ .:,-\\\r\u00e9\u20ac\U0001f600%2f"), max_size=12)


@st.composite
def almost_sessions(draw: st.DrawFn) -> bytes:
    """Draw sessions with something changed: a field, its value, a byte, or half of it gone."""
    fields = json.loads(write_session(draw(sessions())))
    if draw(st.booleans()):
        name = draw(st.sampled_from([*RULES, "Only", ""]))
        fields[name] = draw(
            json_values
            | texts
            | st.lists(texts, max_size=2)
            | st.dictionaries(st.sampled_from(["src", "path", "host"]), st.lists(texts))
        )
    raw = json.dumps(fields, ensure_ascii=draw(st.booleans())).encode()
    if draw(st.booleans()):
        at = draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + draw(st.binary(max_size=2)) + raw[at + 1 :]
    return raw


@given(almost_sessions() | st.binary(max_size=200))
def test_reader_and_oracle_agree(raw: bytes) -> None:
    """A record reads if and only if every rule of a session says so; nothing else is raised."""
    try:
        read_session(raw)
    except BadRecord:
        assert not is_right(raw)
    else:
        assert is_right(raw)
