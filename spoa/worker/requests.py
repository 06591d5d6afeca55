"""A NOTIFY as a Check: which of HAProxy's arguments mean what.

Arguments are found by name, in any order; unknown ones are ignored, and what is absent or of
another type counts as not given. For a message read by a template the places are found once.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from spoa.spop.codec import Address, Message, Notify, Shaped, ShapedNotify
from spoa.spop.constants import DataType
from spoa.spop.template import MAX_TEMPLATES, Template
from spoa.spop.varint import to_signed
from tokens.outcome import Check

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

# Each argument with the wire types that it may have.
_IS_TEXT: Final = frozenset({DataType.STRING.value, DataType.BINARY.value})
_IS_ADDRESS: Final = frozenset({DataType.IPV4.value, DataType.IPV6.value})
_IS_INTEGER: Final = frozenset(
    {DataType.INT32.value, DataType.UINT32.value, DataType.INT64.value, DataType.UINT64.value}
)
_WANTED: Final = (
    *((name, _IS_TEXT) for name in _TEXTS),
    (_SOURCE, _IS_ADDRESS),
    (_AT, _IS_INTEGER),
)

_ABSENT: Final = -1
"""Where a picker finds b"": behind the last value."""

Request = tuple[bytes, Check, int | None]
"""The message's name, empty if none is ours; the check; HAProxy's time stamp in ms."""

_Picker = Callable[[list[Any]], tuple[Any, ...]]


class Requests:
    """Reads NOTIFYs. Remembers for each template where its values stand."""

    def __init__(self) -> None:
        self._pickers: dict[Template, _Picker] = {}

    def read(self, notify: Notify | ShapedNotify, room_bytes: int) -> Request:
        """Read the one message of ours; a NOTIFY has one ACK, so it can ask for one decision."""
        if type(notify) is ShapedNotify:
            template, values = notify.template, notify.values
            pick = self._pickers.get(template) or self._learn(template)
            values.append(b"")
            acl, token, host, method, path, nonce, session, via, unique_id, source, at = pick(
                values
            )
            name = template.name if template.name in _MESSAGES else b""
            at_ms = to_signed(at) if type(at) is int else None
        else:
            message = _find(notify)
            name, args = message.name, message.args
            # Not isinstance: an Address is bytes as well, and no text.
            acl, token, host, method, path, nonce, session, via, unique_id = [
                text if type(text) is bytes else b"" for text in map(args.get, _TEXTS)
            ]
            source = args.get(_SOURCE)
            source = source if isinstance(source, Address) else b""
            at = args.get(_AT)
            at_ms = to_signed(at) if type(at) is int else None
        check = Check(
            acl, token, host, method, path, nonce, source, room_bytes, session, via, unique_id
        )
        return name, check, at_ms

    def _learn(self, template: Template) -> _Picker:
        if len(self._pickers) > 2 * MAX_TEMPLATES:
            self._pickers.clear()  # of shapes that are no longer remembered
        places = {
            (name, kind): place
            for place, (name, kind) in enumerate(zip(template.names, template.types, strict=True))
        }
        pick = itemgetter(
            *(
                next((places[name, kind] for kind in kinds if (name, kind) in places), _ABSENT)
                for name, kinds in _WANTED
            )
        )
        self._pickers[template] = pick
        return pick


_NONE: Final = Message(b"", {})


def _find(notify: Notify | ShapedNotify) -> Message | Shaped:
    ours = [message for message in notify.messages if message.name in _MESSAGES]
    return ours[0] if len(ours) == 1 else _NONE
