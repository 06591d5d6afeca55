"""How the configuration names a Redis. A URL may hold a password, so nothing here quotes one."""

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

EMBEDDED = "embedded"
LATER_SCHEMES = ("rediss", "redis+sentinel", "redis+cluster")


def check_store_url(url: str) -> None:
    """Refuse what names no Redis that this release can use. Raises ValueError with a sentence."""
    if url == EMBEDDED:
        return
    parts = _split(url)
    if parts.scheme in LATER_SCHEMES:
        raise ValueError(f"{parts.scheme}:// comes with a later release; redis:// and unix:// work")
    if not (_is_tcp(parts) or _is_unix(parts)):
        raise ValueError(
            'must be "embedded", redis://[user:password@]host[:port][/db] '
            "or unix://[user:password@]/path[?db=0]"
        )
    options = parse_qsl(parts.query, keep_blank_values=True)
    known = ("db",) if parts.scheme == "unix" else ()
    if parts.fragment or any(key not in known or not value.isdigit() for key, value in options):
        raise ValueError(
            "has an option that is not known: unix:// takes ?db=0, redis:// takes none"
        )


def without_password(url: str) -> str:
    """Make a store URL fit to be printed, be it ever so malformed."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, _ = head.partition("//")
    shown = f"{scheme}//***@{tail}" if slashes else f"***@{tail}"
    # What follows `?` may be a password too, to those who read redis-py's manual.
    return (shown if at else url).partition("?")[0]


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Not chained: urlsplit quotes what it could not read.
        raise ValueError("is no URL: its host or its port cannot be read") from None
    return parts


def _is_tcp(parts: SplitResult) -> bool:
    has_db_path = re.fullmatch(r"/?|/\d{1,4}", parts.path, re.ASCII) is not None
    return parts.scheme == "redis" and bool(parts.hostname) and parts.port != 0 and has_db_path


def _is_unix(parts: SplitResult) -> bool:
    return parts.scheme == "unix" and not parts.hostname and parts.path.startswith("/")
