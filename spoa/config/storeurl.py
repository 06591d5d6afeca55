"""How the configuration names a Redis. A URL may hold a password, so nothing here quotes one."""

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from spoa.config.endpoint import MAX_UNIX_PATH_BYTES, check_host

EMBEDDED = "embedded"
LATER_SCHEMES = ("rediss", "redis+sentinel", "redis+cluster")
HIDDEN = "***"

# A port that is no number is the password of a URL without its @.
_TCP_PLACE = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?(/\d{0,4})?", re.ASCII)
_UNIX_PLACE = re.compile(r"/[^#]*")
_PLACES = {**dict.fromkeys(("redis", *LATER_SCHEMES), _TCP_PLACE), "unix": _UNIX_PLACE}


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
    path = unquote(parts.path)
    if not path.isprintable() or len(path.encode()) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"has a path that is not printable, or longer than {MAX_UNIX_PATH_BYTES}")
    options = parse_qsl(parts.query, keep_blank_values=True)
    known = ("db",) if parts.scheme == "unix" else ()
    if parts.fragment or any(key not in known or not value.isdigit() for key, value in options):
        raise ValueError(
            "has an option that is not known: unix:// takes ?db=0, redis:// takes none"
        )


def without_password(value: object) -> str:
    """Show the scheme and the place of a store URL; nothing of what is not understood as one."""
    scheme, _, rest = str(value).partition("://")
    secret, at, place = rest.rpartition("@")
    # What follows `?` may be a password too, to those who read redis-py's manual.
    place = place.partition("?")[0]
    known = _PLACES.get(scheme)
    if not known or not known.fullmatch(place) or set("/?#") & set(secret):
        return HIDDEN
    return repr(f"{scheme}://{HIDDEN if at else ''}{at}{place}")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Not chained: urlsplit quotes what it could not read.
        raise ValueError("is no URL: its host or its port cannot be read") from None
    check_host(unquote(parts.hostname or ""))
    return parts


def _is_tcp(parts: SplitResult) -> bool:
    has_db_path = re.fullmatch(r"/?|/\d{1,4}", parts.path, re.ASCII) is not None
    return parts.scheme == "redis" and bool(parts.hostname) and parts.port != 0 and has_db_path


def _is_unix(parts: SplitResult) -> bool:
    return parts.scheme == "unix" and not parts.hostname and parts.path.startswith("/")
