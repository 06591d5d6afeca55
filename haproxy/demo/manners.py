"""What goes for every request and every answer, so that no page can forget it."""

from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READING: Final = ("GET", "HEAD")


class OwnPagesOnly:
    """Takes a POST from the portal's own pages alone: no other site acts in a visitor's name."""

    def __init__(self, app: ASGIApp, origin: str) -> None:
        self._app = app
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app if self._is_welcome(scope) else _ELSEWHERE
        await app(scope, receive, send)

    def _is_welcome(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] in _READING:
            return True
        headers = Headers(scope=scope)
        # Sec-Fetch-Site first: no page can set it, no referrer policy turns it into `null`, and the
        # applications, under the same domain perhaps, are not `same-origin`. Older browsers have
        # Origin. Who sends neither is no browser, and has no business with forms.
        site = headers.get("sec-fetch-site")
        return site == "same-origin" if site else headers.get("origin") == self._origin


class WithHeaders:
    """Puts headers on each answer."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def usual_headers(*policy: str) -> dict[str, str]:
    """Name the headers of a page that loads nothing from elsewhere; `policy`: more of its CSP."""
    csp = (
        "default-src 'none'; style-src 'self'; img-src 'self' data:",
        "base-uri 'none'; frame-ancestors 'none'",
    )
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "; ".join((*csp, *policy)),
        # Not no-referrer: forms would come with `Origin: null`.
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }


_ELSEWHERE: Final = PlainTextResponse("This form was not sent from here.\n", 403)
