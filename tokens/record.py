"""The Redis contract in Python: key names, and the record of a token, read strictly. Pure.

docs/redis-contract.md is the same contract for people. redeem.lua judges a record first, as far
as the consume depends on it; this module judges all of it, before any yes is given, and judges
what an issuer is about to write. A record that either of them refuses opens nothing.
"""

import json
import re
from typing import Final, Literal, NamedTuple

from tokens.spelling import RULES, shown

VERSION: Final = 1
MAX_RECORD_BYTES: Final = 4096
MAX_TTL_S: Final = 86_400
MAX_SESSION_TTL_S: Final = 30 * 86_400
MAX_GRANT_TTL_S: Final = 30 * 86_400
MAX_INTEGER: Final = 2**53
"""Beyond it a double skips integers, and Lua has only doubles."""

# cjson gives up at 1000 levels, CPython's scanner near its recursion limit. 512 is below both,
# and counting brackets is a bound on the depth that no duplicate key can hide from.
MAX_BRACKETS: Final = 512


class BadRecord(ValueError):
    """The record breaks the contract. Its message says which field, what it is, and the rule."""


class SessionTerms(NamedTuple):
    """How much shorter than the ACL allows a session may live; None leaves it to the ACL."""

    ttl_s: int | None = None
    idle_s: int | None = None


# A NamedTuple, because one is read for every consumed token: a frozen dataclass of twelve fields
# takes 0.9 us to make, this 0.2 (CPython 3.11, timeit), of 2 us for the whole reading.
class Record(NamedTuple):
    """What an issuer says about one token. An empty tuple or None: not bound, not set."""

    sub: str
    acl: tuple[str, ...]
    ttl_s: int
    groups: tuple[str, ...] = ()
    src: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    nbf_ms: int | None = None
    session: SessionTerms | Literal[False] | None = None
    nonce: str | None = None
    meta: dict[str, object] | None = None


class Keys:
    """The names of everything in Redis, under one prefix."""

    __slots__ = ("_grants", "_session", "_sub", "_token", "audit", "cut", "fence", "grants_channel")

    def __init__(self, prefix: str = "kat:") -> None:
        start = prefix.encode()
        self._token = start + b"t:"
        self._session = start + b"s:"
        self._grants = start + b"grants:{%b}"
        self._sub = start + b"sub:"
        self.fence = start + b"fence"
        self.cut = start + b"cut"
        self.audit = start + b"audit"
        self.grants_channel = start + b"grants"

    def token(self, digest: bytes) -> bytes:
        return self._token + digest

    def session(self, digest: bytes) -> bytes:
        return self._session + digest

    def grants(self, acl: bytes) -> bytes:
        """Name a sorted set: address or network -> expiry."""
        return self._grants % acl

    def grants_meta(self, acl: bytes) -> bytes:
        """Name the hash beside it, in the same slot of a cluster."""
        return self._grants % acl + b":meta"

    def sub(self, user: bytes) -> bytes:
        """Name the list of what belongs to a user. For listing, never for deciding."""
        return self._sub + user


def read_record(raw: bytes) -> Record:
    """Read a record strictly: anything the contract does not name is refused, never skipped.

    Raises `BadRecord`, and nothing else for any bytes whatever.
    """
    fields = _decode(raw)
    take = fields.pop
    _integer("v", take("v", _ABSENT), VERSION, VERSION)
    sub = _text("sub", take("sub", _ABSENT))
    acl = _texts("acl", take("acl", _ABSENT))
    ttl_s = _integer("ttl", take("ttl", _ABSENT), 1, MAX_TTL_S)
    if not fields:
        return Record(sub, acl, ttl_s)
    record = Record(
        sub,
        acl,
        ttl_s,
        groups=_texts("groups", take("groups")) if "groups" in fields else (),
        src=_texts("src", take("src")) if "src" in fields else (),
        host=_texts("host", take("host")) if "host" in fields else (),
        method=_texts("method", take("method")) if "method" in fields else (),
        path=_texts("path", take("path")) if "path" in fields else (),
        nbf_ms=_integer("nbf", take("nbf"), 0, MAX_INTEGER) if "nbf" in fields else None,
        session=_session(take("session")) if "session" in fields else None,
        nonce=_text("nonce", take("nonce")) if "nonce" in fields else None,
        meta=_object("meta", take("meta")) if "meta" in fields else None,
    )
    if fields:
        # A misspelt `src` must not mean "unbound".
        raise BadRecord(f"unknown field {shown(min(fields))}")
    return record


def read_identity(raw: bytes) -> tuple[bytes, bytes]:
    """Read a record as strictly as `read_record`; return its user, and its groups with commas.

    All that the answer to HAProxy needs of a record whose token Redis has just consumed.
    Raises `BadRecord`, and nothing else for any bytes whatever.
    """
    plain = _PLAIN(raw) if len(raw) <= MAX_RECORD_BYTES else None
    if plain:
        sub, ttl, groups = plain.groups(b"")
        if int(ttl) <= MAX_TTL_S:
            return sub, groups.replace(b'","', b",")
    record = read_record(raw)
    return record.sub.encode(), ",".join(record.groups).encode()


def _plain_list(entry: bytes) -> bytes:
    return rb'"%b(?:","%b)*"' % (entry, entry)


_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = rb"(?:o(?:\.o){3}|o\.o\.o\.0/24|o\.o\.0\.0/16|o\.0\.0\.0/8)".replace(b"o", _OCTET)
_SEGMENT: Final = rb"[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*"

