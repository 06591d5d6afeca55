"""Where a visitor goes with a token: nowhere but to an application of ours. Pure.

A gate sends visitors here with `return=<the URL they asked for>`. Anybody can send them here with
any other URL; a portal that went there would hand its tokens to strangers (an open redirect).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_plus

from haproxy.demo.people import Application

# A gate of ours takes 4096 bytes of path.
_MAX_CHARS: Final = 4096

# What a URL is written in, but for `\`, which browsers read as `/`, and `#`, behind which a token
# would never reach the gate. Space, control characters and all that is not ASCII are encoded by who
# sends a URL, so what holds them was not sent by a gate.
_is_plain = re.compile(r"[!\"$-\[\]-~]+").fullmatch

_holds_token = re.compile(r"kat_[0-9A-Za-z]{38}").search

_is_nonce = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class Way:
    """One way into one application, with the nonce of the browser that asked for it, if any."""

    application: Application
    url: str
    nonce: str | None = None

    def with_token(self, token: str) -> str:
        """Write the link that opens it, once."""
        joint = "&" if "?" in self.url else "?"
        return f"{self.url}{joint}kat={token}"

    @property
    def target(self) -> str:
        """Its path and query, for people to read."""
        return self.url.removeprefix(self.application.origin)


def read_way(url: str, nonce: str, applications: Iterable[Application]) -> Way | None:
    """Read where a visitor came from. None for what leads to none of these applications.

    The nonce is the digest of a cookie which that gate gave to that browser: a token for this way
    is bound to it. It says nothing about any other way.
    """
    if len(url) > _MAX_CHARS or not _is_plain(url):
        return None
    for application in applications:
        # Compared as text, with the slash that ends the authority: there is no parser to deceive
        # with a user name, a port, or another spelling of the host.
        path = url.removeprefix(f"{application.origin}/")
        if path != url and not path.startswith("/"):
            return _way(application, _without_token(url), nonce)
    return None


def _way(application: Application, url: str, nonce: str) -> Way | None:
    # In disguise, `;kat=` or in the path: the gate refuses the whole URL, and ours with it.
    if _holds_token(unquote(url)):
        return None
    return Way(application, url, nonce if _is_nonce(nonce) else None)


def _without_token(url: str) -> str:
    """Drop what a gate would take for a token: two of them open nothing."""
    path, _, query = url.partition("?")
    kept = [field for field in query.split("&") if field and not _is_token(field)]
    return f"{path}?{'&'.join(kept)}" if kept else path


def _is_token(field: str) -> bool:
    # `kat=5` is the application's own, and passes a gate.
    return unquote_plus(field).startswith("kat=kat_")
