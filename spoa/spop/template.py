"""Templates: what all messages of one shape have in common, so that it need not be decoded again.

A HAProxy sends the same message over and over: the same names in the same order, mostly with values
of the same types. Between the values stand always the same bytes. A template compares those as a
whole, takes the values that are wanted, and steps over the others. What fits no template is decoded
the long way (codec.py), and learned. A template accepts nothing that the long way would refuse, and
reads it alike.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

from spoa.spop.constants import DataType
from spoa.spop.varint import ONE_BYTE_LIMIT, decode_length, decode_varint

_TYPE_MASK: Final = 0x0F
_STRING: Final = DataType.STRING.value
_BINARY: Final = DataType.BINARY.value
_IPV4: Final = DataType.IPV4.value
_IPV6: Final = DataType.IPV6.value
_WIDTHS: Final = {_IPV4: 4, _IPV6: 16}
_NO_INTEGERS: Final = (_STRING, _IPV4, _IPV6)
_END: Final = -1
_LAST_INTEGER: Final = -2
_CONSTANTS: Final = (DataType.NULL.value, DataType.BOOL.value)
"""Types whose value is the type byte itself: for a template it is no value but a shape."""

MAX_TEMPLATES: Final = 32
"""Of three messages, with each argument there or not, and two kinds of addresses, few are seen."""

_NOWHERE: Final = -1

Wanted = Sequence[tuple[bytes, Collection[int]]]
"""The arguments that are asked for, each with the wire types (DataType) that it may have."""

# Any: `bytes | int` would have to be told apart, value by value, by whoever knows what was wanted.
Taken = list[Any]
"""Their values in this order. Integers are as on the wire, unsigned; b"" is an absent one."""


class Template:
    """One shape of message."""

    __slots__ = ("_blank", "_segments", "_tail", "_tail_value", "name")

    def __init__(self, payload: bytes, pos: int, wanted: Wanted) -> None:
        """Learn from a NOTIFY's only message, which has been decoded and found in order."""
        start = pos
        self.name, pos = _take_name(payload, pos)
        pos += 1
        self._blank: Taken = [b""] * len(wanted)
        # What stands before a value, as a whole; how long that is; how to read the value; its place
        # among those taken.
        self._segments: list[tuple[bytes, int, int, int]] = []
        while pos < len(payload):
            name, pos = _take_name(payload, pos)
            kind = payload[pos] & _TYPE_MASK
            pos += 1
            if kind in _CONSTANTS:
                continue
            place = _place_of(name, kind, wanted)
            read_as = _STRING if kind == _BINARY else kind
            self._segments.append((payload[start:pos], pos - start, read_as, place))
            pos = start = _skip_value(payload, pos, read_as)
        if self._segments and start == len(payload) and self._segments[-1][2] not in _NO_INTEGERS:
            constant, size, _, place = self._segments[-1]
            self._segments[-1] = (constant, size, _LAST_INTEGER, place)
        else:
            self._segments.append((payload[start:], len(payload) - start, _END, _NOWHERE))
        self._tail: bytes | None = None
        self._tail_value = 0

    def read(self, data: bytes, pos: int) -> Taken | None:
        """Read the message that begins at `pos`, or return None if it is of another shape.

        Raises IndexError, ProtocolError.
        """
        values = self._blank.copy()
        for constant, size, kind, place in self._segments:
            start = pos + size
            if data[pos:start] != constant:
                return None
            if kind == _STRING:
                length = data[start]
                if length < ONE_BYTE_LIMIT:
                    start += 1
                else:
                    length, start = decode_length(data, start)
                pos = start + length
            elif kind == _IPV4:
                pos = start + 4
            elif kind == _IPV6:
                pos = start + 16
            elif kind == _LAST_INTEGER:
                # HAProxy's time stamp stands there: the same bytes for a millisecond.
                tail = data[start:]
                if tail != self._tail:
                    value, pos = decode_varint(tail, 0)
                    if pos != len(tail):
                        return None
                    self._tail, self._tail_value = tail, value
                if place >= 0:
                    values[place] = self._tail_value
                return values
            elif kind == _END:
                # Nothing may follow, nothing may be missing.
                return values if start == len(data) else None
            else:
                value, pos = decode_varint(data, start)
                if place >= 0:
                    values[place] = value
                continue
            if place >= 0:
                values[place] = data[start:pos]
        return None


class Templates:
    """The shapes seen so far, those used last in front."""

    __slots__ = ("_known", "_last", "_wanted")

    def __init__(self, wanted: Wanted = ()) -> None:
        self._wanted = wanted
        self._known: list[Template] = []
        self._last: Template | None = None

    def read(self, data: bytes, pos: int) -> tuple[bytes, Taken] | None:
        """Read the message at `pos` by the template that it fits, if there is one: name, values.

        Raises IndexError, ProtocolError, as the long way would.
        """
        last = self._last
        if last is None:
            return None
        values = last.read(data, pos)
        if values is not None:
            return last.name, values
        for place, template in enumerate(self._known):
            values = template.read(data, pos)
            if values is not None:
                self._put_first(self._known.pop(place))
                return template.name, values
        return None

    def learn(self, payload: bytes, pos: int) -> None:
        """Remember the shape of a NOTIFY's only message, and forget what was not used longest."""
        self._put_first(Template(payload, pos, self._wanted))
        del self._known[MAX_TEMPLATES:]

    def _put_first(self, template: Template) -> None:
        self._known.insert(0, template)
        self._last = template


def _place_of(name: bytes, kind: int, wanted: Wanted) -> int:
    for place, (wanted_name, kinds) in enumerate(wanted):
        if wanted_name == name and kind in kinds:
            return place
    return _NOWHERE


def _take_name(data: bytes, pos: int) -> tuple[bytes, int]:
    length, pos = decode_length(data, pos)
    return data[pos : pos + length], pos + length


def _skip_value(data: bytes, pos: int, kind: int) -> int:
    if kind == _STRING:
        length, pos = decode_length(data, pos)
        return pos + length
    if kind in _WIDTHS:
        return pos + _WIDTHS[kind]
    return decode_varint(data, pos)[1]
