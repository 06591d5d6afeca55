"""Agents on other machines, as far as one machine can show them: at ports, with one Redis."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

from haproxy import CONFIGURATION
from tests.e2e.scene import DEADLINE_S, PATIENCE, Agent, Gate
from tests.support.application import Application
from tests.support.haproxy import running
from tests.support.redis import RedisServer
from tests.support.tls_peers import Authority, free_address


class RemoteAgent(Agent):
    """The real agent at a TCP port, with TLS if it has an authority."""

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        authority: Authority | None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        host, port = free_address()
        self.address = f"{host}:{port}"
        files = authority.agent if authority else None
        tls = (
            {
                "KAT_LISTEN__CERT_FILE": str(files.cert_file),
                "KAT_LISTEN__KEY_FILE": str(files.key_file),
                "KAT_LISTEN__CLIENT_CA_FILE": str(files.client_ca_file),
            }
            if files
            else {"KAT_LISTEN__INSECURE": "true"}
        )
        ours = {
            "KAT_LISTEN__SPOP": self.address,
            "KAT_LISTEN__METRICS": "127.0.0.1:0",
            "KAT_LISTEN__WORKERS": "1",
            "KAT_STORE__URL": f"unix://{redis.socket}",
        }
        super().__init__(folder, {**ours, **tls, **(settings or {})}, str(redis.socket))

    def asked(self) -> float:
        """Return how many requests it has answered since its last start."""
        port = re.findall(r"http=127\.0\.0\.1:(\d+)", self.log())[-1]
        with closing(HTTPConnection("127.0.0.1", int(port), timeout=DEADLINE_S)) as connection:
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        counts = re.findall(r"^kat_requests_total\{.*\} (\S+)$", page, re.MULTILINE)
        return sum(map(float, counts))


@contextmanager
def gated(
    binary: Path,
    folder: Path,
    agent: Agent,
    settings: Mapping[str, str],
    configuration: Path = CONFIGURATION,
) -> Iterator[Gate]:
    """Run a HAProxy with these settings of its agents; `agent` is whose Redis is looked at."""
    with (
        Application() as application,
        running(
            binary,
            folder,
            {"KAT_APP": application.address, "KAT_PROCESSING": PATIENCE, **settings},
            configuration=configuration,
        ) as haproxy,
    ):
        yield Gate(haproxy, agent, application)


def by_tls(authority: Authority, *agents: RemoteAgent) -> dict[str, str]:
    """Name the settings of a HAProxy that asks these agents."""
    names = ("KAT_AGENT", "KAT_AGENT_2")
    return {
        "KAT_AGENT_CA": str(authority.ca),
        "KAT_AGENT_CERT": str(authority.haproxy),
        **{name: agent.address for name, agent in zip(names, agents, strict=False)},
    }
