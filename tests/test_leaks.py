"""What looks for leaks finds them."""

import json
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from urllib.parse import quote

import pytest

from tests.support.leaks import assert_no_leaks, find_leaks
from tokens.token import mint

# Not drawn: the names of tests are made of them.
_TOKEN = b"kat_ThisOnlyShowsTheShapeOfAToken000cccccc"
_SESSION = b"ThisOnlyShowsTheShapeOfASession-_0123456789.1800"
_DIGEST = sha256(_TOKEN).digest()


@pytest.mark.parametrize(
    "artefact",
    [
        b"GET /?kat=" + _TOKEN + b" HTTP/1.1",
        b"cookie: __Host-kat-demo=" + _SESSION + b"; x",
        b"?kat=" + "".join(f"%{byte:02x}" for byte in _TOKEN).encode(),
        quote("?kat=" + "".join(f"%{byte:02X}" for byte in _TOKEN)),
        _TOKEN.removeprefix(b"kat_"),
        f"repr {_TOKEN!r}",
        json.dumps({"x": _TOKEN.decode()}).replace("_", "\\u005f"),
        f"key kat:t:{_DIGEST.hex()}",
        f"key {_DIGEST.hex().upper()}",
        f"digit {_DIGEST.hex()[:13]}",
        b64encode(b"user:" + _TOKEN + b"\xff"),
        b64encode(b"user1:" + _TOKEN),
        urlsafe_b64encode(b"us:" + _SESSION + b"\xff"),
        b64encode(_DIGEST),
        urlsafe_b64encode(_DIGEST),
        _TOKEN.hex(),
        _TOKEN.hex().upper(),
    ],
)
def test_a_secret_is_found(artefact: str | bytes) -> None:
    """Whatever a secret is wrapped in, its artefact is named, and the secret is not."""
    [*leaks] = find_leaks({"clean": b"nothing", "dirty": artefact}, [_TOKEN, _SESSION])
    assert leaks
    assert all(leak.startswith("dirty holds ") for leak in leaks)
    assert find_leaks({"leaks": "; ".join(leaks)}, [_TOKEN, _SESSION]) == []


def test_what_may_be_told_is_no_leak() -> None:
    """A kid, another token and the digest of a key that Redis was asked for are none."""
    other = mint()
    told = f"kid={_DIGEST.hex()[:12]} {other} {sha256(other.encode()).hexdigest()}"
    assert_no_leaks({"log": told}, [_TOKEN, _SESSION])
    keys = {"keys": f"kat:t:{_DIGEST.hex()}"}
    assert find_leaks(keys, [_TOKEN], digests_too=False) == []
    with pytest.raises(AssertionError, match="keys holds the digest of "):
        assert_no_leaks(keys, [_TOKEN])


@pytest.mark.parametrize(
    ("artefacts", "secrets"), [({}, [_TOKEN]), ({"a": ""}, []), ({"a": ""}, [""])]
)
def test_looking_for_nothing_is_a_mistake(artefacts: dict[str, str], secrets: list[bytes]) -> None:
    """A run that kept no secrets or no artefacts does not pass for a clean one."""
    with pytest.raises(AssertionError):
        find_leaks(artefacts, secrets)
