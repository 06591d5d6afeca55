"""How the configuration names a Redis. A URL may hold a password, so nothing here quotes one."""

import re

from tokens.store.url import FORMS, NoStoreUrl, SentinelUrl, parse_store_url

EMBEDDED = "embedded"
HIDDEN = "***"

# A port that is no number is the password of a URL without its @.
_HOST = r"(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?"
_PLACES = {
    "redis": re.compile(rf"{_HOST}(?:/\d{{0,4}})?", re.ASCII),
    "redis+sentinel": re.compile(rf"{_HOST}(?:,{_HOST})*(?:/[\w.-]*(?:/\d{{0,4}})?)?", re.ASCII),
    "redis+cluster": re.compile(rf"{_HOST}(?:,{_HOST})*(?:/\d{{0,4}})?", re.ASCII),
    "unix": re.compile(r"/[^#]*"),
}


def check_store_url(url: str) -> None:
    """Refuse what names no Redis that can be used. Raises ValueError with a sentence."""
    if url == EMBEDDED:
        return
    try:
        parse_store_url(url)
    except NoStoreUrl:
        raise ValueError(f'must be "{EMBEDDED}", {FORMS}') from None


def holds_password(url: str) -> bool:
    """Tell whether somebody who reads this URL can log in."""
    try:
        store = parse_store_url(url)
    except ValueError:
        return False
    logins = [store.login, *([store.sentinel_login] if isinstance(store, SentinelUrl) else [])]
    return any(login.password for login in logins)


def without_password(value: object) -> str:
    """Show the scheme and the place of a store URL; nothing of what is not understood as one."""
    scheme, _, rest = str(value).partition("://")
    secret, at, place = rest.rpartition("@")
    # What follows `?` may be a password too: a Sentinel's, or redis-py's.
    place = place.partition("?")[0]
    known = _PLACES.get(re.sub("^rediss", "redis", scheme))
    if not known or not known.fullmatch(place) or set("/?#") & set(secret):
        return HIDDEN
    return repr(f"{scheme}://{HIDDEN if at else ''}{at}{place}")
