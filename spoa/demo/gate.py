"""The demo's HAProxy: the very files that production runs, in front of the application."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event

from haproxy import CONFIGURATION, FILES
from spoa.config.endpoint import Endpoint, UnixEndpoint
from spoa.demo.programs import DemoError, Program, address_of, listen

PREFERRED_PORT = 8080
_OLDEST_HAPROXY = (2, 6)
_ANSWER_TIMEOUT_S = 10.0


class Gate:
    """HAProxy with one protected application behind it."""

    def __init__(self, address: str, program: Program) -> None:
        self._address = address
        self._program = program

    @property
    def url(self) -> str:
        return f"http://{self._address}/"

    def ask(self, token: str | None = None, **headers: str) -> int:
        """Send one request, as a program with this token would. Returns the status of the answer.

        Raises DemoError when there is none.
        """
        if token:
            headers["X-KAT"] = token
        with closing(HTTPConnection(self._address, timeout=_ANSWER_TIMEOUT_S)) as client:
            try:
                client.request("GET", "/", headers=headers)
                return client.getresponse().status
            except (OSError, HTTPException) as error:
                raise DemoError(f"HAProxy gave no answer at {self.url}: {error!r}") from None

    def wait_for_agent(self) -> None:
        """Wait until HAProxy listens, and its health check has found the agent."""
        self._program.wait_until(self._is_asking, "waited for HAProxy to find the agent")

    def _is_asking(self) -> bool:
        """Without a token, only an agent's word makes the answer something else than 503."""
        with suppress(DemoError):
            return self.ask() != HTTPStatus.SERVICE_UNAVAILABLE
        return False


@contextmanager
def open_gate(
    haproxy: Path, settings: Mapping[str, str], log: Path, ended: Event
) -> Iterator[Gate]:
    """Run HAProxy with these settings of haproxy.cfg, on its usual port if that is free."""
    command = [str(haproxy), "-db", "-f", str(CONFIGURATION)]
    # Opened here and handed over: two HAProxy would share one port (SO_REUSEPORT) without a word.
    with listen(PREFERRED_PORT) as listener:
        address, fd = address_of(listener), listener.fileno()
        ours = {"KAT_HTTP": f"fd@{fd}", "KAT_HOSTS": "localhost 127.0.0.1", "KAT_FILES": str(FILES)}
        program = Program(command, log, {**ours, **settings}, ended, pass_fds=(fd,))
    with program:
        gate = Gate(address, program)
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
