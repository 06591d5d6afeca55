"""Commands as RESP: what is written for a batch, in one piece. Pure.

Replies are read by hiredis. Its packing looks at each word in turn; here a batch of 32 tokens, 320
words, is written by three calls that loop in C: 0.6 us per token in place of 0.8 (CPython 3.11,
timeit, 32 tokens).
"""

from collections.abc import Sequence
from typing import Final

from tokens.question import Command

# What stands before a word, the end of the one before it included, by the word's length. As long
# as any key, claim, address or path; what is longer is rare and written one by one.
_STARTS: Final = tuple(b"\r\n$%d\r\n" % size for size in range(1024))


def pack(commands: Sequence[Command]) -> bytes:
    """Write commands as arrays of bulk strings."""
    pieces: list[bytes] = []
    for command in commands:
        pieces += _pieces(command)
    return b"".join(pieces)


def _pieces(command: Command) -> list[bytes]:
    number = len(command)
    pieces = [b""] * (2 * number)
    sizes = list(map(len, command))
    if max(sizes) < len(_STARTS):
        pieces[::2] = map(_STARTS.__getitem__, sizes)
    else:
        pieces[::2] = [b"\r\n$%d\r\n" % size for size in sizes]
    pieces[1::2] = command
    pieces[0] = b"*%d%b" % (number, pieces[0])
    pieces.append(b"\r\n")
    return pieces
