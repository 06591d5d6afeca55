"""The portal: who is logged in gets a token for an application with one click.

It shows how a service issues tokens. The rest (who somebody is, and what he may open) is yours:
here everybody is believed, and users and applications are constants. What to take along:

* A token is issued on a POST of our own page, never on a GET: links are followed by programs.
* It is for one user, one ACL and a minute, and, if the gate handed over a nonce, for one browser.
* It travels in one redirect, to an origin that we know, and stands in no log: not ours, not that
  of the server in front of us. Who logs whole URLs logs it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final, TypedDict

import redis
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from haproxy.demo.manners import OwnPagesOnly, WithHeaders, usual_headers
from haproxy.demo.oversight import Oversight
from haproxy.demo.pages import file_route, page, read_form
from haproxy.demo.people import USERS, Application, User
from haproxy.demo.returning import Way, read_way
from haproxy.demo.visitors import TTL_S, Visitor, Visitors
from tokens.issue import AsyncIssuer, NotIssued, connect_async
from tokens.store.client import StoreFault

TOKEN_TTL_S: Final = 60
"""From the click to the application it takes a second; for slow phones, sixty."""

# __Host-: set by this very host, over TLS, and sent to no other.
_COOKIE: Final = "__Host-portal"


class _State(TypedDict):
    """What lives as long as the server runs."""

    issuer: AsyncIssuer


def create(
    *,
    url: str,
    applications: Sequence[Application],
    store_url: str,
    prefix: str = "kat:",
) -> Starlette:
    """Make the portal. `url` is its own, as browsers see it; the store is that of the agents."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[_State]:
        # One client for all visitors: it keeps its connections.
        async with aclosing(connect_async(store_url)) as client:
            # With audit=True the stream tells who was given which token, too.
            yield {"issuer": AsyncIssuer(client, prefix=prefix, audit=True)}

    portal = _Portal(tuple(applications), Oversight(store_url, prefix), Visitors())
    # Chrome applies form-action to the redirect behind a form, too.
    forms = " ".join(("form-action 'self'", *(one.origin for one in applications)))
    return Starlette(
        routes=portal.routes(),
        middleware=[
            Middleware(WithHeaders, headers=usual_headers(forms)),
            Middleware(OwnPagesOnly, origin=url.removesuffix("/")),
        ],
        exception_handlers={HTTPException: _refused, StoreFault: _failed},
        lifespan=lifespan,
    )


