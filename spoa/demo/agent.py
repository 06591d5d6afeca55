"""The demo's agent: `kat serve` with the configuration of its place."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event

from spoa.config.endpoint import Endpoint
from spoa.demo.place import ACL, Place
from spoa.demo.programs import Program, address_of, listen
from tokens.issue import Issuer
from tokens.record import Keys
from tokens.store.client import connect
from tokens.token import digest

USER = "user1"

# `kat serve`, whatever this very command was called as.
_SERVE = [sys.executable, "-c", "from spoa.cli import main; main()", "serve"]
_HEALTH_TIMEOUT_S = 2.0


class Agent:
    """The agent and its store, started as it is made."""

    def __init__(self, place: Place, log: Path, ended: Event) -> None:
        self._config = place.config()
        self._log = log
        self._ended = ended
        self.metrics = _free_address()
        self._settings = {**place.variables, "KAT_LISTEN__METRICS": self.metrics}
        self._program = self._serve()

    def _serve(self) -> Program:
        return Program(_SERVE, self._log, self._settings, self._ended)

    @property
    def store_url(self) -> str:
        return self._config.store_url

    @property
    def prefix(self) -> str:
        return self._config.store.prefix

    @property
    def endpoint(self) -> Endpoint:
        """Where HAProxy finds it."""
        return self._config.endpoints[0]

    def stop(self) -> None:
        """End it, and wait for it."""
        self._program.stop()

    def start_again(self) -> None:
        """Start it after a stop."""
        self._program = self._serve()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it would answer a request."""
        self._program.wait_until(self._is_ready, "waited for the agent to be ready")

    def issue(self, ttl_s: int = 60) -> str:
        """Issue a token in the way of any other service: one command to Redis."""
        with connect(self.store_url) as client:
            issuer = Issuer(client, prefix=self.prefix)
            return issuer.issue(USER, ACL, ttl_s).token

    def wait_for_end_of(self, token: str) -> None:
        """Wait until Redis, whose clock alone counts, holds the token no more."""
        key = Keys(self.prefix).token(digest(token.encode()))
        with connect(self.store_url) as client:
            self._program.wait_until(lambda: not client.exists(key), "waited for a token to expire")

    def _is_ready(self) -> bool:
        with closing(HTTPConnection(self.metrics, timeout=_HEALTH_TIMEOUT_S)) as client:
            try:
                client.request("GET", "/readyz")
                return client.getresponse().status == HTTPStatus.OK
            except (OSError, HTTPException):
                return False


@contextmanager
def open_agent(place: Place, log: Path, ended: Event) -> Iterator[Agent]:
    """Run the agent for as long as the `with` block lasts."""
    agent = Agent(place, log, ended)
    try:
        agent.wait_until_ready()
        yield agent
    finally:
        agent.stop()


def _free_address() -> str:
    """Choose a port for the metrics: never the usual one, which a real agent may need any moment.

    The kernel hands a free port out again only much later, so it is still ours after a restart.
    """
    with listen() as probe:
        return address_of(probe)
