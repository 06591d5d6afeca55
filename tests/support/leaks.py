"""Secrets where none belong: looks for tokens, session ids and whole digests in what a run left.

    assert_no_leaks({"haproxy.log": log, "metrics": page}, [token, session_id])

What is searched is taken as it is, and unescaped: from URLs, and from JSON and Python strings.
"""

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote_to_bytes

KID_CHARS = 12
"""So much of a digest may be told. One digit more is a leak."""

# Below, chance would find it, or everything holds it.
_MIN_SECRET_BYTES = 16

# Twice: a proxy may have escaped a URL that was escaped.
_UNESCAPES = 2
_ESCAPED = re.compile(rb"\\(?:u00|x)([0-9a-fA-F]{2})")


def assert_no_leaks(
    artefacts: Mapping[str, str | bytes],
    secrets: Iterable[str | bytes],
    *,
    digests_too: bool = True,
) -> None:
    """Fail with the name of each artefact that holds a secret; never with the secret.

    `digests_too`: nor more than KID_CHARS of a secret's SHA-256, but in the names of keys of Redis.
    """
    leaks = find_leaks(artefacts, secrets, digests_too=digests_too)
    assert not leaks, "; ".join(leaks)


def find_leaks(
    artefacts: Mapping[str, str | bytes],
    secrets: Iterable[str | bytes],
    *,
    digests_too: bool = True,
) -> list[str]:
    """Name what was found, where, and the kid of whose secret it is."""
    looked_for = [_bytes(secret) for secret in secrets]
    assert looked_for, "no secret to look for"
    assert artefacts, "nothing to look into"
    assert all(len(secret) >= _MIN_SECRET_BYTES for secret in looked_for), "that is no secret"
    forms = [
        (f"{form} of {_digest(secret)[:KID_CHARS]}", needle)
        for secret in looked_for
        for form, needle in _forms(secret, digests_too=digests_too).items()
    ]
    return [
        f"{name} holds {form}"
        for name, artefact in artefacts.items()
        for form, needle in _found(_readings(_bytes(artefact)), forms)
    ]


def _found(readings: list[bytes], forms: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [
        (form, needle) for form, needle in forms if any(needle in reading for reading in readings)
    ]


def _readings(raw: bytes) -> list[bytes]:
    """Return it as it is, unescaped, and with its hex digits in lower case."""
    readings = [raw]
    for _ in range(_UNESCAPES):
        readings.append(unquote_to_bytes(readings[-1]))
    readings.append(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), raw))
    return [*readings, raw.lower()]


def _forms(secret: bytes, *, digests_too: bool) -> dict[str, bytes]:
    digest = sha256(secret)
    forms = {
        "the text": secret,
        "the text without its prefix": secret.removeprefix(b"kat_"),
        "the hex": secret.hex().encode(),
        **_base64_forms("the text", secret),
    }
    if digests_too:
        forms["the digest"] = digest.hexdigest()[: KID_CHARS + 1].encode()
        forms |= _base64_forms("the digest", digest.digest())
    return forms


def _base64_forms(what: str, secret: bytes) -> dict[str, bytes]:
    """Encode it as it stands at each of three places in something bigger, as in Basic auth."""
    forms = {}
    for name, encode in (("base64", b64encode), ("URL-safe base64", urlsafe_b64encode)):
        for before in range(3):
            encoded = encode(bytes(before) + secret)
            # The ends mix with their neighbours: up to 6 bits of 2 characters at the beginning.
            first = (0, 2, 3)[before]
            last = len(encoded.rstrip(b"=")) - (len(bytes(before) + secret) % 3 > 0)
            forms[f"{what} in {name} at {before}"] = encoded[first:last]
    return forms


def _digest(secret: bytes) -> str:
    return sha256(secret).hexdigest()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="surrogateescape")


def open_files(pid: int) -> int:
    """Count what a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
