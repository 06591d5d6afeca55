"""TLS early data: a recording of it, sent again, is no request.

haproxy.cfg does not take early data. Here it does: this is what an operator has who adds
`allow-0rtt`, and what haproxy.cfg's 425 is for.
"""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_WR, create_connection, create_server

import pytest

from haproxy import CONFIGURATION
from tests.e2e.scene import TOKEN, Stage, staged, until
from tests.e2e.test_tls import CERTIFICATE
from tests.e2e.visiting import COOKIE, LINK, OURS, STANDS, lines
from tests.support.stub_agent import acknowledging

HOST = "Host: localhost"
APPLICATION_DATA = 0x17
HEADER_BYTES = 5
FULL_HANDSHAKE_BYTES = 500
"""With the certificate it is more; without, half of it."""

TIMEOUT_S = 10

REQUESTS = {
    "a link": lines(f"GET /early?{LINK} HTTP/1.1", HOST),
    "a header": lines("GET /early HTTP/1.1", HOST, f"X-KAT: {TOKEN}"),
    "a session": lines("GET /early HTTP/1.1", HOST, f"Cookie: {COOKIE}"),
    "a logout": lines("POST /.kat/logout HTTP/1.1", HOST, OURS, "Content-Length: 0"),
}


@dataclass
class Hasty:
    """A stage that takes early data, and a client of it that resumes its sessions."""

    stage: Stage
    folder: Path

    def client(self, *options: str | Path, port: int = 0) -> list[str]:
        """Write the command of a client for this port, by default the stage's."""
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port or self.stage.haproxy.port}"]
        return [*words, "-servername", "localhost", "-tls1_3", *map(str, options)]

    def ticket(self) -> Path:
        """Visit once; return the session that can be resumed with early data."""
        ticket = self.folder / "ticket"
        ticket.unlink(missing_ok=True)
        visit = lines("GET /first HTTP/1.1", HOST, "Connection: close")
        command = self.client("-sess_out", ticket, "-ign_eof")
        subprocess.run(command, input=visit, capture_output=True, check=True, timeout=TIMEOUT_S)
        return ticket

    def recorded(self, request: bytes) -> bytes:
        """Return what a client sends before it hears anything: its hello, and this request."""
        early = self.folder / "early"
        early.write_bytes(request)
        with create_server(("127.0.0.1", 0)) as nowhere:
            port = nowhere.getsockname()[1]
            options = ("-sess_in", self.ticket(), "-early_data", early)
            client = subprocess.Popen(
                self.client(*options, port=port),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                connection, _ = nowhere.accept()
                with connection, connection.makefile("rb") as flight:
                    return b"".join(_records(flight.read))
            finally:
                client.kill()
                client.wait()


@pytest.fixture(scope="module")
def hasty(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hasty]:
    folder = tmp_path_factory.mktemp("early")
    configuration = folder / "haproxy.cfg"
    bind = "alpn h2,http/1.1"
    assert CONFIGURATION.read_text().count(bind) == 1
    configuration.write_text(CONFIGURATION.read_text().replace(bind, f"{bind} allow-0rtt"))
    settings = {"KAT_CERT": str(CERTIFICATE), "KAT_HTTP": f"unix@{folder}/plain.sock"}
    with staged(
        haproxy_binary,
        folder,
        listener="KAT_HTTPS",
        settings=settings,
        configuration=configuration,
    ) as stage:
        until((folder / "plain.sock").exists)
        yield Hasty(stage, folder)


def test_an_honest_client_is_served(hasty: Hasty) -> None:
    """Early data is accepted, and judged once the handshake proves who sent it."""
    stage = hasty.stage.renewed()
    stage.agent.script = acknowledging(STANDS)
    early = hasty.folder / "honest"
    early.write_bytes(lines("GET /early HTTP/1.1", HOST, "Connection: close"))
    ticket = hasty.ticket()
    stage.renewed()
    command = hasty.client("-sess_in", ticket, "-early_data", early, "-ign_eof")
    done = subprocess.run(
        command, input=b"", capture_output=True, check=True, timeout=TIMEOUT_S
    ).stdout
    assert b"Early data was accepted" in done
    assert b"HTTP/1.1 200 OK" in done
    assert [args[b"path"] for args in stage.asked()] == [b"/early"]


# HAProxy of these versions reads early data up to the handshake's end, and waits for that: such a
# request never comes to be, and `ssl_fc_has_early` is never true over TCP. Without that the answer,
# a 425 or worse, would come back here. Over QUIC, which haproxy.cfg does not speak, it may be true.
@pytest.mark.parametrize("case", REQUESTS)
def test_a_recording_sent_again_is_no_request(hasty: Hasty, case: str) -> None:
    """Who does not know the keys cannot end the handshake: nobody is asked, nothing is consumed."""
    recording = hasty.recorded(REQUESTS[case])
    stage = hasty.stage.renewed()
    with create_connection(("127.0.0.1", stage.haproxy.port), TIMEOUT_S) as replay:
        replay.sendall(recording)
        flight = replay.recv(65536)
        replay.shutdown(SHUT_WR)
        answer = flight + b"".join(iter(lambda: replay.recv(65536), b""))
    assert len(answer) < FULL_HANDSHAKE_BYTES, "HAProxy did not resume the session, or it answered"
    assert (stage.asked(), stage.application.take()) == ([], [])


def _records(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Read TLS records, up to the first one with data."""
    kind = 0
    while kind != APPLICATION_DATA:
        header = read(HEADER_BYTES)
        kind = header[0]
        yield header + read(int.from_bytes(header[3:]))
