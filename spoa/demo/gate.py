"""The demo's HAProxy: the very files that production runs, in front of application and portal."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from socket import socket
from threading import Event

from haproxy import CONFIGURATION, FILES
from spoa.config.endpoint import Endpoint, UnixEndpoint
from spoa.demo.authority import Certificate
from spoa.demo.programs import DemoError, Program, listen
from spoa.demo.visitor import Visitor

PREFERRED_PORT = 8443
WIKI, PORTAL = "wiki.localhost", "portal.localhost"
_OLDEST_HAPROXY = (2, 6)


@dataclass(frozen=True, slots=True)
class Door:
    """Where HAProxy is going to listen. Known before: the portal has to know all URLs."""

    listener: socket
    port: int
    certificate: Certificate

    @property
    def wiki(self) -> str:
        return f"https://{WIKI}:{self.port}/"

    @property
    def portal(self) -> str:
        return f"https://{PORTAL}:{self.port}/"


class Gate:
    """HAProxy with one protected application behind it."""

    def __init__(self, url: str, ca: Path, program: Program) -> None:
        self.url = url
        self.ca = ca
        self._program = program

    def ask(self, token: str | None = None, **headers: str) -> int:
        """Send one request, as a program with this token would. Returns the status of the answer.

        Raises DemoError when there is none.
        """
        if token:
            headers["X-KAT"] = token
        return Visitor(self.ca).get(self.url, **headers).status

    def wait_for_agent(self) -> None:
        """Wait until HAProxy listens, and its health check has found the agent."""
        self._program.wait_until(self._is_asking, "waited for HAProxy to find the agent")

    def _is_asking(self) -> bool:
        """Without a token, only an agent's word makes the answer something else than 503."""
        with suppress(DemoError):
            return self.ask() != HTTPStatus.SERVICE_UNAVAILABLE
        return False


@contextmanager
def open_door(certificate: Certificate) -> Iterator[Door]:
    """Listen on the usual port if that is free; nobody answers yet."""
    # Opened here and handed over: two HAProxy would share one port (SO_REUSEPORT) without a word.
    with listen(PREFERRED_PORT) as listener:
        yield Door(listener, listener.getsockname()[1], certificate)


@contextmanager
def open_gate(
    haproxy: Path, door: Door, settings: Mapping[str, str], log: Path, ended: Event
) -> Iterator[Gate]:
    """Run HAProxy behind this door with these settings of haproxy.cfg."""
    command = [str(haproxy), "-db", "-f", str(CONFIGURATION)]
    with listen() as plain:
        handed_over = (door.listener.fileno(), plain.fileno())
        https, http = (f"fd@{fd}" for fd in handed_over)
        ours = {
            "KAT_FILES": str(FILES),
            "KAT_CERT": str(door.certificate.pem),
            "KAT_HTTPS": https,
            "KAT_HTTP": http,
        }
        program = Program(command, log, {**ours, **settings}, ended, pass_fds=handed_over)
    door.listener.close()  # from here on it is HAProxy's: when HAProxy ends, nobody listens
    with program:
        gate = Gate(door.wiki, door.certificate.ca, program)
        gate.wait_for_agent()
        yield gate


def server_address(endpoint: Endpoint) -> str:
    """Write an address of the agent as HAProxy's `server` line has it."""
    return f"unix@{endpoint.path}" if isinstance(endpoint, UnixEndpoint) else str(endpoint)


def find_haproxy(given: Path | None) -> Path:
    """Find a HAProxy that reads our files. Raises DemoError with what to do."""
    path = given or shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise DemoError("HAProxy is not installed: `apt install haproxy`, or say --haproxy PATH")
    version = haproxy_version(Path(path))
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_HAPROXY:
        raise DemoError(f"{path} is HAProxy {version}; 2.6 or newer is needed")
    return Path(path).absolute()


def haproxy_version(path: Path) -> str:
    """Ask a HAProxy for its version. Raises DemoError when it is none."""
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(  # noqa: S603 - a program that the user named
            [path, "-v"], capture_output=True, text=True, timeout=10, check=False
        )
        if found := re.match(r"HA-?Proxy version (\d+\.\d+[.\d]*)", answer.stdout):
            return found[1]
    raise DemoError(f"{path} is not a HAProxy that can be run")
