"""examples/confluence.cfg at work: a real HAProxy, Confluence behind TLS, and who writes its lists.

The lists and the marks of their writer are filled as anybody may, by commands to the Runtime API:
`put`, `drop` and `beat` are what `kat allowlist` does there.
"""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Unpack

from haproxy import FILES
from tests.support.application import Application, Received
from tests.support.authority import Authority, make_authority
from tests.support.eventually import eventually
from tests.support.haproxy import Answer, Haproxy, Request, fresh_source, running, tell
from tests.support.haproxy import complaints as haproxy_complaints
from tokens.store.tls import TlsFiles

EXAMPLE = FILES / "examples" / "confluence.cfg"
HOST = "confluence.example.org"
STAFF, ADMINS = "#500", "#701"
"""The lists, as the Runtime API calls them."""

GRANTS = ("confluence", "confluence-admin")
"""The ACLs whose grants they hold: what their writer's marks are called."""

_CHECK = "/status"


class SecureApplication(Application):
    """The application behind TLS. `names` are those that clients asked for, by SNI."""

    def __init__(self, tls: TlsFiles) -> None:
        super().__init__()
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(tls.cert_file), str(tls.key_file))
        context.sni_callback = lambda _, name, __: self.names.append(name)
        # Shakes hands where the request is read: who does not like our certificate stops nobody.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )


@dataclass
class Confluence:
    """A gate before an application, and its Runtime API."""

    haproxy: Haproxy = field(repr=False)
    application: SecureApplication = field(repr=False)
    runtime: Path

    def ask(self, *headers: str, **request: Unpack[Request]) -> Answer:
        return self.haproxy.ask(*headers, **{"host": HOST, **request})

    def tell(self, command: str) -> str:
        """Send one command to the Runtime API; return what it says."""
        return tell(self.runtime, command)

    def put(self, address: str, *lists: str) -> None:
        """Write an entry into lists: into that of the staff, unless told otherwise."""
        for name in lists or (STAFF,):
            assert self.tell(f"add acl {name} {address}").strip() == ""

    def member(self, *lists: str) -> str:
        """Grant a new address, spelled as `kat allowlist` does; return it."""
        source = fresh_source()
        self.put(f"{source}/032", *lists)
        return source

    def drop(self, address: str, *lists: str) -> None:
        for name in lists or (STAFF,):
            assert self.tell(f"del acl {name} {address}").strip() == ""

    def beat(self, *acls: str) -> None:
        """Leave the marks of a living writer: of both lists, unless told otherwise."""
        for acl in acls or GRANTS:
            assert self.tell(f"set table kat_alive key {acl} data.gpc0 1").strip() == ""

    def silence(self, *acls: str) -> None:
        """Take those marks away."""
        for acl in acls or GRANTS:
            self.tell(f"clear table kat_alive key {acl}")

    def taken(self) -> list[Received]:
        """Remove and return what reached the application, but health checks."""
        return [one for one in self.application.take() if one.target != _CHECK]

    def is_up(self) -> bool:
        """Tell whether HAProxy takes the application for alive; it does until a check says no."""
        stats = self.tell("show stat").splitlines()
        columns = stats[0].lstrip("# ").split(",")
        rows = [dict(zip(columns, line.split(","), strict=False)) for line in stats[1:]]
        (status,) = [
            row["status"]
            for row in rows
            if (row.get("pxname"), row.get("svname")) == ("gate_confluence", "app")
        ]
        return not status.startswith("DOWN")

    def log_of(self, path: str) -> str:
        """Wait for the line of the only request for this path, and return it."""
        (line,) = eventually(
            lambda: [one for one in self.haproxy.log().splitlines() if f'"{path}"' in one],
            f"a line of the log for {path}",
        )
        return line


complaints = partial(haproxy_complaints, configuration=EXAMPLE)
"""Have the example checked."""


@contextmanager
def guarded(
    binary: Path,
    folder: Path,
    settings: Mapping[str, str],
    *,
    certificate: TlsFiles | None = None,
    statuses: Iterable[HTTPStatus] = (),
    listener: str = "KAT_HTTP",
    is_dual_stack: bool = False,
) -> Iterator[Confluence]:
    """Run the example before an application until the block ends.

    The application has a certificate of its name, by the CA that HAProxy knows, unless it is given
    another one; `settings` may name another CA, too. `statuses` are those of its first answers.
    """
    authority = make_authority(folder)
    runtime = folder / "kat.sock"
    application = SecureApplication(certificate or of_confluence(authority))
    application.statuses += statuses
    with (
        application,
        running(
            binary,
            folder,
            {
                "KAT_APP": application.address,
                "KAT_CA": str(authority.ca_file),
                "KAT_RUNTIME": str(runtime),
                **settings,
            },
            listener=listener,
            is_dual_stack=is_dual_stack,
            configuration=EXAMPLE,
        ) as haproxy,
    ):
        eventually(lambda: _answers(runtime), "HAProxy's Runtime API")
        yield Confluence(haproxy, application, runtime)


def _answers(runtime: Path) -> bool:
    """Tell whether it listens: its socket is there a little before that."""
    try:
        return bool(tell(runtime, "show version"))
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def of_confluence(authority: Authority) -> TlsFiles:
    """Issue a certificate of the name that the example expects."""
    return authority.issue("confluence", f"DNS:{HOST}")
