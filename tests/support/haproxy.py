"""A real HAProxy that runs the very files of `haproxy/`, and a client that can misbehave."""

import os
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from typing import TypedDict, Unpack

from haproxy import CONFIGURATION, FILES

ROOT = Path(__file__).parents[2]
ALL_VERSIONS = ("2.6", "3.0", "3.2")
ANSWER_TIMEOUT_S = 10
BACKLOG = 1024

_SOURCES = count(0x7F010001)
"""127.1.0.1 and up: to HAProxy each test is another client, so that none is taken for a guesser."""


def versions() -> list[str]:
    """Name the HAProxy versions to test. CI tests all of them, whatever its environment says.

    The compiled form is tested with the newest alone: what the others do differently, the source
    of both forms has met already.
    """
    if os.environ.get("KAT_TEST_FORM") == "compiled":
        return [ALL_VERSIONS[-1]]
    chosen = os.environ.get("KAT_HAPROXY_VERSIONS", "").split()
    return chosen if chosen and os.environ.get("CI") != "true" else list(ALL_VERSIONS)


def binary(version: str) -> Path:
    """Return the path of a HAProxy of this version, fetched if need be. Raises: no skipping."""
    script = ROOT / "scripts" / "haproxy-versions"
    done = subprocess.run([script, version], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return Path(done.stdout.strip().partition(" ")[2])


def fresh_source() -> str:
    """Return a loopback address that no request came from so far."""
    return socket.inet_ntoa(next(_SOURCES).to_bytes(4, "big"))


class Request(TypedDict, total=False):
    """What may be said about a request, besides its headers."""

    method: str
    target: str
    host: str | None
    source: str | None


@dataclass(frozen=True)
class Answer:
    """What the client got."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} {len(found)} times"
        return found[0] if found else None


@dataclass
class Haproxy:
    """A running HAProxy: where it listens, and what it logged."""

    port: int
    log_file: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def ask(self, *headers: str, **request: Unpack[Request]) -> Answer:
        """Send a request exactly as given, from an address of its own, and read the answer."""
        method, host = request.get("method", "GET"), request.get("host", "localhost")
        lines = [f"{method} {request.get('target', '/')} HTTP/1.1"]
        lines += [f"Host: {host}"] if host is not None else []
        lines += [*headers, ""]
        with self.connect(request.get("source")) as client:
            client.sendall("".join(f"{line}\r\n" for line in lines).encode("latin-1"))
            return read_answer(client, method)

    def connect(self, source: str | None = None) -> socket.socket:
        """Connect from this loopback address, or from one that nobody used before."""
        source = source or fresh_source()
        target = "::1" if ":" in source else "127.0.0.1"
        return socket.create_connection((target, self.port), ANSWER_TIMEOUT_S, (source, 0))

    def log(self) -> str:
        return self.log_file.read_text()


def read_answer(client: socket.socket, method: str = "GET") -> Answer:
    """Read one answer; the connection stays open."""
    with closing(HTTPResponse(client, method=method)) as response:
        response.begin()
        return Answer(response.status, response.getheaders(), response.read().decode())


def tell(runtime: Path, command: str) -> str:
    """Say a command to a Runtime API, as socat would; return the whole answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWER_TIMEOUT_S)
        client.connect(str(runtime))
        client.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def complaints(
    haproxy: Path,
    settings: Mapping[str, str],
    *more: Path,
    configuration: Path = CONFIGURATION,
) -> str:
    """Run haproxy -c; return all it has to say but "valid", which is nothing if all is well."""
    done = subprocess.run(
        [haproxy, "-c", *_options([configuration, *more])],
        env=_environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWER_TIMEOUT_S,
    )
    words = (done.stdout + done.stderr).replace("Configuration file is valid\n", "")
    return words or ("" if done.returncode == 0 else f"exit code {done.returncode}")


@contextmanager
def running(
    haproxy: Path,
    folder: Path,
    settings: Mapping[str, str],
    *more: Path,
    listener: str = "KAT_HTTP",
    is_dual_stack: bool = False,
    configuration: Path = CONFIGURATION,
) -> Iterator[Haproxy]:
    """Run haproxy.cfg, and `more` behind it, until the block ends.

    The socket is bound here and inherited (fd@): no port can be lost to another process, and a
    request sent before HAProxy is up waits for it. `listener` names the setting that gets it.
    """
    log_file = folder / "haproxy.log"
    with _listening(is_dual_stack) as listening, log_file.open("w") as log:
        descriptor = listening.fileno()
        process = subprocess.Popen(
            [haproxy, "-db", *_options([configuration, *more])],
            env=_environment({listener: f"fd@{descriptor}", **settings}),
            pass_fds=[descriptor],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Haproxy(listening.getsockname()[1], log_file, process)
        finally:
            process.kill()
            process.wait()


def _listening(is_dual_stack: bool) -> socket.socket:  # noqa: FBT001 - the option's own value
    """Bind loopback, or one socket for both families, where IPv4 clients are ::ffff:a.b.c.d."""
    if is_dual_stack:
        return socket.create_server(
            ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
        )
    return socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)


def _options(configurations: Iterable[Path]) -> list[str | Path]:
    return [word for path in configurations for word in ("-f", path)]


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a HAProxy: nothing of the tests' own reaches its settings."""
    return {"PATH": os.environ["PATH"], "KAT_FILES": str(FILES), **settings}
