"""Which events `kat audit` is asked for: its options, read and refused."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NoReturn

from spoa.cli.settings import USAGE, fail, quoted

if TYPE_CHECKING:
    from tokens.admin.auditlog import Network

Moment = Callable[[int], int]
"""Takes the time by Redis's clock, which wrote the times of the stream. Both in ms."""

_is_kid = re.compile(r"[0-9a-f]{12}", re.ASCII).fullmatch


def read_name(option: str, field: str, text: str | None) -> str | None:
    """Take a text that a record could hold in this field."""
    from tokens.spelling import RULES  # noqa: PLC0415 - see load_or_exit

    is_right, rule = RULES[field]
    if text is not None and not is_right(text):
        _refuse(option, text, f"is not {rule}")
    return text


def read_network(text: str | None) -> "Network | None":
    if text is None:
        return None
    try:
        address, slash, prefix = text.partition("/")
        # As events have it: an IPv4-mapped address is the IPv4 one.
        ip = ip_address(address)
        return ip_network(f"{getattr(ip, 'ipv4_mapped', None) or ip}{slash}{prefix}", strict=False)
    except ValueError:
        _refuse("--ip", text, "is no address and no network: 192.0.2.7, 2001:db8::/32")


def read_kid(text: str | None) -> str | None:
    if text is not None and not _is_kid(text):
        # Not repeated: it may be the token itself.
        fail("--kid takes the 12 hex digits that name a token in logs", code=USAGE)
    return text


def read_event(text: str | None) -> str | None:
    from tokens.audit import EVENTS  # noqa: PLC0415 - see load_or_exit

    if text is not None and text not in EVENTS:
        _refuse("--event", text, f"is none of {', '.join(EVENTS)}")
    return text


def read_moment(option: str, text: str | None) -> Moment | None:
    """Take a duration, for so long ago; or a time, which is UTC unless it says otherwise."""
    from spoa.config.duration import parse_duration  # noqa: PLC0415 - see load_or_exit

    if text is None:
        return None
    try:
        ago_ms = parse_duration(text) * 1000
    except ValueError:
        at_ms = _at_ms(option, text)
        return lambda _: at_ms
    return lambda now_ms: max(0, now_ms - ago_ms)


def _at_ms(option: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        _refuse(option, text, "is no duration (90s, 10m, 8h, 1d) and no time (2026-05-01T10:00)")


def _refuse(option: str, text: str, why: str) -> NoReturn:
    fail(f"{option} {quoted(text)} {why}", code=USAGE)
