"""Captured SPOP as a readable tree, malformed bytes included: what `kat inspect` prints.

Tokens and cookies are hidden unless asked for. Memory is bounded by one frame a direction and
the fragments of one NOTIFY.
"""

from collections.abc import Iterator
from io import BufferedReader

from spoa.dissect.payload import Cursor, dump, payload_lines
from spoa.dissect.transcript import CaptureError, read_capture
from spoa.spop import schema
from spoa.spop.constants import FRAME_LENGTH_BYTES, MAX_REASSEMBLED_BYTES, FrameFlag, FrameType
from spoa.spop.schema import SchemaError

__all__ = ["MAX_FRAME_BYTES", "CaptureError", "NotSpop", "dissect"]

# HAProxy's frames are a buffer at most, 16 KiB unless tuned. What claims to be longer than a
# mebibyte is another protocol: the first four bytes of "GET /" are a frame of 1.1 GB.
MAX_FRAME_BYTES = 1 << 20

_KINDS = frozenset(map(int, FrameType))

_OTHER_PROTOCOLS = {
    b"\x16\x03": "a TLS handshake",
    b"PROX": "a PROXY protocol header",
    **dict.fromkeys((b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"PRI "), "an HTTP request"),
}


class NotSpop(Exception):
    """The capture has bytes, but no frame of SPOP among them."""


def dissect(capture: BufferedReader, *, show_secrets: bool = False) -> Iterator[str]:
    """Yield the lines of the tree as soon as their frames are complete.

    Raises CaptureError when there is nothing to show or a transcript is none; NotSpop behind the
    lines of what is none; OSError.
    """
    streams: dict[str, _Stream] = {}
    for segment in read_capture(capture):
        stream = streams.setdefault(
            segment.direction, _Stream(segment.direction, show_secrets=show_secrets)
        )
        yield from stream.receive(segment.data)
        if segment.closing:
            yield from stream.end()
            yield f"{segment.direction} {segment.closing}"
    if not streams:
        raise CaptureError("the capture is empty")
    for stream in streams.values():
        yield from stream.end()
    if not any(stream.has_frames for stream in streams.values()):
        raise NotSpop


class _Stream:
    """One direction: what has arrived of it and is not yet a frame."""

    def __init__(self, direction: str, *, show_secrets: bool) -> None:
        self.has_frames = False
        """Whether any of it was SPOP: a frame of a known type, good or bad."""
        self._direction = direction
        self._show_secrets = show_secrets
        self._offset = 0
        self._unread = bytearray()
        self._is_lost = False
        self._fragments: tuple[int, int, bytearray] | None = None

    def receive(self, data: bytes) -> Iterator[str]:
        """Take bytes; yield the lines of the frames that they complete."""
        if self._is_lost:
            return
        self._unread += data
        while len(self._unread) >= FRAME_LENGTH_BYTES:
            length = int.from_bytes(self._unread[:FRAME_LENGTH_BYTES])
            if length > MAX_FRAME_BYTES:
                yield from self._lose_track(length)
                return
            if len(self._unread) < FRAME_LENGTH_BYTES + length:
                return
            yield from self._frame(self._take(FRAME_LENGTH_BYTES + length), length)

    def end(self) -> Iterator[str]:
        """Yield what is left when nothing more comes: a frame cut off, as far as it goes."""
        rest = self._take(len(self._unread))
        if not rest:
            return
        if len(rest) < FRAME_LENGTH_BYTES:
            yield self._line(len(rest), f"cut off after {len(rest)} bytes of a frame's length")
            yield from dump(rest, 0, show_secrets=self._show_secrets)
            return
        length = int.from_bytes(rest[:FRAME_LENGTH_BYTES])
        yield self._line(len(rest), f"cut off after {len(rest) - FRAME_LENGTH_BYTES} bytes of:")
        yield from self._frame(rest, length)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        self._offset += size
        return taken

    def _line(self, size: int, text: str) -> str:
        """Begin a line with where its `size` bytes, already taken, began."""
        return f"{self._direction} @{self._offset - size} {text}".lstrip()

    def _lose_track(self, length: int) -> Iterator[str]:
        """Give up on a length that no frame has: where the next one starts, nobody knows."""
        self._is_lost = True
        rest = self._take(len(self._unread))
        looks = next((it for head, it in _OTHER_PROTOCOLS.items() if rest.startswith(head)), "")
        yield self._line(
            len(rest), f"not SPOP: a frame of {length} bytes, at most {MAX_FRAME_BYTES}"
        )
        yield f"  {f'this looks like {looks}; ' if looks else ''}nothing from here on can be read"
        yield from dump(rest, 0, show_secrets=self._show_secrets)

    def _frame(self, whole: bytes, length: int) -> Iterator[str]:
        """Yield a line for the head of a frame, then its payload."""
        cursor = Cursor(whole, FRAME_LENGTH_BYTES, show_secrets=self._show_secrets)
        try:
            kind, flags = cursor.read(schema.byte), cursor.read(schema.flags)
            ids = cursor.read(schema.varint), cursor.read(schema.varint)
        except SchemaError as error:
            yield self._line(len(whole), f"frame length={length}")
            yield from cursor.malformed(error)
            return
        self.has_frames |= kind in _KINDS
        head = f"{_kind(kind)} length={length} flags={_flags(flags)} stream={ids[0]} frame={ids[1]}"
        yield self._line(len(whole), head)
        if kind == FrameType.UNSET or not schema.is_whole(flags):
            yield from self._fragment(kind, flags, ids, cursor)
        else:
            yield from payload_lines(kind, cursor)

    def _fragment(
        self, kind: int, flags: int, ids: tuple[int, int], cursor: Cursor
    ) -> Iterator[str]:
        """Keep a fragment; show the NOTIFY that the last one completes."""
        if flags & FrameFlag.ABORT:
            self._fragments = None
            yield "  aborted: what there was of it is dropped"
            return
        piece = cursor.rest()
        if kind == FrameType.NOTIFY:
            self._fragments = (*ids, bytearray())
        if self._fragments is None or self._fragments[:2] != ids:
            yield "  a fragment without its beginning"
            yield from cursor.dump()
            return
        payload = self._fragments[2]
        payload += piece
        yield f"  fragment of {len(piece)} bytes, {len(payload)} so far"
        if len(payload) > MAX_REASSEMBLED_BYTES:
            self._fragments = None
            yield f"  dropped: more than {MAX_REASSEMBLED_BYTES} bytes"
        elif flags & FrameFlag.FIN:
            self._fragments = None
            whole = Cursor(bytes(payload), 0, show_secrets=self._show_secrets)
            yield from payload_lines(FrameType.NOTIFY, whole)


def _kind(number: int) -> str:
    try:
        return FrameType(number).name.replace("_", "-")
    except ValueError:
        return f"unknown type {number}"


def _flags(flags: int) -> str:
    names = [flag.name or "" for flag in FrameFlag if flags & flag]
    reserved = flags & ~int(FrameFlag.FIN | FrameFlag.ABORT)  # ~ of a Flag knows no other bits
    return "+".join([*names, *([hex(reserved)] if reserved else [])]) or "0"
