"""HAProxy before one subject: found, started, asked."""

import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from haproxy import FILES
from spoa.bench.haproxy.gateway import Subject, gateway
from spoa.bench.haproxy.visitors import invite
from spoa.bench.load.corpus import HOST, PATH
from spoa.bench.servers import NotStarted, Server
from spoa.deathsig import dying_with_us

NAMED_BY: Final = "KAT_BENCH_HAPROXY"
"""Which HAProxy to measure, if not the usual one: paths with colons between them."""

TARGET: Final = PATH + b"/content/1"

_CHECKOUT: Final = Path(__file__).parents[3] / ".haproxy"
_BACKLOG: Final = 1024
_ANSWER_TIMEOUT_S: Final = 2.0
OK: Final = b"HTTP/1.1 200 "

_content_length = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE).search


@dataclass(frozen=True, slots=True)
class Front:
    """A running HAProxy, and a directory of its own."""

    server: Server
    port: int
    directory: Path

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def ask(self, line: bytes) -> bytes:
        """Ask once, on a connection of its own; return the whole answer. Raises OSError."""
        with socket.create_connection(self.address, _ANSWER_TIMEOUT_S) as client:
            client.sendall(question(line))
            answer = b""
            while not is_whole(answer):
                more = client.recv(65536)
                if not more:
                    raise ConnectionResetError("HAProxy has closed the connection")
                answer += more
            return answer


def question(line: bytes) -> bytes:
    """Write a request that brings this header line."""
    return b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (TARGET, HOST, line)


def is_whole(answer: bytes) -> bool:
    """Tell whether an answer has come to its end. One without a length has no body here."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _content_length(head + b"\r\n")
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


@dataclass(frozen=True, slots=True)
class Haproxy:
    """A HAProxy that can be run."""

    path: Path
    version: str
    has_lua: bool


def find_haproxies() -> list[Haproxy]:
    """Find whom to measure. Raises NotStarted with what to do."""
    named = [Path(path) for path in os.environ.get(NAMED_BY, "").split(":") if path]
    usual = shutil.which("haproxy", path=f"{os.environ.get('PATH') or os.defpath}:/usr/sbin:/sbin")
    paths = named or sorted(_CHECKOUT.glob("*/haproxy")) or ([Path(usual)] if usual else [])
    if not paths:
        raise NotStarted(f"HAProxy is not installed: `apt install haproxy`, or set {NAMED_BY}=PATH")
    found: dict[str, Haproxy] = {}
    for one in map(_look_at, paths):
        if one.version in found:
            both = f"{found[one.version].path} and {one.path}"
            raise NotStarted(f"{both} are both HAProxy {one.version}: name one of them")
        found[one.version] = one
    return list(found.values())


def _look_at(path: Path) -> Haproxy:
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            [path, "-vv"], capture_output=True, text=True, timeout=_ANSWER_TIMEOUT_S, check=False
        ).stdout
        if found := re.match(r"HA-?Proxy version (\d+\.\d+[.\d]*)", said):
            return Haproxy(path.absolute(), found[1], "Built with Lua" in said)
    raise NotStarted(f"{path} is not a HAProxy that can be run")


@contextmanager
def front(  # noqa: PLR0917 - in the order of a sentence
    directory: Path, haproxy: Haproxy, subject: Subject, threads: int, agent: str, store: str
) -> Iterator[Front]:
    """Run HAProxy for a subject until the block ends. Raises NotStarted."""
    directory.mkdir(parents=True)
    configuration = directory / "haproxy.cfg"
    configuration.write_text(gateway(subject, threads))
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    port: int = listener.getsockname()[1]
    settings = {
        "KAT_FILES": str(FILES),
        "KAT_HTTP": f"fd@{listener.fileno()}",
        "KAT_HOSTS": HOST.decode(),
        "KAT_ACL": subject.acl.decode(),
        "KAT_AGENT": f"unix@{agent}",
        "KAT_APP": f"127.0.0.1:{port}",  # looked whether it is there, and never asked
        "KAT_LUA": str(Path(__file__).with_name("ask_redis.lua")),
        "KAT_STORE": f"unix@{store}",
    }
    command = [str(haproxy.path), "-db", "-f", str(configuration)]
    with _running(command, directory, listener, settings) as server:
        running = Front(server, port, directory)
        server.wait_until(lambda: _lets_in(running, subject, store))
        yield running


@contextmanager
def _running(
    command: list[str], directory: Path, listener: socket.socket, settings: Mapping[str, str]
) -> Iterator[Server]:
    """Run HAProxy on a listener that it inherits: who comes too early waits in the queue."""
    log = directory / "haproxy.log"
    port: int = listener.getsockname()[1]
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    # Closed here afterwards: nobody is to wait in the queue of a process that is gone.
    with listener, log.open("wb") as output:
        process = subprocess.Popen(
            dying_with_us(command),
            env=foreign | dict(settings),
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us
        )
    try:
        yield Server("HAProxy", process, f"127.0.0.1:{port}", log)
    finally:
        process.kill()
        process.wait()


def _lets_in(front: Front, subject: Subject, store: str) -> bool:
    visitors = invite(subject, store, 1)
    try:
        return front.ask(visitors.lines()[0]).startswith(OK)
    except OSError:
        return False
    finally:
        visitors.verify(0, 1, Counter())
