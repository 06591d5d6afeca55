"""examples/confluence.cfg and TLS: to Confluence, which must prove who it is, and to people."""

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.e2e.scene import PATIENCE, TOKEN
from tests.support.authority import make_authority
from tests.support.confluence import HOST, Confluence, guarded, of_confluence
from tests.support.eventually import eventually
from tests.support.haproxy import Answer, read_answer
from tests.support.stub_agent import StubAgent, acknowledging, actions
from tokens.store.tls import TlsFiles

IP = {"KAT_MODE": "ip", "KAT_BEAT": "1h"}
STATUS = "/wiki/status"
YES = acknowledging(actions(acl=b"confluence", reason=b"ok", allow=True))


def granted(confluence: Confluence) -> str:
    """Grant a new address, and look after the lists."""
    confluence.beat()
    return confluence.member()


def test_confluence_is_asked_by_its_name(haproxy_binary: Path, tmp_path: Path) -> None:
    """Pages and health checks go over TLS, to the name that the certificate must have."""
    settings = {**IP, "KAT_CHECK": STATUS}
    with guarded(haproxy_binary, tmp_path, settings) as confluence:
        assert confluence.ask(source=granted(confluence)).status == 200
        checks = eventually(
            lambda: [one for one in confluence.application.received if one.target == STATUS],
            "a health check",
        )
        assert confluence.is_up()
    assert {(one.method, *one.header("Host")) for one in checks} == {("GET", HOST)}
    assert set(confluence.application.names) == {HOST}


def _of_another_authority(folder: Path) -> TlsFiles:
    known = make_authority(_made(folder / "known"))
    return replace(of_confluence(make_authority(folder)), ca_file=known.ca_file)


def _of_another_name(folder: Path) -> TlsFiles:
    return make_authority(_made(folder / "known")).issue(
        "wrong", "DNS:other.example", "IP:127.0.0.1"
    )


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(params=[_of_another_authority, _of_another_name], ids=["wrong CA", "wrong name"])
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> TlsFiles:
    """Give a certificate that is not Confluence's; its `ca_file` is the CA that HAProxy knows."""
    certificate: TlsFiles = request.param(tmp_path)
    return certificate


@contextmanager
def impostor(
    binary: Path, folder: Path, wrong: TlsFiles, settings: Mapping[str, str]
) -> Iterator[Confluence]:
    """Run the example before somebody else, until the block ends; he gets nothing at all."""
    settings = {**settings, "KAT_CA": str(wrong.ca_file)}
    with guarded(binary, folder, settings, certificate=wrong) as confluence:
        eventually(lambda: not confluence.is_up(), "the health check to fail")
        yield confluence
    assert confluence.application.received == []


def test_somebody_else_is_not_confluence(
    haproxy_binary: Path, tmp_path: Path, wrong: TlsFiles
) -> None:
    """Who cannot prove to be Confluence fails the check; people get a 503 page, programs JSON."""
    with impostor(haproxy_binary, tmp_path, wrong, IP) as confluence:
        source = granted(confluence)
        answer = confluence.ask(source=source)
        assert (answer.status, answer.header("Retry-After")) == (503, "5")
        assert "Not available right now" in answer.body
        answer = confluence.ask("Accept: application/json", source=source)
        assert (answer.status, answer.header("Content-Type")) == (503, "application/json")


def test_a_check_that_was_overruled_helps_nobody(
    haproxy_binary: Path, tmp_path: Path, wrong: TlsFiles
) -> None:
    """Each connection is verified, not only each check: forced up, the server gets nothing."""
    with impostor(haproxy_binary, tmp_path, wrong, IP) as confluence:
        confluence.tell("disable health gate_confluence/app")
        confluence.tell("set server gate_confluence/app health up")
        assert confluence.is_up()
        answer = confluence.ask(source=granted(confluence))
        assert answer.status == 503
        assert "Not available right now" in answer.body


def test_no_token_is_consumed_for_somebody_else(
    haproxy_binary: Path, tmp_path: Path, wrong: TlsFiles
) -> None:
    """While the check fails the agent is not asked."""
    agent_socket = tmp_path / "spoa.sock"
    settings = {"KAT_MODE": "token", "KAT_AGENT": f"unix@{agent_socket}"}
    with (
        StubAgent(agent_socket, YES) as agent,
        impostor(haproxy_binary, tmp_path, wrong, settings) as confluence,
    ):
        assert confluence.ask(f"X-KAT: {TOKEN}").status == 503
        assert agent.notifies == []


def test_only_the_named_option_believes_anybody(haproxy_binary: Path, tmp_path: Path) -> None:
    """With KAT_APP_UNVERIFIED whatever certificate there is will do."""
    certificate = _of_another_authority(tmp_path)
    settings = {**IP, "KAT_APP_UNVERIFIED": "yes"}
    with guarded(haproxy_binary, tmp_path, settings, certificate=certificate) as confluence:
        source = granted(confluence)
        assert confluence.ask(source=source).status == 200
        eventually(lambda: HOST in confluence.application.names, "a name asked for")


