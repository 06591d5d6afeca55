"""What the demo shows: one request after the other, how each should end and how it did."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urljoin

from haproxy.demo.assets import NUMBER as ASSETS
from haproxy.demo.site import Visits
from spoa.demo.agent import Agent
from spoa.demo.gate import Gate
from spoa.demo.place import ACL
from spoa.demo.visitor import Answer, Visitor


class Seen(NamedTuple):
    """How a request ended, for the visitor and for the application."""

    status: int
    is_application_reached: bool

    def __str__(self) -> str:
        return f"{self.status}, {'let in' if self.is_application_reached else 'kept out'}"


class Step(NamedTuple):
    """One request."""

    what: str
    expected: Seen
    got: Seen

    @property
    def is_right(self) -> bool:
        return self.got == self.expected


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that takes part, running."""

    gate: Gate
    agent: Agent
    visits: Visits
    portal_url: str

    def ask(self, token: str | None = None, **headers: str) -> Seen:
        before = self.visits.requests
        status = self.gate.ask(token, **headers)
        return self._seen(status, before)

    def see(self, ask: Callable[[], Answer]) -> tuple[Answer, Seen]:
        before = self.visits.requests
        answer = ask()
        return answer, self._seen(answer.status, before)

    def _seen(self, status: int, before: int) -> Seen:
        return Seen(status, self.visits.requests > before)


ALLOWED = Seen(200, is_application_reached=True)


def walk(stage: Stage) -> Iterator[Step]:
    """Do one step after the other. Raises DemoError when something breaks, Ended on Ctrl-C."""
    yield from _as_a_program(stage)
    yield from _as_a_browser(stage)
    yield from _without_an_agent(stage)


def _as_a_program(stage: Stage) -> Iterator[Step]:
    """Show a fresh token in a header, each time."""
    agent = stage.agent
    token = agent.issue()
    yield Step("a fresh token", ALLOWED, stage.ask(token))
    yield Step("the same token again", _kept_out(403), stage.ask(token))
    token = agent.issue(ttl_s=1)
    agent.wait_for_end_of(token)
    yield Step("a token that has expired", _kept_out(403), stage.ask(token))
    yield Step("no token, from a browser", _kept_out(403), stage.ask(Accept="text/html"))
    yield Step("no token, from a program", _kept_out(401), stage.ask(Accept="application/json"))


def _as_a_browser(stage: Stage) -> Iterator[Step]:
    """Follow a link of the portal's, once; then go on with the session that it opened."""
    browser, other = Visitor(stage.gate.ca), Visitor(stage.gate.ca)
    link = _link_from_portal(stage, browser)
    answer, seen = stage.see(lambda: browser.get(link))
    yield Step("a link from the portal, in a browser", _kept_out(303), seen)
    page = urljoin(link, answer.location)
    yield Step("the page behind it, and its 60 assets", ALLOWED, _load(stage, browser, page))
    _, seen = stage.see(lambda: other.get(link))
    yield Step("the same link, in another browser", _kept_out(403), seen)
    _, seen = stage.see(lambda: browser.post(urljoin(page, "/.kat/logout")))
    yield Step("to log out", _kept_out(200), seen)
    _, seen = stage.see(lambda: browser.get(page))
    yield Step("the page, after that", _kept_out(403), seen)


def _without_an_agent(stage: Stage) -> Iterator[Step]:
    """Show that nobody is let in, and nothing lost, while there is nobody to ask."""
    token = stage.agent.issue()
    stage.agent.stop()
    yield Step("a good token, but the agent is stopped", _kept_out(503), stage.ask(token))
    stage.agent.start_again()
    stage.gate.wait_for_agent()
    yield Step("the agent is back, a fresh token", ALLOWED, stage.ask(stage.agent.issue()))


def _link_from_portal(stage: Stage, browser: Visitor) -> str:
    """Log in, and click."""
    browser.post(urljoin(stage.portal_url, "/login"), user="alice")
    return browser.post(urljoin(stage.portal_url, "/open"), application=ACL).location


def _load(stage: Stage, browser: Visitor, page: str) -> Seen:
    """Load a page and all of its assets: the worst of what they were answered."""
    before = stage.visits.requests
    paths = re.findall(r"/asset/[\w.]+", browser.get(page).body)
    status = max(browser.get(urljoin(page, path)).status for path in paths) if paths else 404
    return Seen(status, stage.visits.requests == before + 1 + ASSETS)


def _kept_out(status: int) -> Seen:
    return Seen(status, is_application_reached=False)
