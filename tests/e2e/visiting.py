"""What a browser says to a gate, byte by byte, and what must hold whatever was said.

    stage.agent.script = acknowledging(OPENS)
    answer = stage.ask(target=f"/page?{LINK}")

The laws are `judged`'s; the fixture `watched` of conftest.py is a stage under them.
"""

import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.scene import PATIENCE, TOKEN, Agent, Gate, Stage, until
from tests.support.application import Application, Received
from tests.support.haproxy import Answer, Haproxy, read_answer, running
from tests.support.leaks import assert_no_leaks
from tests.support.stub_agent import actions, refuse

LINK = f"kat={TOKEN}"
"""What stands in the query of a link."""

SESSION = "S3ss10n-_" * 4 + "S3ss10n"
COOKIE = f"__Host-kat-demo={SESSION}"
SET_COOKIE = f"{COOKIE}; Path=/; Secure; HttpOnly; SameSite=Lax"
BROWSER = "c0ffee00" * 8
"""What the gate's other cookie, __Host-kat, has in it."""

OURS = "Sec-Fetch-Site: same-origin"
PROGRAM = "Accept: application/json"
NO_BODY = "Content-Length: 0"

_YES: dict[str, bytes] = {"class": b"allow", "acl": b"demo", "user": b"user1"}
OPENS = actions(**_YES, reason=b"ok", session=SESSION.encode(), allow=True)
OPENS_ONCE = actions(**_YES, reason=b"ok", allow=True)
STANDS = actions(**_YES, reason=b"session", allow=True)
MISSING = refuse(b"missing", b"missing")
"""The agent's words: for a token, with a new session and without; for a session; for neither."""

BROWSERS = Path(__file__).with_name("browsers.toml")
"""The real agent's configuration: `demo` in mode session."""


def exchange(haproxy: Haproxy, data: bytes) -> bytes:
    """Send these bytes and nothing after them; return all that comes back."""
    with haproxy.connect() as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def lines(*head: str, body: str = "") -> bytes:
    """Write a request, its lines as they are given."""
    return ("".join(f"{line}\r\n" for line in [*head, ""]) + body).encode("latin-1")


def post(haproxy: Haproxy, target: str, *headers: str, body: str = "") -> Answer:
    """Send a POST with a body of the length that it has, and read the answer."""
    head = (f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers)
    with haproxy.connect() as client:
        client.sendall(lines(*head, body=body))
        return read_answer(client, "POST")


@contextmanager
def judged(stage: Stage) -> Iterator[Stage]:
    """Let the block send what it likes; then nothing has passed without a yes, and no secret has.

    It must leave `application.received` as it is.
    """
    yield stage.renewed()
    assert len(stage.application.received) <= len(stage.agent.notifies)
    assert_no_secret(stage.application.received + stage.acme.received)


def assert_no_secret(received: list[Received]) -> None:
    """Fail if an application got a token or one of the gate's cookies, in whatever disguise."""
    seen = {f"request {n}": f"{one.target}\n{one.headers}" for n, one in enumerate(received)}
    assert not any("__Host-kat" in request for request in seen.values())
    if seen:
        assert_no_leaks(seen, [TOKEN, SESSION, BROWSER], digests_too=False)


def assert_logged_no_secret(haproxy: Haproxy) -> None:
    """Fail if HAProxy wrote one of them down."""
    exchange(haproxy, lines("GET /the-last-of-all HTTP/1.1", "Host: localhost"))
    until(lambda: '"/the-last-of-all"' in haproxy.log())
    assert_no_leaks({"HAProxy's log": haproxy.log()}, [TOKEN, SESSION, BROWSER], digests_too=False)


@contextmanager
def browsed(
    binary: Path, folder: Path, agent: Agent, settings: Mapping[str, str]
) -> Iterator[Gate]:
    """Run a gate before an agent with `BROWSERS`; nobody may have written a secret of it down."""
    ours = {"KAT_AGENT": f"unix@{agent.socket}", "KAT_PROCESSING": PATIENCE}
    with (
        Application() as application,
        running(binary, folder, {**ours, "KAT_APP": application.address, **settings}) as haproxy,
    ):
        gate = Gate(haproxy, agent, application)
        until(gate.is_judging)
        yield gate
        if gate.secrets:
            assert_no_leaks(gate.traces(), gate.secrets)


def cookie_of(gate: Gate, token: str, *headers: str, target: str = "/") -> str:
    """Follow a link; return the cookie of the session that it opened, to be sent as it is."""
    answer = gate.ask(*headers, target=f"{target}?kat={token}")
    assert answer.status == 303
    cookie = (answer.header("Set-Cookie") or "").partition(";")[0]
    gate.secrets.append(cookie.partition("=")[2])
    return cookie


@contextmanager
def frozen(agent: Agent) -> Iterator[None]:
    """Stop its workers, as swapped-out processes stand still, until the block ends."""
    supervisor = agent.process.pid
    pids = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    names = {int(pid): Path(f"/proc/{pid}/comm").read_text() for pid in pids}
    workers = [pid for pid, name in names.items() if not re.match("redis|valkey", name)]
    try:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
