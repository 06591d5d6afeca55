"""haproxy/examples/airwatch.cfg at work: HAProxy with a master, and devices that connect."""

import os
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from csv import DictReader
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from haproxy import FILES
from tests.support.eventually import eventually
from tests.support.haproxy import ANSWER_TIMEOUT_S, BACKLOG, fresh_source
from tests.support.haproxy import complaints as haproxy_complaints
from tests.support.ports import free_port

EXAMPLE = FILES / "examples" / "airwatch.cfg"
LISTENERS = ("mag_443", "mag_2010", "mag_2020", "seg_443")
HOSTS = {"mag_443": "airwatchmag.domain.com", "seg_443": "airwatchseg.domain.com"}
STOP_DEADLINE_S = 20


@dataclass
class Device:
    """A device that is connected. Its address is its own."""

    connection: socket.socket = field(repr=False)
    source: str

    def says(self, word: bytes) -> list[bytes]:
        """Say a line; return the answer's words: the server's name, our address there, the line."""
        self.connection.sendall(word + b"\n")
        return self.hears().split()

    def hears(self) -> bytes:
        """Return a line, or nothing if the connection ended."""
        told = b""
        while not told.endswith(b"\n") and (piece := self.connection.recv(65536)):
            told += piece
        return told

    @property
    def server(self) -> str:
        """Which server answers."""
        return self.says(b"who")[0].decode()


@dataclass
class Airwatch:
    """A running HAProxy: where its listeners are, and what devices may do with them."""

    ports: Mapping[str, int]
    folder: Path
    trusting: ssl.SSLContext
    process: subprocess.Popen[bytes] = field(repr=False)

    def connect(self, listener: str, source: str | None = None) -> socket.socket:
        """Connect, and say nothing."""
        source = source or fresh_source()
        at = "::1" if ":" in source else "127.0.0.1"
        return socket.create_connection((at, self.ports[listener]), ANSWER_TIMEOUT_S, (source, 0))

    @contextmanager
    def device(
        self, listener: str, source: str | None = None, *, is_tls: bool | None = None
    ) -> Iterator[Device]:
        """Connect a device to a listener, with TLS to those of 443."""
        source = source or fresh_source()
        is_tls = listener in HOSTS if is_tls is None else is_tls
        with ExitStack() as stack:
            connection = stack.enter_context(self.connect(listener, source))
            if is_tls:
                name = HOSTS.get(listener, HOSTS["mag_443"])
                connection = stack.enter_context(
                    self.trusting.wrap_socket(connection, server_hostname=name)
                )
            yield Device(connection, source)

    def server(self, listener: str, source: str | None = None) -> str:
        """Connect, and tell which server answers."""
        with self.device(listener, source) as device:
            return device.server

    def stats(self, listener: str, server: str) -> dict[str, str]:
        """Return the line of the page of statistics about a server, FRONTEND or BACKEND."""
        lines = DictReader(self.page("/stats;csv").removeprefix("# ").splitlines())
        (line,) = (it for it in lines if (it["pxname"], it["svname"]) == (listener, server))
        return line

    def page(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.ports['stats']}{path}"
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:
            return str(answer.read().decode())

    def await_status(self, listener: str, server: str, status: str) -> None:
        """Wait until checks say so: UP or DOWN."""
        eventually(
            lambda: self.stats(listener, server)["status"] == status, f"{server} is {status}"
        )

    def await_checked(self, listener: str) -> None:
        """Wait until both servers were found well at least once."""
        kind = listener.partition("_")[0]
        for number in (1, 2):
            eventually(
                lambda name=f"{kind}{number}": (
                    self.stats(listener, name)["check_status"] in {"L4OK", "L7OK"}
                ),
                f"server {number} of {listener} was checked",
            )

    def reload(self) -> None:
        """Reload as systemd does, and wait until the old process has gone."""
        [old] = self._workers()
        self.process.send_signal(signal.SIGUSR2)
        eventually(lambda: self._workers() - {old} and old not in self._workers(), "a reload")

    def _workers(self) -> set[str]:
        """Return the processes of the master. It may itself list one that has gone (seen: 3.0)."""
        master = Path(f"/proc/{self.process.pid}/task/{self.process.pid}")
        return {pid for pid in (master / "children").read_text().split() if _is_running(pid)}

    def log(self) -> str:
        return (self.folder / "haproxy.log").read_text()


complaints = partial(haproxy_complaints, configuration=EXAMPLE)
"""Have the example checked."""


@contextmanager
def running_airwatch(
    haproxy: Path,
    folder: Path,
    settings: Mapping[str, str],
    ca_file: Path,
) -> Iterator[Airwatch]:
    """Run the example under a master until the block ends; IPv4 and IPv6 clients may connect."""
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(_listening(name)) for name in (*LISTENERS, "stats")}
        log = stack.enter_context((folder / "haproxy.log").open("w"))
        process = subprocess.Popen(
            [haproxy, "-W", "-db", "-f", EXAMPLE],
            env={
                "PATH": os.environ["PATH"],
                "KAT_FILES": str(FILES),
                "KAT_CA": str(ca_file),
                "KAT_PEER": f"127.0.0.1:{free_port()}",
                "KAT_CHECK_EVERY": "400ms",  # a busy machine needs 100 for a handshake
                **{f"KAT_{name.upper()}": f"fd@{it.fileno()}" for name, it in sockets.items()},
                **settings,
            },
            pass_fds=[it.fileno() for it in sockets.values()],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        ports = {name: it.getsockname()[1] for name, it in sockets.items()}
        trusting = ssl.create_default_context(cafile=ca_file)
        airwatch = Airwatch(ports, folder, trusting, process)
        try:
            yield airwatch
        finally:
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            finally:
                process.kill()


def _is_running(pid: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _listening(name: str) -> socket.socket:
    """Bind one socket for both families; the page of statistics is for IPv4 here."""
    if name == "stats":
        return socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    return socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
    )
