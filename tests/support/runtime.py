"""A HAProxy with a Runtime API of every kind, ACLs of several, and tables that are right or not."""

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TypeVar

from haproxy.runtime.client import Runtime, Session
from haproxy.runtime.place import RuntimePlace, UnixPlace
from tests.support.eventually import eventually
from tests.support.haproxy import ANSWER_TIMEOUT_S, binary

T = TypeVar("T")

CONFIGURATION = Template("""
global
    stats socket "$folder/admin" mode 600 level admin
    stats socket "$folder/operator" mode 600 level operator
    stats socket "$folder/user" mode 600 level user
    stats socket fd@$tcp level admin $at_socket
    stats timeout 1m
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend web
    bind fd@$web
    bind fd@$web6
    acl granted src -u 500
    acl filed src -f "$folder/a file.acl"
    acl texts hdr(x) -u 600
    acl numbers hdr_cnt(x) -u 601
    http-request return status 200 if { path /alive } { str(confluence),in_table(alive) }
    http-request deny if !granted !filed !texts !numbers
    http-request return status 200 unless { path /wait }
    default_backend silent
frontend tcp
    mode tcp
    bind fd@$passed
    bind fd@$proxied accept-proxy
    default_backend silent_tcp
backend silent
    server one 127.0.0.1:$silent
backend silent_tcp
    mode tcp
    server one 127.0.0.1:$silent
backend alive
    stick-table type string len 64 size 1k expire 30s store gpc0
backend addresses
    stick-table type ip size 1k expire 30s store gpc0
backend endless
    stick-table type string len 64 size 1k store gpc0
backend short
    stick-table type string len 4 size 1k expire 30s store gpc0
backend uncounted
    stick-table type string len 64 size 1k expire 30s store conn_cur
""")

# The way to TLS. At a `stats socket` HAProxy takes `ssl crt ... verify required` without a word,
# and speaks plain TCP to everybody: 2.6.12, 3.0.11 and 3.2.26, see test_connection.py.
TLS = Template("""
frontend runtime_tls
    mode tcp
    bind fd@$tls ssl $certificates
    default_backend runtime
backend runtime
    mode tcp
    server self "unix@$folder/admin"
""")

# 2.6 does not start with it.
VIRTUAL = Template("""
frontend virtual
    bind "$folder/virtual"
    http-request deny if { src -f virt@airwatch }
""")

# The last one is ours: it takes connections, and says nothing.
_DOORS = ("web", "web6", "passed", "proxied", "tcp", "tls", "silent")


@dataclass
class Edge:
    """A running HAProxy. Its ACL #500 opens its web server."""

    version: str
    folder: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes] = field(repr=False)

    def at(self, name: str = "admin") -> UnixPlace:
        return UnixPlace(str(self.folder / name))

    def ask(self, path: str, source: str = "127.0.0.1") -> socket.socket:
        """Send a request from this address of ours."""
        client = self.connect("web6" if ":" in source else "web", source)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client

    def connect(self, door: str, source: str) -> socket.socket:
        host = "::1" if ":" in source else "127.0.0.1"
        at = (host, self.ports[door])
        return socket.create_connection(at, ANSWER_TIMEOUT_S, (source, 0))

    def admits(self, source: str, path: str = "/") -> bool:
        with self.ask(path, source) as client, client.makefile("rb") as answer:
            status = answer.readline().split()[1]
        assert status in (b"200", b"403")
        return status == b"200"

    def tell(self, *command: str) -> str:
        """Say something by hand, as others may who have the socket."""
        return using(self.at(), lambda session: session.ask(*command))

    def reload(self) -> None:
        """Let a new process take over; the old one stays as long as it has connections."""
        old = using(self.at(), Session.process).pid
        # By its own CLI: a signal that comes before the master waits for any is lost.
        with socket.socket(socket.AF_UNIX) as master:
            path = str(self.folder / "master")
            eventually(lambda: master.connect_ex(path) == 0, "the master's CLI")
            master.sendall(b"reload\n")
            master.recv(4096)
        eventually(lambda: using(self.at(), Session.process).pid != old, "a new process")


def using(place: RuntimePlace, do: Callable[[Session], Awaitable[T]]) -> T:
    """Do something in a session of its own."""

    async def play() -> T:
        async with Runtime(place, ANSWER_TIMEOUT_S).session() as session:
            return await do(session)

    return asyncio.run(play())


@contextlib.contextmanager
def running_edge(
    version: str, *, has_master: bool = False, certificates: str = "", at_socket: str = ""
) -> Iterator[Edge]:
    """Run one until the block ends. One with a master can be reloaded."""
    with contextlib.ExitStack() as stack:
        # Short: the path of a socket has 107 bytes at the most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-")))
        doors = {name: stack.enter_context(_door(name)) for name in _DOORS}
        ports = {name: door.getsockname()[1] for name, door in doors.items()}
        numbers = {name: door.fileno() for name, door in doors.items()}
        (folder / "a file.acl").write_text("10.0.0.1\n")
        sections = [CONFIGURATION, *([TLS] if certificates else [])]
        sections += [VIRTUAL] if version != "2.6" else []
        silent = str(ports["silent"])
        values = {
            "folder": str(folder),
            "certificates": certificates,
            "at_socket": at_socket,
            **numbers,
            "silent": silent,
        }
        text = "".join(section.substitute(values) for section in sections)
        (folder / "edge.cfg").write_text(text)
        options = ("-W", "-S", folder / "master") if has_master else ("-db",)
        process = subprocess.Popen(
            [binary(version), *options, "-f", folder / "edge.cfg"],
            env={"PATH": os.environ["PATH"]},
            pass_fds=[numbers[name] for name in _DOORS if name != "silent"],
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_end, process)
        eventually((folder / "admin").exists, "HAProxy's Runtime API")
        yield Edge(version, folder, ports, process)


def _door(name: str) -> socket.socket:
    if name == "web6":
        return socket.create_server(("::1", 0), family=socket.AF_INET6)
    return socket.create_server(("127.0.0.1", 0))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, and if it is a master, its workers with it."""
    process.terminate()
    process.wait(ANSWER_TIMEOUT_S)
