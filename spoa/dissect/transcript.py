"""Captures of SPOP: raw bytes, or a transcript that tells both directions apart.

A transcript is ASCII lines, as in tests/spop/vectors:

    # a comment
    > 00 00 00 4e 01      what HAProxy said, in hex
      00 00 00 01         and on
    < 00 00 00 40 65      what the agent said
    > end                 who closed: `end` is a FIN, `reset` is a RST
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader

HAPROXY, AGENT = ">", "<"
END, RESET = "end", "reset"

_CHUNK_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 16


class CaptureError(ValueError):
    """The capture is not one; the message is a sentence."""


@dataclass(frozen=True)
class Segment:
    """What one side said, or how it closed. Of raw bytes nobody knows the direction."""

    direction: str
    data: bytes
    closing: str = ""


def read_capture(capture: BufferedReader) -> Iterator[Segment]:
    """Yield the segments of a capture of either kind. Raises CaptureError, OSError.

    The first byte decides: as SPOP, a `#`, `<` or `>` would begin a frame of 590 MB or more.
    """
    if capture.peek(1)[:1] in (b"#", b"<", b">"):
        yield from read_transcript(capture)
    else:
        while data := capture.read1(_CHUNK_BYTES):
            yield Segment("", data)


def read_transcript(capture: BufferedReader) -> Iterator[Segment]:
    """Yield the segments of a transcript, a line each. Raises CaptureError, OSError."""
    direction = ""
    number = 0
    while line := capture.readline(_MAX_LINE_BYTES):
        number += 1
        if len(line) == _MAX_LINE_BYTES:
            raise CaptureError(f"line {number} is longer than {_MAX_LINE_BYTES} bytes")
        text = line.decode("ascii", "replace").strip()
        if text.startswith((HAPROXY, AGENT)):
            direction, text = text[0], text[1:].strip()
        if text and not text.startswith("#"):
            yield _segment(direction, text, number)


def _segment(direction: str, text: str, number: int) -> Segment:
    if not direction:
        raise CaptureError(f"line {number} comes before the first '{HAPROXY}' or '{AGENT}'")
    if text in (END, RESET):
        return Segment(direction, b"", text)
    try:
        return Segment(direction, bytes.fromhex(text))
    except ValueError:
        raise CaptureError(f"line {number} is neither hex nor '{END}' nor '{RESET}'") from None
