"""Commands of the Runtime API from words, none of which can become two. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from tokens.spelling import shown

# HAProxy closes the connection for a line of its tune.bufsize, 16384 unless configured. The
# longest words of ours are paths of files.
_MAX_WORD_CHARS: Final = 1000

_PRINTABLE: Final = re.compile(r"[ -~]+").fullmatch
_STREAM: Final = re.compile(r"0x[0-9a-f]{1,16}").fullmatch
_NUMBER: Final = re.compile(r"#[0-9]{1,9}").fullmatch

# Outside of these nothing is special, to 2.6, 3.0 and 3.2 alike: no quote, no #, no $.
_SPECIAL: Final = re.compile(r"[ ;\\]")


def command(words: Sequence[str]) -> bytes:
    """Write one line. Raises ValueError for a word that HAProxy cannot take as it is."""
    return " ".join(map(_escaped, words)).encode("ascii") + b"\n"


def acl_name(name: str) -> str:
    """Return it, if it can be a number, as `#500`, or a file's name. Raises ValueError."""
    # HAProxy takes `#` and whatever is no number behind it for 0, which is another ACL. And what
    # begins with @ is a version to it.
    if name.startswith(("#", "@")) and not _NUMBER(name):
        raise ValueError(f"{shown(name)} is no name of an ACL: write #500, a file or virt@name")
    return name


def pattern(text: str) -> str:
    """Return it, unless `del acl` would take it for the place of an entry. Raises ValueError."""
    if text.startswith("#"):
        raise ValueError(f"{shown(text)} is no address")
    return text


def stream_id(text: str) -> str:
    """Return it, if it is one that `show sess` gives. Raises ValueError."""
    if not _STREAM(text):
        raise ValueError(f"{shown(text)} is no stream's id: 0x and up to 16 hex digits")
    return text


def _escaped(word: str) -> str:
    if not _PRINTABLE(word) or len(word) > _MAX_WORD_CHARS:
        raise ValueError(f"{shown(word)} is not 1 to {_MAX_WORD_CHARS} printable characters")
    if word.startswith("<<"):  # begins a payload, which swallows the commands behind it
        raise ValueError(f"{shown(word)} begins with <<")
    return _SPECIAL.sub(r"\\\g<0>", word)
