import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import ACCEPTED, GOOD, MISSHAPEN, MISSPELT, NONCE, with_fields
from tests.support.strategies import records
from tokens.record import (
    MAX_BRACKETS,
    MAX_RECORD_BYTES,
    BadRecord,
    Keys,
    Record,
    SessionTerms,
    read_identity,
    read_record,
    write_record,
)


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_a_right_record_is_read(raw: bytes) -> None:
    """Every record that the contract allows is read."""
    record = read_record(raw)
    assert record.acl == ("wiki",)
    assert record.ttl_s == 60


@pytest.mark.parametrize("raw", (MISSHAPEN | MISSPELT).values(), ids=MISSHAPEN | MISSPELT)
def test_a_wrong_record_is_refused(raw: bytes) -> None:
    """Every record that the contract forbids is refused, with a sentence in ASCII."""
    with pytest.raises(BadRecord) as refusal:
        read_record(raw)
    assert str(refusal.value).isascii()
    assert len(str(refusal.value)) < 300


def test_every_field_is_read() -> None:
    """Each field of the contract arrives in its place."""
    raw = (
        '{"v":1,"sub":"user1","acl":["wiki","jira"],"ttl":60,"groups":["staff"],'
        '"src":["192.0.2.7","2001:db8::/32"],"host":["wiki.example"],"method":["GET"],'
        f'"path":["/x"],"nbf":5,"session":{{"ttl":60,"idle":30}},"nonce":"{NONCE}","meta":{{"a":1}}}}'
    )
    assert read_record(raw.encode()) == Record(
        sub="user1",
        acl=("wiki", "jira"),
        ttl_s=60,
        groups=("staff",),
        src=("192.0.2.7", "2001:db8::/32"),
        host=("wiki.example",),
        method=("GET",),
        path=("/x",),
        nbf_ms=5,
        session=SessionTerms(60, 30),
        nonce=NONCE,
        meta={"a": 1},
    )


def test_session_false_is_not_session_absent() -> None:
    """`false` forbids a session, leaving the field out leaves it to the ACL."""
    assert read_record(with_fields('"session":false')).session is False
    assert read_record(GOOD).session is None


@pytest.mark.parametrize("src", ["10.0.0.0/8", "2001:db8:1::/48", "::1", "2001:db8::/64"])
def test_canonical_addresses_are_read(src: str) -> None:
    """The contract's sizes of network, and any address, are read in canonical spelling."""
    assert read_record(with_fields(f'"src":["{src}"]')).src == (src,)


@pytest.mark.parametrize(
    "src", ["0.0.0.0/0", "10.0.0.0/9", "192.0.2.7/32", "::/0", "2001:db8::1/128", "fe80::1%eth0"]
)
def test_other_networks_are_refused(src: str) -> None:
    """A network that no agent looks for would be a token that nobody can use."""
    with pytest.raises(BadRecord, match="src: "):
        read_record(with_fields(f'"src":["{src}"]'))


def test_the_limit_is_looked_at_before_decoding() -> None:
    """4096 bytes are read, one more is refused by its length alone."""
    raw = GOOD + b" " * (MAX_RECORD_BYTES - len(GOOD))
    assert read_record(raw).sub == "user1"
    with pytest.raises(BadRecord, match="record of 4097 bytes, the limit is 4096"):
        read_record(raw + b" ")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b'{"v":1}', "sub: nothing where a text belongs"),
        (b'{"v":2}', "v: 2, allowed is 1"),
        (with_fields('"scr":["192.0.2.7"]'), "unknown field 'scr'"),
        (with_fields('"groups":[]'), "groups: an empty list; leave the field out instead"),
        (with_fields('"src":null'), "src: null where a list belongs"),
        (with_fields('"nbf":1e300'), "nbf: 1000000000000000052504760255204"),
    ],
)
def test_a_refusal_says_what_is_wrong(raw: bytes, sentence: str) -> None:
    """The message names the field, what was found and what is allowed."""
    with pytest.raises(BadRecord) as refusal:
        read_record(raw)
    assert str(refusal.value).startswith(sentence)


@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: GOOD + text.encode()))
def test_only_bad_record_escapes(raw: bytes) -> None:
    """Whatever bytes stand in Redis, reading them gives a record or BadRecord."""
    with contextlib.suppress(BadRecord):
        read_record(raw)


@given(records())
def test_what_is_written_is_read_back(record: Record) -> None:
    """Writing and reading give the same record."""
    assert read_record(write_record(record)) == record


def test_only_set_fields_are_written() -> None:
    """The typical record is as short as one written by hand."""
    assert write_record(Record("user1", ("wiki",), 60)) == GOOD
    raw = write_record(Record("user1", ("wiki",), 60, nbf_ms=0, session=False, meta={}))
    assert json.loads(raw).keys() - json.loads(GOOD).keys() == {"nbf", "session", "meta"}