# What nearly all records are: compact JSON in this order, ASCII, the addresses IPv4, no brackets in
# names. Matching one whole takes 0.7 us where reading it takes 3.7, with all bindings 1.6 where it
# takes 14 (CPython 3.11, timeit). Only what `read_record` reads alike may match; a test holds one
# against the other.
_PLAIN: Final = re.compile(
    rb'\{"v":1,"sub":"((?! )[ !#-Z\]-z|}~]{1,128}(?<! ))","acl":\[%b\],"ttl":([1-9][0-9]{0,4})'
    rb'(?:,"groups":\["(%b)"\])?(?:,"src":\[%b\])?(?:,"host":\[%b\])?(?:,"method":\[%b\])?'
    rb'(?:,"path":\[%b\])?\}'
    % (
        _plain_list(rb"[A-Za-z0-9_.-]{1,64}"),
        _plain_list(rb"(?! )[ !#-+\--Z\]-z|}~]{1,128}(?<! )")[1:-1],
        _plain_list(_IPV4),
        _plain_list(rb"[a-z0-9_.-]{1,253}"),
        _plain_list(rb"[A-Z][A-Z-]{0,31}"),
        _plain_list(rb'(?![^"]{1025})/(?:%b(?:/%b)*/?)?' % (_SEGMENT, _SEGMENT)),
    )
).fullmatch


def write_record(record: Record) -> bytes:
    """Write a record as compact JSON with the fields that are set. Judges nothing.

    Whoever writes for Redis reads the result back with `read_record`: then an issuer and the
    agents cannot differ about what is right.
    """
    fields: dict[str, object] = {
        "v": VERSION,
        "sub": record.sub,
        "acl": record.acl,
        "ttl": record.ttl_s,
        "groups": record.groups or None,
        "src": record.src or None,
        "host": record.host or None,
        "method": record.method or None,
        "path": record.path or None,
        "nbf": record.nbf_ms,
        "session": _session_fields(record.session),
        "nonce": record.nonce,
        "meta": record.meta,
    }
    present = {name: value for name, value in fields.items() if value is not None}
    text = json.dumps(present, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")  # the reader words the refusal of a surrogate


def _refuse_constant(name: str) -> None:
    """Stop at NaN and Infinity, which are not JSON, and which compare false with every limit."""
    raise BadRecord(f"{name} is not a JSON number")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _decode(raw: bytes) -> dict[str, object]:
    """Decode one JSON object. Of duplicate names the last wins, as in cjson."""
    if len(raw) > MAX_RECORD_BYTES:
        raise BadRecord(f"record of {len(raw)} bytes, the limit is {MAX_RECORD_BYTES}")
    if len(raw) > MAX_BRACKETS and raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS:
        raise BadRecord(f"more than {MAX_BRACKETS} opening brackets")
    try:
        text = raw.decode().strip(" \t\n\r")
        value, end = _DECODER.raw_decode(text)
        if "\\u" in text:
            _refuse_lone_surrogates(text)
    except BadRecord:
        raise
    except (ValueError, RecursionError) as error:
        # The JSON error's own text is left out: it may be worded around the record's content.
        raise BadRecord(f"not readable as JSON in UTF-8 ({type(error).__name__})") from None
    if end != len(text):
        raise BadRecord(f"{len(text) - end} characters after the end of the JSON")
    return value if isinstance(value, dict) else _object("record", value)


def _refuse_lone_surrogates(text: str) -> None:
    r"""Stop at an unpaired "\ud800", which no UTF-8 can hold and which cjson refuses too.

    Raises UnicodeEncodeError. Keeps duplicate names, so that none of them goes unseen.
    """
    json.dumps(json.loads(text, object_pairs_hook=list), ensure_ascii=False).encode()


def _object(field: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadRecord(f"{field}: {_kind(value)} where an object belongs")
    return value


def _integer(field: str, value: object, low: int, high: int) -> int:
    """Take a whole number, 60.0 and 6e1 included: a double holds no other."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRecord(f"{field}: {_kind(value)} where an integer belongs")
    if not low <= value <= high:
        allowed = str(low) if low == high else f"{low} to {high}"
        raise BadRecord(f"{field}: {shown(value)}, allowed is {allowed}")
    return value


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadRecord(f"{field}: {_kind(value)} where a text belongs")
    is_right, rule = RULES[field]
    if not is_right(value):
        raise BadRecord(f"{field}: {shown(value)} is not {rule}")
    return value


def _texts(field: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadRecord(f"{field}: {_kind(value)} where a list belongs")
    if not value:
        raise BadRecord(f"{field}: an empty list; leave the field out instead")
    return tuple([_text(field, entry) for entry in value])


def _session(value: object) -> SessionTerms | Literal[False]:
    if value is False:
        return False
    fields = _object("session", value)
    terms = SessionTerms(
        _integer("session.ttl", fields.pop("ttl"), 1, MAX_INTEGER) if "ttl" in fields else None,
        _integer("session.idle", fields.pop("idle"), 1, MAX_INTEGER) if "idle" in fields else None,
    )
    if fields:
        raise BadRecord(f"unknown field {shown(min(fields))} in session")
    if terms == (None, None):
        raise BadRecord("session: an object without ttl and idle; leave the field out instead")
    return terms


def _session_fields(session: SessionTerms | Literal[False] | None) -> object:
    if not session:
        return session
    fields = {"ttl": session.ttl_s, "idle": session.idle_s}
    return {name: value for name, value in fields.items() if value is not None}


_KINDS: Final = {
    type(None): "null",
    bool: "a bool",
    int: "an integer",
    float: "a fraction",
    str: "a text",
    list: "a list",
    dict: "an object",
}
_ABSENT: Final = object()


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "nothing")
