import hashlib
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokens.token import TOKEN_BYTES, digest, is_well_formed, kid, mint

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BODIES = st.text(DIGITS, min_size=32, max_size=32).map(lambda text: f"kat_{text}".encode())


def checksum(body: bytes) -> bytes:
    """Compute the checksum as the contract words it, digit by digit. The slow oracle."""
    rest, digits = zlib.crc32(body), ""
    while rest:
        digits = DIGITS[rest % 62] + digits
        rest //= 62
    return digits.rjust(6, "0").encode()


def test_a_minted_token_is_well_formed() -> None:
    """Whatever `mint` draws has the contract's shape."""
    for _ in range(1000):
        token = mint()
        assert re.fullmatch(r"kat_[0-9A-Za-z]{38}", token)
        assert is_well_formed(token.encode())


def test_minted_tokens_differ() -> None:
    """No two of ten thousand tokens are alike, and every digit of the alphabet is drawn."""
    tokens = {mint() for _ in range(10_000)}
    assert len(tokens) == 10_000
    assert {digit for token in tokens for digit in token[4:36]} == set(DIGITS)


@given(BODIES)
def test_the_checksum_is_the_contracts(body: bytes) -> None:
    """A token is well formed exactly if it ends in the CRC-32 that the contract words."""
    assert is_well_formed(body + checksum(body))


def test_a_known_token() -> None:
    """A token computed by hand stays well formed, its zeros at the checksum's head included."""
    bodies = (b"kat_" + b"%032d" % number for number in range(100_000))
    body = next(body for body in bodies if zlib.crc32(body) < 62**3)
    assert checksum(body).startswith(b"000")
    assert is_well_formed(body + checksum(body))


@given(BODIES, st.integers(0, TOKEN_BYTES - 1), st.integers(0, 255))
def test_one_wrong_byte_is_noticed(body: bytes, position: int, byte: int) -> None:
    """Any single byte changed anywhere makes a token malformed."""
    token = body + checksum(body)
    changed = token[:position] + bytes((byte,)) + token[position + 1 :]
    assert is_well_formed(changed) == (changed == token)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"kat_" + rest))
def test_no_bytes_make_it_raise(rubbish: bytes) -> None:
    """Rubbish is refused, not raised about."""
    assert not is_well_formed(rubbish)


TOKEN = b"kat_" + b"0" * 32 + checksum(b"kat_" + b"0" * 32)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        TOKEN[:-1],
        TOKEN + b"0",
        TOKEN + b"\n",
        b" " + TOKEN,
        TOKEN.upper(),
        b"kat-" + b"0" * 32 + checksum(b"kat-" + b"0" * 32),
        b"KAT_" + b"0" * 32 + checksum(b"KAT_" + b"0" * 32),
        TOKEN.decode().encode("utf-16"),
        b"kat_" + "\u00e4".encode() * 16 + checksum(b"kat_" + "\u00e4".encode() * 16),
        b"kat_" + b"-" * 32 + checksum(b"kat_" + b"-" * 32),
        b"kat_" + b"\0" * 32 + checksum(b"kat_" + b"\0" * 32),
    ],
)
def test_near_misses_are_malformed(text: bytes) -> None:
    """Length, prefix and alphabet are looked at even where the checksum is right."""
    assert is_well_formed(TOKEN)
    assert not is_well_formed(text)


def test_the_digest_is_the_lowercase_sha_256() -> None:
    """Redis knows a token by the lowercase hex SHA-256 of its whole text, logs by 12 digits."""
    expected = hashlib.sha256(TOKEN).hexdigest().encode()
    assert digest(TOKEN) == expected
    assert kid(expected) == expected[:12]
