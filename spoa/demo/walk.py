"""What the demo shows: one request after the other, how each should end and how it did."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from spoa.demo.agent import Agent
from spoa.demo.application import Application
from spoa.demo.gate import Gate


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
    application: Application

    def ask(self, token: str | None = None, **headers: str) -> Seen:
        before = self.application.requests
        status = self.gate.ask(token, **headers)
        return Seen(status, self.application.requests > before)


ALLOWED = Seen(200, is_application_reached=True)


def walk(stage: Stage) -> Iterator[Step]:
    """Do one step after the other. Raises DemoError when something breaks, Ended on Ctrl-C."""
    agent = stage.agent
    token = agent.issue()
    yield Step("a fresh token", ALLOWED, stage.ask(token))
    yield Step("the same token again", _refused(403), stage.ask(token))
    token = agent.issue(ttl_s=1)
    agent.wait_for_end_of(token)
    yield Step("a token that has expired", _refused(403), stage.ask(token))
    yield Step("no token, from a browser", _refused(403), stage.ask(Accept="text/html"))
    yield Step("no token, from a program", _refused(401), stage.ask(Accept="application/json"))
    token = agent.issue()
    agent.stop()
    yield Step("a good token, but the agent is stopped", _refused(503), stage.ask(token))
    agent.start_again()
    stage.gate.wait_for_agent()
    yield Step("the agent is back, a fresh token", ALLOWED, stage.ask(agent.issue()))


def _refused(status: int) -> Seen:
    return Seen(status, is_application_reached=False)
