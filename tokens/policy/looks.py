"""What each mode wants of a request, before Redis is asked anything. Pure.

Each look at a check returns its refusal, or None: then `needs` says what Redis must be asked, and
`refusal` what the answer is if nothing there says yes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from tokens.address import address_of, is_loopback, is_unspecified
from tokens.check import AFTER_GRANT, GRANT, LOGOUT, SESSION, TOKEN, Check
from tokens.outcome import Outcome
from tokens.policy.rule import AclRule, Mode
from tokens.policy.session import is_session_id
from tokens.policy.sessionrecord import MAX_HOST_BYTES
from tokens.token import is_well_formed

Look = Callable[[Check], Outcome | None]

_BY_BROWSER: Final = (b"query", b"form")

_MISSING: Final = Outcome.MISSING
_MALFORMED: Final = Outcome.MALFORMED
_SESSION_EXPIRED: Final = Outcome.SESSION_EXPIRED


def _strict(check: Check) -> Outcome | None:
    if not check.token:
        return Outcome.MISSING
    if not is_well_formed(check.token):
        return Outcome.MALFORMED
    check.needs = TOKEN
    return None


def _session(check: Check) -> Outcome | None:
    """Take a token before a session: a refused one is no harm to a session that stands."""
    if len(check.host) > MAX_HOST_BYTES:
        return Outcome.WRONG_HOST
    needs, refusal = 0, _MISSING
    if check.session:
        refusal = _SESSION_EXPIRED
        if is_session_id(check.session):
            needs = SESSION
    if check.token:
        refusal = _MALFORMED
        if is_well_formed(check.token):
            needs |= TOKEN
    check.needs, check.refusal = needs, refusal
    return None if needs else refusal


def _grant(check: Check) -> Outcome | None:
    """Take a token before a grant: it may open the address for longer."""
    check.needs, check.refusal = GRANT, Outcome.NO_GRANT
    if check.token:
        if not is_well_formed(check.token):
            check.refusal = Outcome.MALFORMED
        elif not _is_grantable(check.source):
            # Behind a proxy that hides its clients, 127.0.0.1 is everybody.
            check.refusal = Outcome.WRONG_SRC
        else:
            check.needs = GRANT | TOKEN
    return None


@lru_cache(4096)
def _is_grantable(source: bytes) -> bool:
    address = address_of(source).decode()
    return address != "" and not is_loopback(address) and not is_unspecified(address)


def _ip(check: Check) -> Outcome | None:
    check.needs, check.refusal = GRANT, Outcome.NO_GRANT
    return None


def _ip_token(check: Check) -> Outcome | None:
    """Take the token only once the grant is known to stand: else it stays whole."""
    refusal = _strict(check)
    if refusal is None:
        check.needs, check.refusal = GRANT | TOKEN | AFTER_GRANT, Outcome.NO_GRANT
    return refusal


def look_logout(check: Check) -> Outcome | None:
    """Take the session of a visitor who wants to leave."""
    if not is_session_id(check.session):
        return Outcome.LOGGED_OUT
    check.needs, check.refusal = LOGOUT, Outcome.LOGGED_OUT
    return None


_LOOKS: Final[dict[Mode, Look]] = {
    Mode.STRICT: _strict,
    Mode.SESSION: _session,
    Mode.GRANT: _grant,
    Mode.IP: _ip,
    Mode.IP_TOKEN: _ip_token,
}


def look_of(rule: AclRule) -> Look:
    """Find what an ACL wants of a request."""
    look = _LOOKS[rule.mode]
    return _wanting_nonce(look) if rule.is_nonce_required else look


def _wanting_nonce(look: Look) -> Look:
    """Look as `look` does, and have redeem.lua refuse a browser's token that is bound to none."""

    def look_for_nonce(check: Check) -> Outcome | None:
        if check.via in _BY_BROWSER:
            check.nonce = b"!" + check.nonce
        return look(check)

    return look_for_nonce
