"""The record of a session: written when it is opened, read strictly on every request. Pure."""

import json
import re
from functools import lru_cache
from typing import Final, NamedTuple

from tokens.record import MAX_INTEGER, BadRecord, Record
from tokens.spelling import RULES
from tokens.token import KID_CHARS

VERSION: Final = 1
MAX_SESSION_BYTES: Final = 16 * 1024
"""Four times a token's record, whose texts it takes over; and a host of HAProxy's."""

MAX_HOST_BYTES: Final = 255
_BINDINGS: Final = frozenset({"src", "method", "path"})
_REMEMBERED: Final = 4096
_is_short_name = re.compile(rf"[0-9a-f]{{{KID_CHARS}}}", re.ASCII).fullmatch


class Only(NamedTuple):
    """The bindings of the token that opened it: a session never opens more than its token did."""

    src: frozenset[bytes] = frozenset()
    method: frozenset[bytes] = frozenset()
    path: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, record: Record) -> "Only | None":
        if not (record.src or record.method or record.path):
            return None
        return cls(
            frozenset(map(str.encode, record.src)),
            frozenset(map(str.encode, record.method)),
            tuple(map(str.encode, record.path)),
        )


class Session(NamedTuple):
    """One session as Redis has it. Times are Unix ms by Redis's clock."""

    user: bytes
    groups: bytes
    acl: bytes
    host: bytes
    src: bytes
    issued_ms: int
    expires_ms: int
    kid: bytes
    sid: bytes
    only: Only | None = None


def write_session(session: Session) -> bytes:
    """Write a session as compact JSON with the fields that are set."""
    only = session.only or Only()
    bindings = {
        "src": sorted(only.src),
        "method": sorted(only.method),
        "path": only.path,
    }
    fields: dict[str, object] = {
        "v": VERSION,
        "sub": session.user.decode(),
        "groups": session.groups.decode().split(",") if session.groups else None,
        "acl": session.acl.decode(),
        "host": session.host.decode("latin-1"),
        "src": session.src.decode(),
        "iat": session.issued_ms,
        "exp": session.expires_ms,
        "kid": session.kid.decode(),
        "sid": session.sid.decode(),
        "only": {
            name: [text.decode() for text in texts] for name, texts in bindings.items() if texts
        }
        or None,
    }
    present = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(present, separators=(",", ":")).encode()


def read_session(raw: bytes) -> Session:
    """Read a session strictly: a misspelt `only` must not mean "unbound".

    Raises BadRecord, and nothing else for any bytes whatever.
    """
    if len(raw) > MAX_SESSION_BYTES:
        raise BadRecord(f"session of {len(raw)} bytes, the limit is {MAX_SESSION_BYTES}")
    if plain := _PLAIN(raw):
        sub, groups, acl, host, src, iat, exp, kid, sid = plain.groups(b"")
        if _is_address(src):
            groups = groups.replace(b'","', b",")
            return Session(sub, groups, acl, host, src, int(iat), int(exp), kid, sid)
    try:
        fields = json.loads(raw.decode())
        take = fields.pop
        _version(take("v"))
        session = Session(
            user=_text("sub", take("sub")),
            groups=b",".join(_texts("groups", take("groups"))) if "groups" in fields else b"",
            acl=_text("acl", take("acl")),
            host=_host(take("host")),
            src=_address(take("src")),
            issued_ms=_integer(take("iat")),
            expires_ms=_integer(take("exp")),
            kid=_short_name(take("kid")),
            sid=_short_name(take("sid")),
            only=_only(take("only")) if "only" in fields else None,
        )
    except BadRecord:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Without the error's own text: it may be worded around the content.
        raise BadRecord(f"session not readable ({type(error).__name__})") from None
    if fields:
        raise BadRecord(f"session: {len(fields)} unknown fields")
    return session


_NAME: Final = rb"(?! )[ !#-\[\]-~]{1,128}(?<! )"
_GROUP: Final = rb"(?! )[ !#-+\--\[\]-~]{1,128}(?<! )"
_MOMENT: Final = rb"0|[1-9][0-9]{0,14}"
_SHORT: Final = rb"[0-9a-f]{%d}" % KID_CHARS

# What nearly all sessions are: as `write_session` writes one that is bound to nothing, in ASCII.
# Matching it takes 1.6 us where reading it takes 12 (CPython 3.11, timeit), and not every site has
# few enough visitors for the cache. Only what is read alike the long way may match.
_PLAIN: Final = re.compile(
    rb'\{"v":1,"sub":"(%b)"(?:,"groups":\["(%b(?:","%b)*)"\])?,"acl":"([A-Za-z0-9_.-]{1,64})",'
    rb'"host":"([a-z0-9_.:\[\]-]{0,255})","src":"([0-9a-f:.]{2,39})","iat":(%b),"exp":(%b),'
    rb'"kid":"(%b)","sid":"(%b)"\}' % (_NAME, _GROUP, _GROUP, _MOMENT, _MOMENT, _SHORT, _SHORT)
).fullmatch


@lru_cache(_REMEMBERED)
def _is_address(text: bytes) -> bool:
    return bool(RULES["src"][0](text.decode()))


def _version(value: object) -> None:
    if _integer(value) != VERSION:
        raise BadRecord("session: of another version")


def _text(field: str, value: object) -> bytes:
    """Take a text that is spelt as in a token's record."""
    if not isinstance(value, str) or not RULES[field][0](value):
        raise BadRecord(f"session: a text is not {RULES[field][1]}")
    return value.encode()


def _texts(field: str, value: object) -> list[bytes]:
    if not isinstance(value, list) or not value:
        raise BadRecord(f"session: {field} is no list, or an empty one")
    return [_text(field, text) for text in value]


def _host(value: object) -> bytes:
    if not isinstance(value, str) or len(value) > MAX_HOST_BYTES:
        raise BadRecord(f"session: host is no text of at most {MAX_HOST_BYTES} bytes")
    return value.encode("latin-1")


def _address(value: object) -> bytes:
    """Take one address, or nothing: who came without one has none."""
    if value == "":
        return b""
    address = _text("src", value)
    if b"/" in address:
        raise BadRecord("session: src is a network")
    return address


def _short_name(value: object) -> bytes:
    if not isinstance(value, str) or not _is_short_name(value):
        raise BadRecord(f"session: a name is not {KID_CHARS} lowercase hex digits")
    return value.encode()


def _integer(value: object) -> int:
    # Not isinstance: True is an integer as well.
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise BadRecord("session: a number is no integer from 0 to 2^53")
    return value


def _only(value: object) -> Only:
    if not isinstance(value, dict) or not value or not value.keys() <= _BINDINGS:
        raise BadRecord("session: bindings that are not known, or none")
    found = {name: _texts(name, texts) for name, texts in value.items()}
    return Only(
        frozenset(found.get("src", ())),
        frozenset(found.get("method", ())),
        tuple(found.get("path", ())),
    )
