"""A network for AirWatch: clients, HAProxy's machine between, and two servers behind it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from haproxy import FILES
from tests.support.airwatch import EXAMPLE
from tests.support.eventually import eventually
from tests.support.namespaces import Machine, addressed, joined, machines

PAGE = Path(__file__).parents[2] / "docs" / "tproxy.md"
RULES = FILES / "examples" / "tproxy.nft"


_PROGRAMS = Path(__file__).parent

_FETCH = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    answer = error
with answer:
    print(answer.status, answer.read().decode())
"""


@dataclass(frozen=True)
class Family:
    """The addresses of one family; two clients share a machine."""

    client: str
    other_client: str
    mag: str
    seg: str
    servers: tuple[str, str]
    any: str
    loopback: str

    @property
    def mag_place(self) -> str:
        return _bracketed(self.mag)

    @property
    def settings(self) -> dict[str, str]:
        """Say where to listen and where the servers are."""
        mag, seg, *servers = map(_bracketed, (self.mag, self.seg, *self.servers))
        listeners = {f"KAT_MAG_{port}": f"{mag}:{port}" for port in (443, 2010, 2020)}
        places = {f"KAT_{it}_{at}": servers[at - 1] for it in ("MAG", "SEG") for at in (1, 2)}
        return {**listeners, "KAT_SEG_443": f"{seg}:443", **places}


FAMILIES = {
    "IPv4": Family(
        client="192.0.2.7",
        other_client="192.0.2.8",
        mag="192.0.2.100",
        seg="192.0.2.200",
        servers=("198.51.100.11", "198.51.100.12"),
        any="0.0.0.0",
        loopback="127.0.0.1",
    ),
    "IPv6": Family(
        client="2001:db8:1::7",
        other_client="2001:db8:1::8",
        mag="2001:db8:1::100",
        seg="2001:db8:1::200",
        servers=("2001:db8:2::11", "2001:db8:2::12"),
        any="[::]",
        loopback="[::1]",
    ),
}


@dataclass
class Network:
    """The machines, and the programs on them."""

    proxy: Machine
    clients: Machine
    servers: list[Machine]
    log: Path

    def knock(self, source: str, address: str, port: int, line: str = "who") -> list[str]:
        """Connect from a client's address; return the words that come back: none if refused."""
        program = (sys.executable, _PROGRAMS / "knock.py")
        return self.clients.run(*program, source, address, str(port), line).split()

    @contextmanager
    def staying(self, source: str, address: str, port: int) -> Iterator[IO[bytes]]:
        """Let a client connect and stay; give what it prints: the answer, `ended` at the end."""
        program = (sys.executable, _PROGRAMS / "knock.py", source, address, str(port), "stay")
        process = self.clients.start(*program, stdout=subprocess.PIPE)
        assert process.stdout
        try:
            yield process.stdout
        finally:
            self.clients.end(process)
            process.stdout.close()

    def log_lines(self, source: str) -> list[str]:
        """Return HAProxy's lines about a client."""
        return re.findall(rf"^{re.escape(source)}:\d+ .*$", self.log.read_text(), re.MULTILINE)

    @contextmanager
    def haproxy(
        self, binary: Path, family: Family, settings: Mapping[str, str], *before: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the example on the proxy until the block ends; `before` stands before its name."""
        environment = {
            "PATH": os.environ["PATH"],
            "KAT_FILES": str(FILES),
            **family.settings,
            **settings,
        }
        with self.log.open("w") as log:
            process = self.proxy.start(
                *before, binary, "-db", "-f", EXAMPLE, env=environment, stdout=log
            )
        try:
            eventually(lambda: self._is_ready(process), "HAProxy listens")
            yield process
        finally:
            self.proxy.end(process)

    def page(self, place: str, machine: Machine | None = None) -> tuple[int, str]:
        """Fetch a page on HAProxy's machine, or on another one; return its status, and it."""
        said = (machine or self.proxy).run(sys.executable, "-c", _FETCH, f"http://{place}")
        status, _, page = said.partition(" ")
        return int(status), page

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.log.read_text()
        return ":2010" in self.proxy.run("ss", "-tlnH", "sport = :2010")


@contextmanager
def running_network(folder: Path) -> Iterator[Network]:
    """Lay the cables and start the servers at port 2010; the block ends all of it."""
    with ExitStack() as stack:
        proxy, clients, *servers = stack.enter_context(machines(4))
        _connect(proxy, clients, servers)
        for at, machine in enumerate(servers):
            for family in FAMILIES.values():
                stack.enter_context(_serving(machine, f"mag{at + 1}", family.servers[at]))
        yield Network(proxy, clients, servers, folder / "haproxy.log")


def _connect(proxy: Machine, clients: Machine, servers: list[Machine]) -> None:
    """Clients on one side, servers on the other, and HAProxy's machine is everybody's gateway."""
    joined(proxy, "outside", clients, "eth0")
    proxy.run("ip", "link", "add", "inside", "type", "bridge")
    for at, server in enumerate(servers):
        joined(proxy, f"port{at}", server, "eth0")
        proxy.run("ip", "link", "set", f"port{at}", "master", "inside")
    proxy.run("ip", "link", "set", "inside", "up")
    four, six = FAMILIES["IPv4"], FAMILIES["IPv6"]
    outside = [f"{it}/24" for it in ("192.0.2.1", four.mag, four.seg)]
    outside += [f"{it}/64" for it in ("2001:db8:1::1", six.mag, six.seg)]
    addressed(proxy, "outside", *outside)
    addressed(proxy, "inside", "198.51.100.1/24", "2001:db8:2::1/64")
    own = [f"{four.client}/24", f"{four.other_client}/24"]
    own += [f"{six.client}/64", f"{six.other_client}/64"]
    addressed(clients, "eth0", *own)
    for at, server in enumerate(servers):
        addressed(server, "eth0", f"{four.servers[at]}/24", f"{six.servers[at]}/64")
        server.run("ip", "route", "add", "default", "via", "198.51.100.1")
        server.run("ip", "-6", "route", "add", "default", "via", "2001:db8:2::1")
    # As strict as it gets: what comes back must come from where it would be sent.
    for device in ("all", "default", "inside", "outside"):
        proxy.run("sysctl", "-qw", f"net.ipv4.conf.{device}.rp_filter=1")


@contextmanager
def _serving(machine: Machine, name: str, address: str) -> Iterator[None]:
    program = (sys.executable, _PROGRAMS / "gateways.py", name, address, "2010")
    process = machine.start(
        *program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == b"listening\n"
        yield
    finally:
        process.stdin.close()
        machine.end(process)
        process.stdout.close()


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def commands(heading: str) -> list[list[str]]:
    """Return the commands of a part of docs/tproxy.md that are for HAProxy's machine."""
    _, _, part = PAGE.read_text().partition(f"\n## {heading}\n")
    block = re.search(r"```sh\n(nft .*?)```", part, re.DOTALL)
    assert block, f"no commands below {heading}"
    return [line.split("#")[0].split() for line in block[1].splitlines()]