def test_key_names() -> None:
    """Every key stands under the prefix."""
    assert Keys().token(b"ab") == b"kat:t:ab"
    assert Keys("other:").token(b"ab") == b"other:t:ab"
    assert Keys("other:").fence == b"other:fence"


def _identity_by_the_long_way(raw: bytes) -> tuple[bytes, bytes]:
    record = read_record(raw)
    return record.sub.encode(), ",".join(record.groups).encode()


def _assert_read_alike(raw: bytes) -> None:
    try:
        expected = _identity_by_the_long_way(raw)
    except BadRecord:
        with pytest.raises(BadRecord):
            read_identity(raw)
    else:
        assert read_identity(raw) == expected


@pytest.mark.parametrize("raw", (ACCEPTED | MISSHAPEN | MISSPELT).values())
def test_an_identity_is_read_as_strictly_as_a_record(raw: bytes) -> None:
    """The short way of reading refuses and accepts what the long way does."""
    _assert_read_alike(raw)


@given(records())
def test_an_identity_is_what_the_record_says(record: Record) -> None:
    """Whatever an issuer writes, both ways read the same user and groups from it."""
    _assert_read_alike(write_record(record))


_ODD_TEXTS = st.text(st.sampled_from('aZ09 ",\\[]{}:~\x7f\x1f\u00e9'), max_size=130)
_ODD_NUMBERS = st.sampled_from(
    ["0", "1", "60", "86400", "86401", "99999", "060", "6e1", "-1", "1.5"]
)


@given(_ODD_TEXTS, st.lists(_ODD_TEXTS, max_size=3), _ODD_NUMBERS, st.lists(_ODD_TEXTS, max_size=3))
def test_what_looks_plain_is_read_alike(
    sub: str, acl: list[str], ttl: str, groups: list[str]
) -> None:
    """Nothing that is nearly a plain record is read as one: quotes, escapes, limits, controls."""
    lists = [",".join(f'"{text}"' for text in texts) for texts in (acl, groups)]
    raw = f'{{"v":1,"sub":"{sub}","acl":[{lists[0]}],"ttl":{ttl},"groups":[{lists[1]}]}}'
    _assert_read_alike(raw.encode())


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20))
def test_a_plain_record_is_read_alike_for_every_printable_user(user: str) -> None:
    """Every printable character of a user is kept by the short way, or left to the long one."""
    _assert_read_alike(write_record(Record(user, ("wiki",), 60, groups=(user,))))


_NEAR = {
    "src": [
        *("192.0.2.7", "0.0.0.0", "255.255.255.255", "256.0.0.1", "299.0.0.1", "01.2.3.4", "1.2.3"),
        *("1.2.3.0/24", "1.2.3.4/24", "1.2.0.0/16", "1.2.3.0/16", "1.0.0.0/8", "1.2.0.0/8"),
        *("1.2.3.4/32", "1.2.3.0/23", "1.2.3.4.5", "1.2.3.4/", "::1", "2001:db8::/32", "1.2.3.4 "),
    ],
    "host": ["a", "a" * 253, "a" * 254, "A", "a:80", "[::1]", "a b", ""],
    "method": ["GET", "get", "M-SEARCH", "-", "A" * 32, "A" * 33, ""],
    "path": [
        *("/", "/a", "/a/", "/a/b.c", "/a//b", "/..", "/a/..", "/a..b", "/.a", "/a.", "a", ""),
        *("/a%2fb", "/a%20b", "/a;b", "/a?b", "/a#b", "/a b", "/~a_b-c", "/a\\u0020"),
        *("/" + "a" * 1022, "/" + "a" * 1023, "/" + "a" * 1024, "/" + "a/" * 512),
    ],
}


@pytest.mark.parametrize(
    ("field", "text"), [(field, text) for field, texts in _NEAR.items() for text in texts]
)
def test_bindings_are_read_alike_both_ways(field: str, text: str) -> None:
    """A binding that breaks a rule by one character is not read by the short cut either."""
    start = '{"v":1,"sub":"user1","acl":["wiki"],"ttl":60,'
    for texts in (f'"{text}"', f'"{text}","{text}"', ""):
        _assert_read_alike(f'{start}"{field}":[{texts}]}}'.encode())


@pytest.mark.parametrize("opening", ["[", "{"])
@pytest.mark.parametrize("number", [MAX_BRACKETS - 3, MAX_BRACKETS + 1])
def test_brackets_in_names_are_counted_both_ways(opening: str, number: int) -> None:
    """A name may hold brackets, and too many of them are refused by the short cut, too."""
    groups = [opening * 100 for _ in range(number // 100)] + [opening * (number % 100) + "x"]
    raw = write_record(Record("user1", ("wiki",), 60, groups=tuple(groups)))
    _assert_read_alike(raw)


def test_size_is_judged_both_ways() -> None:
    """A record of one byte too much is refused by the short cut, too."""
    groups = tuple("g" * 128 for _ in range(31))
    for more in range(40):
        _assert_read_alike(write_record(Record("u" * (more + 1), ("wiki",), 60, groups=groups)))
