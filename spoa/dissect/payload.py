"""The payload of one SPOP frame as lines of text, item by item up to the first that is broken.

Secrets are hidden by position: what is shown is read from a copy in which every token is
overwritten, so a broken length can not push half a token out of its hiding place.
"""

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from ipaddress import ip_address
from typing import TypeVar

from spoa.spop import schema
from spoa.spop.constants import ActionType, DataType, FrameType, Scope, StatusCode
from spoa.spop.schema import Format, SchemaError

T = TypeVar("T")

_INDENT = "  "
_DUMP_WIDTH = 16
_MAX_DUMP_BYTES = 256
_MAX_TEXT_BYTES = 256

_SECRET_NAMES = frozenset((b"token", b"session", b"nonce"))
_TOKEN = re.compile(rb"kat_[0-9A-Za-z]{1,38}")
# A dump has no names to tell a cookie by: there everything as long as a secret is hidden.
_LONG_WORD = re.compile(rb"kat_[0-9A-Za-z]{1,38}|[0-9A-Za-z_-]{32,}")

_SCOPES = {
    Scope.PROCESS: "proc",
    Scope.SESSION: "sess",
    Scope.TRANSACTION: "txn",
    Scope.REQUEST: "req",
    Scope.RESPONSE: "res",
}
_ACTION_HEADS = ((ActionType.SET_VAR, 3), (ActionType.UNSET_VAR, 2))


class Cursor:
    """A place in bytes that are read one item after the other."""

    def __init__(self, data: bytes, pos: int, *, show_secrets: bool) -> None:
        self.data = data
        self.pos = pos
        self.show_secrets = show_secrets
        self._shown = data if show_secrets else _overwrite(_TOKEN, data)

    def read(self, item: Format[T]) -> T:
        """Read one item. Raises SchemaError and stays before it."""
        stream = BytesIO(self.data)
        stream.seek(self.pos)
        value = item.read(stream)
        self.pos = stream.tell()
        return value

    def read_text(self, item: Format[T], size: Callable[[T], int]) -> tuple[T, bytes]:
        """Read one item; return it and its last `size` bytes as they may be shown."""
        value = self.read(item)
        return value, self._shown[self.pos - size(value) : self.pos]

    def rest(self) -> bytes:
        """Return everything that is not yet read."""
        return self.data[self.pos :]

    def malformed(self, error: SchemaError) -> Iterator[str]:
        """Say where reading stopped and what was expected, and dump the rest."""
        yield f"{_INDENT}malformed at byte {self.pos}: {error}"
        yield from self.dump()

    def dump(self) -> Iterator[str]:
        """Yield what is not yet read as hex."""
        return dump(self.data, self.pos, show_secrets=self.show_secrets)


def payload_lines(kind: int, cursor: Cursor) -> Iterator[str]:
    """Yield what the payload of a frame of this type says, to its end or to its first fault."""
    try:
        while cursor.pos < len(cursor.data):
            match kind:
                case FrameType.NOTIFY:
                    yield from _message(cursor)
                case FrameType.ACK:
                    yield _INDENT + _action(cursor)
                case _ if kind in set(FrameType):
                    yield _INDENT + _pair(cursor)
                case _:
                    yield from cursor.dump()
                    return
    except SchemaError as error:
        yield from cursor.malformed(error)


def _message(cursor: Cursor) -> Iterator[str]:
    _, name = cursor.read_text(schema.name, len)
    count = cursor.read(schema.byte)
    yield f"{_INDENT}message {_text(name)}, {count} arguments"
    for _ in range(count):
        yield _INDENT * 2 + _pair(cursor)


def _action(cursor: Cursor) -> str:
    start = cursor.pos
    kind, count = cursor.read(schema.byte), cursor.read(schema.byte)
    if (kind, count) not in _ACTION_HEADS:
        cursor.pos = start
        raise SchemaError(
            f"action type {kind} with {count} arguments; known: set-var 1 3, unset-var 2 2"
        )
    scope = _SCOPES[cursor.read(schema.scope)]
    if kind == ActionType.SET_VAR:
        return f"set-var {scope}.{_pair(cursor)}"
    _, name = cursor.read_text(schema.name, len)
    return f"unset-var {scope}.{_text(name)}"


def _pair(cursor: Cursor) -> str:
    """Read a name and its value: `name = TYPE value`."""
    name, shown_name = cursor.read_text(schema.name, len)
    data, shown = cursor.read_text(schema.typed_data, _size_of_text)
    is_hidden = name in _SECRET_NAMES and not cursor.show_secrets
    meaning = data.tag.type is DataType.BOOL  # the one flag that is not spare
    flags = f" flags={data.tag.flags:x}" if data.tag.flags & ~meaning else ""
    shown_value = _value(data, shown, name, is_hidden=is_hidden)
    label = _text(shown_name) or '""'
    return f"{label} = {data.tag.type.name}{flags} {shown_value}".rstrip()


def _size_of_text(data: schema.TypedData) -> int:
    return len(data.value) if isinstance(data.value, bytes) else 0


def _value(data: schema.TypedData, shown: bytes, name: bytes, *, is_hidden: bool) -> str:
    match data.tag.type, data.value:
        case _, None:
            return ""
        case _, bool(truth):
            return str(truth).lower()
        case _, int(number):
            return str(number) + (_status(number) if name == b"status-code" else "")
        case ((DataType.IPV4 | DataType.IPV6), address):
            return str(ip_address(address))
        case _ if is_hidden:
            return f"{'kat_' if shown.startswith(b'kat_') else ''}**** ({len(shown)} bytes)"
        case DataType.BINARY, _:
            return _cut(shown, bytes.hex)
        case _:
            return _cut(shown, lambda text: f'"{_text(text)}"')


def _status(number: int) -> str:
    return f" ({StatusCode(number).name})" if number in set(StatusCode) else ""


def _cut(value: bytes, write: Callable[[bytes], str]) -> str:
    if len(value) <= _MAX_TEXT_BYTES:
        return write(value)
    return f"{write(value[:_MAX_TEXT_BYTES])}... {len(value)} bytes"


def _text(value: bytes) -> str:
    """Write bytes as ASCII on one line, whatever they are; a hidden token as kat_****."""
    text = ascii(value.decode("latin-1"))[1:-1].replace('"', '\\"')
    return re.sub(r"kat_\*+", "kat_****", text)


def dump(data: bytes, start: int, *, show_secrets: bool) -> Iterator[str]:
    """Yield `data` from `start` on as hex and text, a limited part of it."""
    shown = data if show_secrets else _overwrite(_LONG_WORD, data)
    end = min(len(data), start + _MAX_DUMP_BYTES)
    for at in range(start, end, _DUMP_WIDTH):
        row = shown[at : min(at + _DUMP_WIDTH, end)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)  # noqa: PLR2004
        yield f"{_INDENT * 2}{at:06x}  {row.hex(' '):<{3 * _DUMP_WIDTH}} {text}"
    if end < len(data):
        yield f"{_INDENT * 2}... {len(data) - end} bytes more"


def _overwrite(secret: re.Pattern[bytes], data: bytes) -> bytes:
    """Replace each secret by stars of the same length, so that positions stay."""

    def stars(match: re.Match[bytes]) -> bytes:
        keep = 4 if match[0].startswith(b"kat_") else 0
        return match[0][:keep] + b"*" * (len(match[0]) - keep)

    return secret.sub(stars, data)