def test_a_confluence_that_starts_is_waited_for(haproxy_binary: Path, tmp_path: Path) -> None:
    """Until /status is a 200, people get the 503 page, and Confluence none of their requests."""
    with guarded(haproxy_binary, tmp_path, IP, statuses=[HTTPStatus.FOUND]) as confluence:
        eventually(lambda: not confluence.is_up(), "the health check to fail")
        source = granted(confluence)
        confluence.taken()
        assert confluence.ask(source=source).status == 503
        assert confluence.taken() == []
        eventually(confluence.is_up, "the health check to pass")
        assert confluence.ask(source=source).status == 200


@dataclass
class Doors:
    """The example with a certificate: its port is for plain HTTP, HTTPS is a unix socket."""

    confluence: Confluence
    https: Path
    ca_file: Path
    agent: StubAgent

    def secure(self, *headers: str, host: str = HOST) -> Answer:
        """Send GET / over TLS."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(self.https))
            with context.wrap_socket(raw, server_hostname=HOST) as client:
                lines = ["GET / HTTP/1.1", f"Host: {host}", *headers, ""]
                client.sendall("".join(f"{line}\r\n" for line in lines).encode())
                return read_answer(client)


@pytest.fixture(scope="module")
def doors(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    mine = folder / "mine"
    mine.mkdir()
    authority = make_authority(mine)
    certificate = of_confluence(authority)
    pem = folder / "both.pem"
    pem.write_bytes(certificate.cert_file.read_bytes() + certificate.key_file.read_bytes())
    https, agent_socket = folder / "https.sock", folder / "spoa.sock"
    settings = {
        "KAT_MODE": "token",
        "KAT_CERT": str(pem),
        "KAT_HTTPS": f"unix@{https}",
        "KAT_AGENT": f"unix@{agent_socket}",
        "KAT_PROCESSING": PATIENCE,
    }
    with (
        StubAgent(agent_socket, YES) as agent,
        guarded(haproxy_binary, folder, settings) as confluence,
    ):
        eventually(https.exists, "the socket for HTTPS")
        yield Doors(confluence, https, authority.ca_file, agent)


@pytest.mark.parametrize("proto", ["http", "https"])
def test_plain_http_leads_to_https_whatever_a_client_says(doors: Doors, proto: str) -> None:
    """Where a request came in decides: X-Forwarded-Proto neither causes nor spares a redirect."""
    claim = f"X-Forwarded-Proto: {proto}"
    answer = doors.confluence.ask(claim, target=f"/display/DS?kat={TOKEN}")
    assert (answer.status, answer.header("Location")) == (301, f"https://{HOST}/display/DS")
    assert doors.confluence.taken() == []
    answer = doors.secure(claim, f"X-KAT: {TOKEN}")
    assert (answer.status, answer.body) == (200, "the application\n")
    assert answer.header("Strict-Transport-Security") == "max-age=63072000"
    (received,) = doors.confluence.taken()
    assert received.header("X-Forwarded-Proto") == ["https"]


HOSTS = {
    HOST: (301, 200),
    HOST.upper(): (301, 200),
    f"{HOST}:443": (301, 200),
    f"{HOST}.": (400, 400),
    f"x{HOST}": (421, 421),
    f"{HOST}.evil.example": (421, 421),
    "evil.example": (421, 421),
    f"evil.example,{HOST}": (400, 400),
    f"{HOST},evil.example": (400, 400),
    f"{HOST} evil.example": (400, 400),
    f"{HOST}@evil.example": (400, 400),
    f"{HOST}:443:80": (400, 400),
    "127.0.0.1": (421, 421),
}
"""What a client calls us, and the answers of both doors to it."""


@pytest.mark.parametrize("host", HOSTS)
def test_only_the_very_host_name_is_ours(doors: Doors, host: str) -> None:
    """No other name is redirected or let in, and no agent is asked for it."""
    doors.agent.notifies.clear()
    plain, secure = HOSTS[host]
    answer = doors.confluence.ask(host=host)
    assert answer.status == plain
    assert (answer.header("Location") or f"https://{HOST}/") == f"https://{HOST}/"
    assert doors.secure(f"X-KAT: {TOKEN}", host=host).status == secure
    is_ours = secure == 200
    assert len(doors.agent.notifies) == len(doors.confluence.taken()) == is_ours


def test_plain_http_takes_no_secrets(doors: Doors) -> None:
    """A program that sends its token in the clear is refused, not redirected."""
    answer = doors.confluence.ask(f"X-KAT: {TOKEN}", "Content-Length: 0", method="POST")
    assert answer.status == 403
    assert doors.confluence.taken() == []
