"""What each mode wants of a request before Redis is asked anything."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gates import CHECK
from tokens.check import AFTER_GRANT, GRANT, LOGOUT, SESSION, TOKEN
from tokens.outcome import Outcome
from tokens.policy.looks import look_logout, look_of
from tokens.policy.rule import AclRule, Mode
from tokens.token import mint

GOOD = mint().encode()
ID = b"-Session_" + b"x" * 34  # the same in each process: it names tests
STRICT, IN_SESSION, IN_GRANT, IP, IP_TOKEN = (
    look_of(AclRule(Mode(name))) for name in ("strict", "session", "grant", "ip", "ip+token")
)
MAPPED = bytes(10) + b"\xff\xff"


@pytest.mark.parametrize("mode", list(Mode))
def test_every_mode_has_a_look(mode: Mode) -> None:
    """Every mode of the configuration has a rule of what it wants, and refuses who has nothing."""
    check = replace(CHECK, token=b"")
    assert look_of(AclRule(mode))(check) is not None or check.needs


@pytest.mark.parametrize("via", [b"query", b"form", b"header", b""])
@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.IP])
def test_a_required_nonce_is_asked_of_browsers(mode: Mode, via: bytes) -> None:
    """A token by link or form must be bound to a browser; one in a header need not be."""
    check = replace(CHECK, token=GOOD, via=via, nonce=b"ab")
    assert look_of(AclRule(mode, is_nonce_required=True))(check) is None
    assert check.nonce == (b"!ab" if via in {b"query", b"form"} else b"ab")


@pytest.mark.parametrize(
    ("mode", "changes", "outcome"),
    [
        ("strict", {"token": b""}, Outcome.MISSING),
        ("strict", {"token": b"kat_"}, Outcome.MALFORMED),
        ("strict", {"token": GOOD[:-1]}, Outcome.MALFORMED),
        ("strict", {"token": GOOD + b"0"}, Outcome.MALFORMED),
        ("strict", {"token": GOOD + b"\n"}, Outcome.MALFORMED),
        ("strict", {"token": GOOD.lower()}, Outcome.MALFORMED),
        ("strict", {"token": GOOD + b"," + GOOD}, Outcome.MALFORMED),
        ("strict", {"token": b"", "session": ID}, Outcome.MISSING),
        ("session", {"token": b""}, Outcome.MISSING),
        ("session", {"token": b"kat_"}, Outcome.MALFORMED),
        ("session", {"session": b"x"}, Outcome.SESSION_EXPIRED),
        ("session", {"session": b"x", "token": b"kat_"}, Outcome.MALFORMED),
        ("session", {"session": ID, "token": GOOD, "host": b"h" * 256}, Outcome.WRONG_HOST),
        ("ip+token", {"token": b""}, Outcome.MISSING),
        ("ip+token", {"token": b"kat_"}, Outcome.MALFORMED),
    ],
)
def test_refused_without_redis(mode: str, changes: dict[str, Any], outcome: Outcome) -> None:
    """What can open nothing is refused at once, with its reason, and needs nothing of Redis."""
    check = replace(CHECK, **changes)
    assert look_of(AclRule(Mode(mode)))(check) is outcome
    assert check.needs == 0


@pytest.mark.parametrize(
    ("mode", "changes", "needs", "refusal"),
    [
        ("strict", {"token": GOOD}, TOKEN, None),
        ("strict", {"token": GOOD, "session": ID}, TOKEN, None),
        ("session", {"token": GOOD}, TOKEN, None),
        ("session", {"session": ID}, SESSION, Outcome.SESSION_EXPIRED),
        ("session", {"session": ID, "host": b"h" * 255}, SESSION, Outcome.SESSION_EXPIRED),
        ("session", {"session": ID, "token": GOOD}, SESSION | TOKEN, None),
        ("session", {"session": b"x", "token": GOOD}, TOKEN, None),
        ("session", {"session": ID, "token": b"x"}, SESSION, Outcome.MALFORMED),
        ("grant", {}, GRANT, Outcome.NO_GRANT),
        ("grant", {"session": ID}, GRANT, Outcome.NO_GRANT),
        ("grant", {"token": GOOD}, GRANT | TOKEN, None),
        ("grant", {"token": b"x"}, GRANT, Outcome.MALFORMED),
        ("ip", {}, GRANT, Outcome.NO_GRANT),
        ("ip", {"token": GOOD, "session": ID}, GRANT, Outcome.NO_GRANT),
        ("ip", {"token": b"x"}, GRANT, Outcome.NO_GRANT),
        ("ip+token", {"token": GOOD}, GRANT | TOKEN | AFTER_GRANT, Outcome.NO_GRANT),
    ],
)
def test_what_redis_is_needed_for(
    mode: str, changes: dict[str, Any], needs: int, refusal: Outcome | None
) -> None:
    """Each mode asks for its own proofs and no other's, and says what it means to find none.

    None in the table: the token's own refusal is the answer.
    """
    check = replace(CHECK, **changes)
    assert look_of(AclRule(Mode(mode)))(check) is None
    assert check.needs == needs
    if refusal:
        assert check.refusal is refusal


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"12345",
        bytes(4),
        bytes((0, 1, 2, 3)),
        bytes((127, 0, 0, 1)),
        bytes((127, 9, 9, 9)),
        MAPPED + bytes((127, 0, 0, 1)),
        bytes(16),
        bytes(15) + b"\x01",
    ],
)
def test_a_token_opens_no_address_that_many_have(source: bytes) -> None:
    """From loopback, from nowhere, or without an address, a token in `grant` mode stays whole."""
    check = replace(CHECK, token=GOOD, source=source)
    assert IN_GRANT(check) is None
    assert (check.needs, check.refusal) == (GRANT, Outcome.WRONG_SRC)


@given(st.binary() | st.binary(min_size=38, max_size=38).map(b"kat_".__add__))
def test_no_junk_gets_to_redis(token: bytes) -> None:
    """Any byte string as a token is refused at once, unless its shape and checksum are right."""
    for look in (STRICT, IN_SESSION, IP_TOKEN):
        assert look(replace(CHECK, token=token)) in (Outcome.MISSING, Outcome.MALFORMED)
    check = replace(CHECK, token=token)
    IN_GRANT(check)
    assert not check.needs & TOKEN


@given(st.binary() | st.from_regex(rb"[A-Za-z0-9_-]{42,44}(\.[0-9]{0,9})?", fullmatch=True))
def test_no_junk_is_looked_up_as_a_session(text: bytes) -> None:
    """Only 43 characters of base64, perhaps with an idle time, get to Redis as a session."""
    secret, dot, idle = text.partition(b".")
    is_right = (
        len(secret) == 43
        and secret.replace(b"-", b"a").replace(b"_", b"a").isalnum()
        and (not dot or (idle.isdigit() and len(idle) <= 7 and not idle.startswith(b"0")))
    )
    check = replace(CHECK, session=text)
    assert (IN_SESSION(check) is None) == is_right
    assert (look_logout(replace(CHECK, session=text)) is None) == is_right


def test_who_leaves_with_a_session_has_it_ended() -> None:
    """A logout asks for nothing but the session, whatever else is brought."""
    check = replace(CHECK, session=ID, token=GOOD)
    assert look_logout(check) is None
    assert (check.needs, check.refusal) == (LOGOUT, Outcome.LOGGED_OUT)


@pytest.mark.parametrize("session", [b"", b"x", ID + b"\n", ID + b".0"])
def test_who_leaves_without_a_session_is_out(session: bytes) -> None:
    """There is nothing to end, and so nothing to ask."""
    assert look_logout(replace(CHECK, session=session)) is Outcome.LOGGED_OUT
