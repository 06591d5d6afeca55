"""Templates: what all messages of one shape have in common, so that it need not be decoded again.

A HAProxy sends the same message over and over: the same names in the same order, mostly with values
of the same types. Between the values stand always the same bytes. A template compares those as a
whole and reads the values between them; what fits no template is decoded the long way (codec.py),
and learned. A template reads nothing that the long way would refuse, and reads it alike.
"""

from typing import Final

from spoa.spop.constants import DataType
from spoa.spop.varint import ONE_BYTE_LIMIT, decode_varint

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


class Template:
    """One shape of message. `names` and `types` are those of the values that `read` returns."""

    __slots__ = ("_segments", "_tail", "_tail_value", "constants", "name", "names", "types")

    def __init__(self, payload: bytes, pos: int) -> None:
        """Learn from a NOTIFY's only message, which has been decoded and found in order."""
        start = pos
        self.name, pos = _take_name(payload, pos)
        pos += 1
        names: list[bytes] = []
        types: list[int] = []
        self.constants: list[tuple[bytes, int]] = []
        """Name and type byte of the arguments that are NULL or BOOL."""
        self._segments: list[tuple[bytes, int, int]] = []
        while pos < len(payload):
            name, pos = _take_name(payload, pos)
            kind = payload[pos]
            pos += 1
            if kind & _TYPE_MASK in _CONSTANTS:
                self.constants.append((name, kind))
                continue
            kind &= _TYPE_MASK
            names.append(name)
            types.append(kind)
            read_as = _STRING if kind == _BINARY else kind
            self._segments.append((payload[start:pos], pos - start, read_as))
            pos = start = _skip_value(payload, pos, read_as)
        self.names = tuple(names)
        self.types = tuple(types)
        if self._segments and start == len(payload) and self._segments[-1][2] not in _NO_INTEGERS:
            constant, size, _ = self._segments[-1]
            self._segments[-1] = (constant, size, _LAST_INTEGER)
        else:
            self._segments.append((payload[start:], len(payload) - start, _END))
        self._tail: bytes | None = None
        self._tail_value = 0

    def read(self, data: bytes, pos: int) -> list[bytes | int] | None:
        """Read the values of the message that begins at `pos`, or None if it is another shape.

        Integers are as on the wire, unsigned. Raises IndexError, ProtocolError.
        """
        values: list[bytes | int] = []
        for constant, size, kind in self._segments:
            start = pos + size
            if data[pos:start] != constant:
                return None
            if kind == _STRING:
                length = data[start]
                if length < ONE_BYTE_LIMIT:
                    start += 1
                else:
                    length, start = decode_varint(data, start)
                pos = start + length
                values.append(data[start:pos])
            elif kind == _IPV4:
                pos = start + 4
                values.append(data[start:pos])
            elif kind == _IPV6:
                pos = start + 16
                values.append(data[start:pos])
            elif kind == _LAST_INTEGER:
                # HAProxy's time stamp stands there: the same bytes for a millisecond.
                tail = data[start:]
                if tail != self._tail:
                    value, pos = decode_varint(tail, 0)
                    if pos != len(tail):
                        return None
                    self._tail, self._tail_value = tail, value
                values.append(self._tail_value)
                return values
            elif kind == _END:
                # Nothing may follow, nothing may be missing.
                return values if start == len(data) else None
            else:
                value, pos = decode_varint(data, start)
                values.append(value)
        return None


class Templates:
    """The shapes seen so far, those used last in front."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: list[Template] = []

    def read(self, data: bytes, pos: int) -> tuple[Template, list[bytes | int]] | None:
        """Read the message at `pos` by the template that it fits, if there is one.

        Raises IndexError, ProtocolError, as the long way would.
        """
        for place, template in enumerate(self._known):
            values = template.read(data, pos)
            if values is not None:
                if place:
                    self._known.insert(0, self._known.pop(place))
                return template, values
        return None

    def learn(self, payload: bytes, pos: int) -> None:
        """Remember the shape of a NOTIFY's only message, and forget what was not used longest."""
        self._known.insert(0, Template(payload, pos))
        del self._known[MAX_TEMPLATES:]


def _take_name(data: bytes, pos: int) -> tuple[bytes, int]:
    length, pos = decode_varint(data, pos)
    return data[pos : pos + length], pos + length


def _skip_value(data: bytes, pos: int, kind: int) -> int:
    if kind == _STRING:
        length, pos = decode_varint(data, pos)
        return pos + length
    if kind in _WIDTHS:
        return pos + _WIDTHS[kind]
    return decode_varint(data, pos)[1]
