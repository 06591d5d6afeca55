"""What stands behind an end-to-end test: a real HAProxy, an application, and one of two agents.

A `Gate` is the whole thing with the real agent and its Redis. On a `Stage` a scripted agent says
yes to everything unless told otherwise, so that what HAProxy lets through is HAProxy's own doing.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Self, Unpack

import redis

from haproxy import CONFIGURATION
from tests.support.application import Application, Received
from tests.support.haproxy import Answer, Haproxy, Request, running
from tests.support.stub_agent import StubAgent, acknowledging, allow
from tokens.issue import Bindings, Issuer
from tokens.record import Keys
from tokens.token import digest

DEADLINE_S = 20

PATIENCE = "500ms"
"""In place of 100 ms: with two cores and much to do, an honest answer may take longer."""

TOKEN = "kat_" + "Aa0" * 12 + "zZ"
"""Well-formed to HAProxy, which knows nothing of checksums."""


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@dataclass
class Stage:
    """HAProxy with a scripted agent. `acme` is the server that needs no token."""

    haproxy: Haproxy = field(repr=False)
    agent: StubAgent = field(repr=False)
    application: Application
    acme: Application

    def renewed(self) -> Self:
        """Return it as new: the agent says yes, nobody has seen anything."""
        self.agent.script = acknowledging(allow())
        self.agent.notifies.clear()
        self.application.take()
        self.acme.take()
        return self

    def ask(self, *headers: str, **request: Unpack[Request]) -> Answer:
        return self.haproxy.ask(*headers, **request)

    def asked(self) -> list[dict[bytes, object]]:
        """Return the arguments of every message that the agent got."""
        return [dict(notify.messages[0].args) for notify in self.agent.notifies]


@contextmanager
def staged(
    binary: Path,
    folder: Path,
    *more: Path,
    listener: str = "KAT_HTTP",
    is_dual_stack: bool = False,
    settings: Mapping[str, str] | None = None,
    configuration: Path = CONFIGURATION,
) -> Iterator[Stage]:
    """Run a stage until the block ends; for the options see `running`."""
    socket = folder / "spoa.sock"
    with (
        Application() as application,
        Application() as acme,
        StubAgent(socket, acknowledging(allow())) as agent,
        running(
            binary,
            folder,
            {
                "KAT_AGENT": f"unix@{socket}",
                "KAT_APP": application.address,
                "KAT_ACME": acme.address,
                "KAT_PROCESSING": PATIENCE,
                **(settings or {}),
            },
            *more,
            listener=listener,
            is_dual_stack=is_dual_stack,
            configuration=configuration,
        ) as haproxy,
    ):
        yield Stage(haproxy, agent, application, acme)


class Agent:
    """The real agent, `kat serve`, with a private Redis, or with one that its settings name."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        redis_socket: str | None = None,
    ) -> None:
        """Give the test a client of `redis_socket`, where it is not the private one."""
        self._settings = settings or {}
        self.socket = folder / "run" / "spoa.sock"
        self._log = folder / "agent.log"
        self._log.touch()
        self._folder = folder
        self._redis = redis_socket or str(folder / "state" / "redis" / "redis.sock")
        self.start()

    def start(self) -> None:
        """Start it and wait until it says that its workers are ready."""
        ready_before = self.log().count("msg=ready")
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("kat"), "serve"],
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: self.log().count("msg=ready") > ready_before or self._ended())
        self.client = redis.Redis(unix_socket_path=self._redis)

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def log(self) -> str:
        return self._log.read_text()

    def command(self, *words: str, says: str = "") -> str:
        """Run `kat` with these words beside the agent, `says` on stdin; return all it printed."""
        return subprocess.run(
            [Path(sys.executable).with_name("kat"), *words],
            env=self._environment(),
            input=says,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=DEADLINE_S,
        ).stdout

    def metrics(self) -> str:
        """Return the page of metrics, which KAT_LISTEN__METRICS must have opened."""
        (port,) = re.findall(r"http=127\.0\.0\.1:(\d+)", self.log())
        with closing(HTTPConnection("127.0.0.1", int(port), timeout=DEADLINE_S)) as connection:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    def _environment(self) -> dict[str, str]:
        return {
            **{key: value for key, value in os.environ.items() if "KAT_" not in key},
            "KAT_STATE_DIR": str(self._folder / "state"),
            "KAT_RUN_DIR": str(self._folder / "run"),
            "KAT_LISTEN__METRICS": "",
            "KAT_LISTEN__WORKERS": "2",
            "KAT_LIMITS__DEADLINE_MS": "400",
            **self._settings,
        }

    def _ended(self) -> bool:
        assert self.process.poll() is None, self.log()
        return False


@dataclass
class Visit:
    """One request: what its visitor got, what HAProxy logged, what the application got."""

    answer: Answer
    facts: dict[str, str]
    received: list[Received]

    @property
    def said(self) -> tuple[int, str]:
        """The status, and the reason."""
        return self.answer.status, self.facts["reason"]


@dataclass
class Gate:
    """HAProxy, the real agent, its Redis and an application."""

    haproxy: Haproxy = field(repr=False)
    agent: Agent = field(repr=False)
    application: Application
    secrets: list[str] = field(default_factory=list, repr=False)
    """What was issued, and must be found nowhere afterwards."""
    _visits: Iterator[int] = field(default_factory=count, repr=False)

    def issue(
        self, acl: str = "demo", ttl_s: int = 60, user: str = "user1", **bindings: Unpack[Bindings]
    ) -> str:
        """Issue a token; addresses of this machine are all that HAProxy sees here."""
        given: Bindings = {"groups": ["staff", "red"], **bindings}
        issuer = Issuer(self.agent.client, allow_loopback=True)
        token = issuer.issue(user, acl, ttl_s, **given).token
        self.secrets.append(token)
        return token

    def ask(self, *headers: str, **request: Unpack[Request]) -> Answer:
        return self.haproxy.ask(*headers, **request)

    def is_judging(self) -> bool:
        """Tell whether the agent decides: it refuses a request without a token, with a 403."""
        return self.ask().status == 403

    def visit(self, *headers: str, **request: Unpack[Request]) -> Visit:
        """Ask for a page that nobody else asks for, and find its line in HAProxy's log.

        It lies below `target`.
        """
        path = f"{request.get('target', '').rstrip('/')}/visit-{next(self._visits)}"
        answer = self.ask(*headers, **{**request, "target": path})
        until(lambda: f'"{path}"' in self.haproxy.log())
        (line,) = [line for line in self.haproxy.log().splitlines() if f'"{path}"' in line]
        received = [one for one in self.application.received if one.target == path]
        return Visit(answer, dict(re.findall(r" (\w+)=(\S+)", line)), received)

    def value(self, token: str) -> bytes | None:
        """Return what Redis holds under a token: its record, a tombstone, or nothing."""
        value = self.agent.client.get(Keys().token(digest(token.encode())))
        assert value is None or isinstance(value, bytes)
        return value

    def traces(self) -> dict[str, str]:
        """Return what everybody writes down: nothing of `secrets` may stand in it."""
        return {
            "haproxy.log": self.haproxy.log(),
            "agent.log": self.agent.log(),
            "audit": repr(self.agent.client.xrange(Keys().audit)),
        }

    def is_consumed(self, token: str) -> bool:
        return (self.value(token) or b"").startswith(b"consumed ")
