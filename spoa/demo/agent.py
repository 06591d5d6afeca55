"""The demo's agent: `kat serve` with the operator's own configuration, or the default one."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event

from spoa.config.endpoint import Endpoint, UnixEndpoint
from spoa.config.model import Config
from spoa.demo.programs import DemoError, Program, free_address
from spoa.listen import is_answered
from tokens.client import connect
from tokens.issue import Issuer
from tokens.record import Keys
from tokens.token import digest

USER = "user1"

# `kat serve`, whatever this very command was called as.
_SERVE = [sys.executable, "-c", "from spoa.cli import main; main()", "serve"]
_HEALTH_TIMEOUT_S = 2.0


class Agent:
    """The agent and its store, started as it is made."""

    def __init__(self, config: Config, log: Path, ended: Event) -> None:
        self._config = config
        self._log = log
        self._ended = ended
        self.metrics = free_address(config.listen.metrics or "127.0.0.1:0")
        self._program = self._serve()

    def _serve(self) -> Program:
        environment = {**os.environ, "KAT_LISTEN__METRICS": self.metrics}
        return Program(_SERVE, self._log, environment, self._ended)

    @property
    def endpoint(self) -> Endpoint:
        """Where HAProxy finds it."""
        return _endpoint(self._config)

    @property
    def acl(self) -> str:
        """The ACL `demo`, or the first one that the configuration has instead."""
        return "demo" if "demo" in self._config.acl else next(iter(self._config.acl))

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
        with connect(self._config.store_url) as client:
            issuer = Issuer(client, prefix=self._config.store.prefix)
            return issuer.issue(USER, self.acl, ttl_s).token

    def wait_for_end_of(self, token: str) -> None:
        """Wait until Redis, whose clock alone counts, holds the token no more."""
        key = Keys(self._config.store.prefix).token(digest(token.encode()))
        with connect(self._config.store_url) as client:
            self._program.wait_until(lambda: not client.exists(key), "waited for a token to expire")

    def _is_ready(self) -> bool:
        with closing(HTTPConnection(self.metrics, timeout=_HEALTH_TIMEOUT_S)) as client:
            try:
                client.request("GET", "/readyz")
                return client.getresponse().status == HTTPStatus.OK
            except (OSError, HTTPException):
                return False


@contextmanager
def open_agent(config: Config, log: Path, ended: Event) -> Iterator[Agent]:
    """Run the agent. Raises DemoError when there is one already."""
    endpoint = _endpoint(config)
    if isinstance(endpoint, UnixEndpoint) and is_answered(endpoint.path):
        raise DemoError(
            f"an agent is running at {endpoint} already; stop it first, or give the demo a place "
            "of its own: KAT_STATE_DIR=/some/folder kat demo"
        )
    agent = Agent(config, log, ended)
    try:
        agent.wait_until_ready()
        yield agent
    finally:
        agent.stop()


def _endpoint(config: Config) -> Endpoint:
    return (config.shared_endpoints or config.own_endpoints(0))[0]
