"""Certificates made by the very commands of docs/remote-agents.md, and clients that show them."""

import re
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from spoa.config.sections import ListenerFiles
from tests.support.clocks import faketime
from tests.support.spop_client import TIMEOUT_S, SpopClient

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "remote-agents.md"

NAME = "kat-agent"
"""What HAProxy expects an agent to be called."""


@dataclass(frozen=True)
class Authority:
    """A CA, an agent and a HAProxy, as the documentation makes them."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def haproxy(self) -> Path:
        """What HAProxy shows: certificate and key in one file."""
        return self.folder / "kat-agents.pem"

    @property
    def agent(self) -> ListenerFiles:
        return self.files(NAME)

    def files(self, name: str) -> ListenerFiles:
        return ListenerFiles(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.ca)

    def sign(self, name: str, usage: str = "serverAuth", *, clock: str = "") -> ListenerFiles:
        """Make one more; `clock` is what libfaketime makes of the time meanwhile."""
        function = re.search(r"^sign\(\) \{.*?^\}$", commands(), re.MULTILINE | re.DOTALL)
        assert function, "the documentation has no function `sign` any more"
        _shell(f"{function[0]}\nsign {name} {usage}", self.folder, clock)
        return self.files(name)

    def client_context(self, certificate: Path | None) -> ssl.SSLContext:
        """Make the context of a HAProxy that shows this certificate, or none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        if certificate:
            context.load_cert_chain(certificate)
        return context


def commands() -> str:
    """Return the commands that make a CA, as people are told to type them."""
    _, _, section = DOCS.read_text().partition("## A CA of its own")
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found, "the documentation has no commands any more"
    return found[1]


def make_authority(folder: Path, *, clock: str = "") -> Authority:
    """Make all that the documentation makes; `clock` as for `sign`."""
    folder.mkdir(exist_ok=True)
    _shell(commands(), folder, clock)
    return Authority(folder)


def _shell(script: str, folder: Path, clock: str = "") -> None:
    subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **(faketime(clock) if clock else {})},
        check=True,
        capture_output=True,
        timeout=60,
    )


class TlsClient(SpopClient):
    """HAProxy's side of one connection over TLS."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        """Connect and shake hands. Raises ssl.SSLError."""
        super().__init__(address)
        with self.socket as plain:
            self.socket = context.wrap_socket(plain, server_hostname=NAME)
        self.socket.settimeout(TIMEOUT_S)


def free_address() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host, port = probe.getsockname()
        return host, port
