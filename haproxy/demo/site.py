"""The sample application: what a gate protects. It looks at the gate's headers and at no token.

One page of sixty assets and a WebSocket, a second page with a form, a cookie of its own. It writes
down whatever reaches it, so that everybody can see what does not.
"""

import json
from collections import deque
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from haproxy.demo.assets import ASSETS
from haproxy.demo.manners import WithHeaders, usual_headers
from haproxy.demo.pages import file_route, page, read_form

_MAX_NOTES: Final = 20
_MAX_NOTE_CHARS: Final = 200

_POLICY: Final = ("script-src 'self'", "connect-src 'self'", "form-action 'self'")


class Visits:
    """Counts what reaches the application, and writes it down, one line of JSON for each."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.requests = 0
        """How many there were. HAProxy's health checks connect and ask nothing."""

    def note(self, scope: Scope) -> None:
        """Note a request or a WebSocket: the target as it came, and the names of all headers."""
        self.requests += 1
        headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        query = scope["query_string"]
        visit = {
            "method": scope.get("method", "GET"),
            "target": (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1"),
            "referer": dict(headers).get("referer"),
            "headers": [name for name, _ in headers],
        }
        with self._log.open("a") as log:
            log.write(json.dumps(visit) + "\n")


def create(visits: Visits) -> Starlette:
    """Make the application."""
    site = _Site()
    return Starlette(
        routes=[
            Route("/", site.home),
            Route("/notes", site.notes, methods=["GET", "POST"]),
            file_route("style.css", "text/css"),
            file_route("home.js", "text/javascript"),
            *(Route(asset.path, _asset) for asset in ASSETS),
            WebSocketRoute("/live", _echo),
        ],
        middleware=[
            Middleware(_Noted, visits=visits),
            Middleware(WithHeaders, headers=usual_headers(*_POLICY)),
        ],
    )


class _Noted:
    """Notes whatever comes, also what there is not."""

    def __init__(self, app: ASGIApp, visits: Visits) -> None:
        self._app = app
        self._visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self._visits.note(scope)
        await self._app(scope, receive, send)


class _Site:
    def __init__(self) -> None:
        self._notes: deque[str] = deque(maxlen=_MAX_NOTES)

    async def home(self, request: Request) -> Response:
        answer = page("home.html", assets=ASSETS, **_visitor(request))
        # Like any application's own cookie, it passes the gate in both directions.
        answer.set_cookie("site-colour", "green", secure=True, samesite="lax")
        return answer

    async def notes(self, request: Request) -> Response:
        if request.method == "POST":
            form = await read_form(request)
            self._notes.append(form.get("text", "")[:_MAX_NOTE_CHARS])
            return RedirectResponse("/notes", HTTPStatus.SEE_OTHER)
        return page("notes.html", notes=self._notes, **_visitor(request))


def _visitor(request: Request) -> dict[str, str]:
    """Say who this is. Only the gate can set these headers: it removes a client's own."""
    return {
        "user": _text(request, "x-kat-user") or "stranger",
        "groups": _text(request, "x-kat-groups"),
    }


def _text(request: Request, name: str) -> str:
    # The bytes are UTF-8; Starlette, as HTTP has it, reads them as Latin-1.
    return request.headers.get(name, "").encode("latin-1").decode(errors="replace")


async def _asset(request: Request) -> Response:
    asset = next(asset for asset in ASSETS if asset.path == request.url.path)
    return Response(asset.content, media_type=asset.media_type)


async def _echo(socket: WebSocket) -> None:
    """Say everything again, until the visitor goes or the server ends."""
    await socket.accept()
    try:
        async for text in socket.iter_text():
            await socket.send_text(text)
    except WebSocketDisconnect:
        pass  # it went while it was spoken to
