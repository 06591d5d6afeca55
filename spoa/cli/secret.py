"""No secret is taken from the command line: everybody on the machine can read it there."""

import re
import sys
from collections.abc import Iterable

from spoa.cli.settings import USAGE, fail, quoted

# A token, or what is left of one after a slip of the mouse.
_looks_like_token = re.compile(r"kat_[0-9A-Za-z]{30}").search

MAX_SECRET_BYTES = 4096
"""More than any token or cookie has; whatever is longer is another file."""


def refuse_tokens(arguments: Iterable[str]) -> None:
    """End, if an argument holds what looks like a token. It is not repeated."""
    if any(map(_looks_like_token, arguments)):
        fail(
            "an argument looks like a token: all users of this machine can read it in the list of "
            "processes, so take it for lost; a token is given on stdin, as to `kat revoke --token`",
            code=USAGE,
        )


def refuse_what_is_no_text(arguments: Iterable[str]) -> None:
    """End, if an argument holds bytes that are not UTF-8: no name, path or address has them."""
    for number, argument in enumerate(arguments, start=1):
        if any(map(_is_stray_byte, argument)):
            fail(f"argument {number} is not UTF-8: {quoted(argument)}", code=USAGE)


def _is_stray_byte(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"  # as Python reads what is not in the system's encoding


def read_secret(name: str) -> bytes:
    """Read one line from stdin; from a terminal without showing it. Empty if there is none."""
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415 - for people alone

        return getpass(f"{name}: ").strip().encode(errors="replace")
    return sys.stdin.buffer.read(MAX_SECRET_BYTES).strip()