@dataclass(frozen=True, slots=True)
class _Portal:
    applications: tuple[Application, ...]
    oversight: Oversight
    visitors: Visitors

    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/login", self.login, methods=["POST"]),
            Route("/open", self.open, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/logout-everywhere", self.logout_everywhere, methods=["POST"]),
            Route("/admin", self.admin),
            Route("/admin/revoke", self.revoke, methods=["POST"]),
            file_route("style.css", "text/css"),
        ]

    async def home(self, request: Request) -> Response:
        """Ask who it is, or show what the user may open."""
        asked = dict(request.query_params)
        way = self._way(asked)
        visitor = self._visitor(request)
        if not visitor:
            return page("login.html", user=None, users=USERS, way=way)
        return page(
            "applications.html",
            user=visitor.user,
            ways=self._ways(visitor.user, way),
            notice=visitor.take_notice(),
        )

    async def login(self, request: Request) -> Response:
        """Begin a session of the portal, in place of the one that this browser may have."""
        form = await read_form(request)
        user = next((user for user in USERS if user.name == form.get("user")), None)
        if not user:
            raise HTTPException(403, "There is nobody by this name.")
        self.visitors.forget(request.cookies.get(_COOKIE, ""))
        answer = _to(self._home(form))
        _set_cookie(answer, self.visitors.welcome(user), TTL_S)
        return answer

    async def open(self, request: Request) -> Response:
        """Issue a token and send the visitor to the application with it."""
        user = self._logged_in(request).user
        form = await read_form(request)
        # Looked up among what this user may open: what the form says is only a wish.
        ways = self._ways(user, self._way(form))
        way = next((way for way in ways if way.application.acl == form.get("application")), None)
        if not way:
            raise HTTPException(403, "This application is not yours to open.")
        token = await _issue(request.state.issuer, user, way)
        return _to(way.with_token(token))

    async def logout(self, request: Request) -> Response:
        """End the portal's own session. Applications that are open stay open."""
        self.visitors.forget(request.cookies.get(_COOKIE, ""))
        return _signed_out()

    async def logout_everywhere(self, request: Request) -> Response:
        """End whatever this user has: here, in other browsers, and in all applications."""
        name = self._logged_in(request).user.name
        await run_in_threadpool(self.oversight.revoke_user, name, name)
        self.visitors.forget_user(name)
        return _signed_out()

    async def admin(self, request: Request) -> Response:
        """Show who is in, and what happened lately."""
        if not self._visitor(request):
            return _to("/")
        visitor = self._admin(request)
        view = await run_in_threadpool(self.oversight.look, visitor.user.name)
        return page("admin.html", user=visitor.user, view=view, notice=visitor.take_notice())

    async def revoke(self, request: Request) -> Response:
        """End one session, or all that a user has. It holds on the very next request."""
        visitor = self._admin(request)
        form = await read_form(request)
        try:
            visitor.notice = await run_in_threadpool(self._revocation(form, visitor.user.name))
        except ValueError as error:
            raise HTTPException(400, f"{error}.") from None
        # Or the next click here would get him a new token. The admin's own notice is lost then.
        self.visitors.forget_user(form.get("user", ""))
        return _to("/admin")

    def _revocation(self, form: dict[str, str], by: str) -> partial[str]:
        if "sid" in form:
            return partial(self.oversight.revoke_session, form["sid"], by)
        return partial(self.oversight.revoke_user, form.get("user", ""), by)

    def _way(self, asked: dict[str, str]) -> Way | None:
        """Read the way back, as a gate or our own form hands it over."""
        return read_way(asked.get("return", ""), asked.get("nonce", ""), self.applications)

    def _ways(self, user: User, back: Way | None) -> list[Way]:
        """List what a user may open: where he came from by the way he came, the others by none."""
        return [
            back if back and back.application is application else Way(application, application.url)
            for application in self.applications
            if application.is_open_to(user)
        ]

    def _home(self, form: dict[str, str]) -> str:
        """Write our own first page, with the way back if there is one."""
        way = self._way(form)
        if not way:
            return "/"
        asked = {"return": way.url, **({"nonce": way.nonce} if way.nonce else {})}
        return str(URL("/").include_query_params(**asked))

    def _visitor(self, request: Request) -> Visitor | None:
        return self.visitors.find(request.cookies.get(_COOKIE, ""))

    def _logged_in(self, request: Request) -> Visitor:
        if visitor := self._visitor(request):
            return visitor
        raise HTTPException(403, "You are not logged in, or not any more.")

    def _admin(self, request: Request) -> Visitor:
        visitor = self._logged_in(request)
        if visitor.user.is_admin:
            return visitor
        raise HTTPException(403, "This is for admins.")


async def _issue(issuer: AsyncIssuer, user: User, way: Way) -> str:
    """Issue a token for one user and one way. Its text goes into the redirect and nowhere else."""
    try:
        issued = await issuer.issue(
            user.name,
            way.application.acl,
            TOKEN_TTL_S,
            groups=user.groups,
            nonce=way.nonce,
        )
    except (NotIssued, redis.RedisError):
        # Whether a token was written is unknown; nobody has its text, so it opens nothing.
        raise HTTPException(503, "No token could be issued. Try again in a moment.") from None
    return issued.token


def _to(url: str) -> Response:
    # Not RedirectResponse, which spells the URL anew: `;` is another path than `%3B`.
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={"Location": url})


def _signed_out() -> Response:
    answer = _to("/")
    _set_cookie(answer, "", 0)
    return answer


def _set_cookie(answer: Response, secret: str, ttl_s: int) -> None:
    # Lax, not Strict: who comes from a gate's page, perhaps of another site, is logged in already.
    answer.set_cookie(_COOKIE, secret, ttl_s, secure=True, httponly=True, samesite="lax")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # as registered in `create`
    return page("message.html", error.status_code, user=None, message=error.detail)


async def _failed(_: Request, error: Exception) -> Response:
    return page("message.html", 503, user=None, message=f"{error}.")
