"""A NOTIFY as a Check: which of HAProxy's arguments mean what.

Arguments are found by name, in any order; unknown ones are ignored, and what is absent or of
another type counts as not given.
"""

from typing import Final

from spoa.spop.codec import Message, Notify, ShapedNotify
from spoa.spop.constants import DataType
from spoa.spop.template import Taken, Wanted
from spoa.spop.value import Address, Value
from spoa.spop.varint import to_signed
from tokens.check import Check

CHECK_HTTP: Final = b"check-http"
CHECK_TCP: Final = b"check-tcp"
LOGOUT: Final = b"logout"
"""The messages that ask for a decision; see haproxy/kat.spoe.conf."""

_MESSAGES: Final = frozenset({CHECK_HTTP, CHECK_TCP, LOGOUT})

_TEXTS: Final = (
    *(b"acl", b"token", b"host", b"method", b"path", b"nonce"),
    *(b"session", b"via", b"id"),
)
_SOURCE: Final = b"src"
_AT: Final = b"at"

_IS_TEXT: Final = frozenset({DataType.STRING.value, DataType.BINARY.value})
_IS_ADDRESS: Final = frozenset({DataType.IPV4.value, DataType.IPV6.value})
_IS_INTEGER: Final = frozenset(
    {DataType.INT32.value, DataType.UINT32.value, DataType.INT64.value, DataType.UINT64.value}
)
WANTED: Final[Wanted] = (
    *((name, _IS_TEXT) for name in _TEXTS),
    (_SOURCE, _IS_ADDRESS),
    (_AT, _IS_INTEGER),
)
"""What a template takes out of a message, in the order in which `read` expects it."""

Request = tuple[bytes, Check, int | None]
"""The message's name, empty if none is ours; the check; HAProxy's time stamp in ms."""


def read(notify: Notify | ShapedNotify, room_bytes: int) -> Request:
    """Read the one message of ours; a NOTIFY has one ACK, so it can ask for one decision."""
    if type(notify) is ShapedNotify:
        name, values = notify.name, notify.values
        if name not in _MESSAGES:
            name, values = b"", _NOTHING
    else:
        assert isinstance(notify, Notify)
        name, values = _find(notify)
    acl, token, host, method, path, nonce, session, via, unique_id, source, at = values
    check = Check(
        acl, token, host, method, path, nonce, source, room_bytes, session, via, unique_id
    )
    return name, check, to_signed(at) if type(at) is int else None


def _find(notify: Notify) -> tuple[bytes, Taken]:
    ours = [message for message in notify.messages if message.name in _MESSAGES]
    message = ours[0] if len(ours) == 1 else _NONE
    return message.name, _take(message.args)


def _take(args: dict[bytes, Value]) -> Taken:
    """Take out of a message what a template would take."""
    # Not isinstance: an Address is bytes as well, and no text.
    texts = [text if type(text) is bytes else b"" for text in map(args.get, _TEXTS)]
    source, at = args.get(_SOURCE), args.get(_AT)
    return [
        *texts,
        source if isinstance(source, Address) else b"",
        at if type(at) is int else b"",
    ]


_NONE: Final = Message(b"", {})
_NOTHING: Final[Taken] = _take({})
