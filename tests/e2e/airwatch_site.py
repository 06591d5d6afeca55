"""The AirWatch example with real servers behind it, and a scripted agent that says yes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.support.airwatch import HOSTS, LISTENERS, Airwatch, running_airwatch
from tests.support.authority import Authority, make_authority
from tests.support.gateways import Gateway
from tests.support.stub_agent import StubAgent, acknowledging, allow
from tokens.store.tls import TlsFiles

ACL = b"airwatch"

_QUICK = {"KAT_SLOWSTART": "0"}
"""A server that is back has its full share at once: nobody waits 8 s to see leastconn."""

_ADDRESSES = ("127.0.0.1", "127.0.0.2")


@dataclass
class Site:
    """HAProxy, an agent, and the two servers of each listener."""

    airwatch: Airwatch
    agent: StubAgent = field(repr=False)
    gateways: dict[str, list[Gateway]] = field(repr=False)
    authority: Authority

    def renewed(self) -> Self:
        """Return it as new: the agent says yes, all servers are well."""
        self.agent.script = acknowledging(allow(ACL))
        self.agent.notifies.clear()
        return self

    def gateway(self, listener: str, name: str) -> Gateway:
        (found,) = (it for it in self.gateways[listener] if it.name == name)
        return found


@contextmanager
def running_site(
    haproxy: Path, folder: Path, files: TlsFiles | None = None, **settings: str
) -> Iterator[Site]:
    """Run a site until the block ends. `files` in place of the servers' good certificates."""
    authority = make_authority(folder)
    good = authority.issue("servers", *(f"DNS:{host}" for host in HOSTS.values()))
    with ExitStack() as stack:
        socket = folder / "spoa.sock"
        agent = stack.enter_context(StubAgent(socket, acknowledging(allow(ACL))))
        gateways = {name: _pair(stack, name, files or good) for name in LISTENERS}
        airwatch = running_airwatch(
            haproxy,
            folder,
            {
                "KAT_AGENT": f"unix@{socket}",
                "KAT_PROCESSING": "1s",  # below the 2 s of inspect-delay
                **_servers(gateways),
                **settings,
            },
            authority.ca_file,
        )
        yield Site(stack.enter_context(airwatch), agent, gateways, authority)


@contextmanager
def checked_site(haproxy: Path, folder: Path, **settings: str) -> Iterator[Site]:
    """Run a site whose servers have all been found well."""
    with running_site(haproxy, folder, **{**_QUICK, **settings}) as site:
        for listener in LISTENERS:
            site.airwatch.await_checked(listener)
        yield site


def _pair(stack: ExitStack, listener: str, files: TlsFiles) -> list[Gateway]:
    """Make both servers of a listener, at one port of two addresses."""
    kind = listener.partition("_")[0]
    tls = files if listener in HOSTS else None
    return [stack.enter_context(Gateway(f"{kind}{number}", tls)) for number in (1, 2)]


def _servers(gateways: dict[str, list[Gateway]]) -> dict[str, str]:
    settings = {}
    for listener, pair in gateways.items():
        kind, _, port = listener.upper().partition("_")
        settings[f"KAT_{kind}_PORT_{port}"] = str(_listen(pair))
        settings |= {f"KAT_{kind}_{at}": address for at, address in enumerate(_ADDRESSES, 1)}
    return settings


def _listen(pair: list[Gateway]) -> int:
    """Find a port that is free at both addresses."""
    first, second = pair
    for _ in range(20):
        port = first.listen(_ADDRESSES[0])
        try:
            return second.listen(_ADDRESSES[1], port)
        except OSError:
            first.refuse()
    raise AssertionError("no port is free at two addresses")
