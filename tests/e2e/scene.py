"""What stands behind an end-to-end test: a real HAProxy, an application, and one of two agents.

A `Gate` is the whole thing with the real agent and its Redis. On a `Stage` a scripted agent says
yes to everything unless told otherwise, so that what HAProxy lets through is HAProxy's own doing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, Unpack

import redis

from tests.support.application import Application
from tests.support.haproxy import Answer, Haproxy, Request, running
from tests.support.stub_agent import StubAgent, acknowledging, allow
from tokens.issue import Issuer

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
                **(settings or {}),
            },
            *more,
            listener=listener,
            is_dual_stack=is_dual_stack,
        ) as haproxy,
    ):
        yield Stage(haproxy, agent, application, acme)


class Agent:
    """The real agent, `kat serve`, with a private Redis."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "run" / "spoa.sock"
        self._log = folder / "agent.log"
        self._log.touch()
        self._folder = folder
        self._redis = folder / "state" / "redis" / "redis.sock"
        self.start()

    def start(self) -> None:
        """Start it and wait until it says that its workers are ready."""
        ready_before = self.log().count("msg=ready")
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("kat"), "serve"],
                env={
                    **{key: value for key, value in os.environ.items() if "KAT_" not in key},
                    "KAT_STATE_DIR": str(self._folder / "state"),
                    "KAT_RUN_DIR": str(self._folder / "run"),
                    "KAT_LISTEN__METRICS": "",
                    "KAT_LISTEN__WORKERS": "2",
                    "KAT_LIMITS__DEADLINE_MS": "400",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: self.log().count("msg=ready") > ready_before or self._ended())
        self.client = redis.Redis(unix_socket_path=str(self._redis))

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def log(self) -> str:
        return self._log.read_text()

    def _ended(self) -> bool:
        assert self.process.poll() is None, self.log()
        return False


@dataclass
class Gate:
    """HAProxy, the real agent, its Redis and an application."""

    haproxy: Haproxy = field(repr=False)
    agent: Agent = field(repr=False)
    application: Application

    def issue(self, acl: str = "demo", ttl_s: int = 60) -> str:
        return Issuer(self.agent.client).issue("user1", acl, ttl_s, groups=["staff", "red"]).token

    def ask(self, *headers: str, **request: Unpack[Request]) -> Answer:
        return self.haproxy.ask(*headers, **request)

    def is_judging(self) -> bool:
        """Tell whether the agent decides: it refuses a request without a token, with a 403."""
        return self.ask().status == 403
