"""Somebody at a browser: with cookies of his own, from an address of his own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypedDict, Unpack

from playwright.sync_api import Browser, BrowserContext, Page, Request, Response

from tests.browser.world import COOKIE, PORTAL, TOKEN, WIKI
from tests.support.browser import TIMEOUT_MS
from tests.support.detour import Detour
from tests.support.haproxy import Haproxy, fresh_source

COMPLETE = "body[data-loaded='60'][data-live='yes']"
"""The sample application's page with all its assets and an answer from its WebSocket."""


@dataclass
class Person:
    """What he does and what he sees. `links` are those with a token that he was sent to."""

    context: BrowserContext = field(repr=False)
    source: str
    page: Page = field(repr=False)
    links: list[str] = field(default_factory=list, repr=False)
    referers: list[str] = field(default_factory=list, repr=False)

    def log_in(self, name: str = "alice") -> None:
        """Log in at the portal, where he is already or by its front page."""
        if not self.page.url.startswith(PORTAL):
            self.visit(PORTAL)
        self.page.click(f"button[name=user][value={name}]")
        self.page.wait_for_selector("body[data-page=applications]")

    def open_application(self) -> str:
        """Click on the tile of the sample application; return the link that the portal made."""
        before = len(self.links)
        with self.page.expect_navigation(url=f"{WIKI}**"):
            self.page.click("button[name=application][value=demo]")
        (link,) = self.links[before:]
        return link

    def enter(self, name: str = "alice") -> str:
        """Go the whole way from the portal into the application; return the link."""
        self.log_in(name)
        link = self.open_application()
        self.page.wait_for_selector(COMPLETE)
        return link

    def visit(self, url: str) -> Response:
        """Go to a URL as if it had been typed; return the answer at the end of all redirects."""
        response = self.page.goto(url)
        assert response
        return response

    def click(self, selector: str) -> Response:
        """Click on what leads to another page; return its answer."""
        with self.page.expect_navigation() as navigation:
            self.page.click(selector)
        assert navigation.value
        return navigation.value

    def cookie(self, name: str = COOKIE) -> str | None:
        """Return the value of a cookie that the application's host would get."""
        values = [one["value"] for one in self.context.cookies(WIKI) if one["name"] == name]
        return values[0] if values else None


class Habits(TypedDict, total=False):
    """How his browser is set: as Playwright's new_context names it."""

    java_script_enabled: bool
    color_scheme: Literal["light", "dark"]


class Meet(Protocol):
    """Brings somebody to a door."""

    def __call__(self, door: Haproxy, **habits: Unpack[Habits]) -> Person: ...


@contextmanager
def person(
    chromium: Browser, ports: Mapping[int, int], **habits: Unpack[Habits]
) -> Iterator[Person]:
    """Open a browser context from an address that nobody used before."""
    with Detour(fresh_source(), ports) as detour:
        context = chromium.new_context(proxy={"server": detour.url}, **habits)
        context.set_default_timeout(TIMEOUT_MS)
        someone = Person(context, detour.source, context.new_page())
        context.on("request", lambda request: _note_referer(someone, request))
        context.on("response", lambda response: _note_link(someone, response))
        try:
            yield someone
        finally:
            context.close()


def _note_referer(someone: Person, request: Request) -> None:
    someone.referers.append(request.headers.get("referer", ""))


def _note_link(someone: Person, response: Response) -> None:
    location = response.headers.get("location", "")
    if TOKEN.search(location):
        someone.links.append(location)
