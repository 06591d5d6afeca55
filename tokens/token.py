"""What a token is: its text, its checksum, its digest. Pure.

`kat_`, 32 characters from the operating system's random source, 6 characters of CRC-32. The
checksum is no secret: it lets an agent refuse garbage without asking Redis, and lets secret
scanners find leaks. Redis and the logs never hold the text, only its digest.
"""

import secrets
from hashlib import sha256
from typing import Final
from zlib import crc32

PREFIX: Final = b"kat_"
TOKEN_BYTES: Final = 42

KID_CHARS: Final = 12
"""How many digits of the digest name a token in logs: 48 bits, enough to find, none to guess."""

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 32  # 62**32 is 190 bits
_CHECK_CHARS: Final = 6  # 62**6 is above 2**32
_BODY_BYTES: Final = TOKEN_BYTES - _CHECK_CHARS

# Two digits at a time halve the divisions: `is_well_formed` stands before every Redis call.
_PAIRS: Final = tuple(bytes((high, low)) for high in _DIGITS for low in _DIGITS)
_PAIR: Final = 62**2
_TWO_PAIRS: Final = 62**4


def mint() -> str:
    """Draw a fresh token."""
    body = PREFIX + _base62(secrets.randbelow(62**_RANDOM_CHARS), _RANDOM_CHARS)
    return (body + _base62(crc32(body), _CHECK_CHARS)).decode("ascii")


def is_well_formed(token: bytes) -> bool:
    """Tell whether the bytes could be a token: prefix, alphabet, length and checksum.

    Raises for no bytes whatever. A yes says nothing about whether the token was ever issued.
    """
    if len(token) != TOKEN_BYTES or not token.startswith(PREFIX) or not token[4:].isalnum():
        return False
    check = crc32(token[:_BODY_BYTES])
    high, low = divmod(check % _TWO_PAIRS, _PAIR)
    return token[_BODY_BYTES:] == _PAIRS[check // _TWO_PAIRS] + _PAIRS[high] + _PAIRS[low]


def digest(token: bytes) -> bytes:
    """Name the token as Redis knows it: its SHA-256 as 64 lowercase hex digits."""
    return sha256(token).hexdigest().encode()


def kid(digest: bytes) -> bytes:
    """Name the token as logs and people may know it."""
    return digest[:KID_CHARS]


def _base62(number: int, width: int) -> bytes:
    """Write a number in base 62, most significant digit first, padded with zeros."""
    digits = bytearray()
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return bytes(reversed(digits))
