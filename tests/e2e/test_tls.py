"""With a certificate: HTTPS is the gate, plain HTTP only shows the way there."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN, Stage, staged, until
from tests.support.haproxy import Answer, read_answer
from tests.support.stub_agent import acknowledging, allow, refuse

CERTIFICATE = Path(__file__).with_name("localhost.pem")


@dataclass
class Secure:
    """A stage whose port is for plain HTTP; HTTPS listens on a unix socket."""

    stage: Stage
    https: Path

    def ask(self, *headers: str) -> Answer:
        """Send GET / over TLS."""
        context = ssl.create_default_context(cafile=CERTIFICATE)
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(self.https))
            with context.wrap_socket(raw, server_hostname="localhost") as client:
                lines = ["GET / HTTP/1.1", "Host: localhost", *headers, ""]
                client.sendall("".join(f"{line}\r\n" for line in lines).encode())
                return read_answer(client)


@pytest.fixture(scope="module")
def secure(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    https = folder / "https.sock"
    settings = {"KAT_CERT": str(CERTIFICATE), "KAT_HTTPS": f"unix@{https}"}
    with staged(haproxy_binary, folder, settings=settings) as stage:
        until(https.exists)
        yield Secure(stage, https)


def test_the_gate_speaks_tls(secure: Secure) -> None:
    """Over HTTPS a yes is forwarded, with HSTS, and the application learns that it was HTTPS."""
    secure.stage.application.take()
    answer = secure.ask(f"X-KAT: {TOKEN}")
    assert (answer.status, answer.body) == (200, "the application\n")
    assert answer.header("Strict-Transport-Security") == "max-age=63072000"
    (received,) = secure.stage.application.take()
    assert received.header("X-Forwarded-Proto") == ["https"]


def test_refusals_carry_hsts_too(secure: Secure) -> None:
    """HSTS stands on the gate's own answers as well."""
    secure.stage.agent.script = acknowledging(refuse(b"denied", b"unknown"))
    answer = secure.ask(f"X-KAT: {TOKEN}")
    secure.stage.agent.script = acknowledging(allow())
    assert answer.status == 403
    assert answer.header("Strict-Transport-Security") == "max-age=63072000"


def test_plain_http_redirects_without_the_query(secure: Secure) -> None:
    """A query may hold a token: the Location has the path alone, and nobody is asked."""
    secure.stage.agent.notifies.clear()
    answer = secure.stage.ask(target=f"/a/b?kat={TOKEN}", host="LOCALHOST:80")
    assert (answer.status, answer.header("Location")) == (301, "https://localhost/a/b")
    assert secure.stage.agent.notifies == []


@pytest.mark.parametrize("target", ["//evil.example/", "/\\evil.example", "/%0d%0aX:y", "///"])
def test_a_redirect_stays_on_the_host(secure: Secure, target: str) -> None:
    """No path makes a redirect lead elsewhere."""
    location = secure.stage.ask(target=target).header("Location") or ""
    assert location == f"https://localhost{target}"


@pytest.mark.parametrize("host", ["evil/..", "a b", "localhost,evil", None, ""])
def test_a_redirect_needs_a_readable_host(secure: Secure, host: str | None) -> None:
    """What is no host name is not sent back as one."""
    assert secure.stage.ask(host=host).status == 400


def test_a_redirect_leads_to_our_own_names_only(secure: Secure) -> None:
    """A cache that keeps a redirect keeps none to somebody else's host."""
    answer = secure.stage.ask(host="evil.example")
    assert (answer.status, answer.header("Location")) == (421, None)


@pytest.mark.parametrize("portal", [{}, {"KAT_PORTAL_APP": "127.0.0.1:9", "KAT_PORTAL_HOSTS": "p"}])
def test_only_names_in_use_are_our_own(
    haproxy_binary: Path, tmp_path: Path, portal: dict[str, str]
) -> None:
    """Where names are set no default is one of them, and the portal's counts where there is one."""
    settings = {
        "KAT_CERT": str(CERTIFICATE),
        "KAT_HTTPS": f"unix@{tmp_path}/https.sock",
        "KAT_HOSTS": "one.example two.example",
        **portal,
    }
    with staged(haproxy_binary, tmp_path, settings=settings) as stage:
        statuses = {
            host: stage.ask(host=host).status
            for host in ("one.example", "two.example", "p", "localhost")
        }
    known = {"one.example", "two.example", *portal.get("KAT_PORTAL_HOSTS", "").split()}
    assert statuses == {host: 301 if host in known else 421 for host in statuses}


def test_a_redirect_needs_a_plain_target(secure: Secure) -> None:
    """An authority that programs read in different ways is refused on plain HTTP, too."""
    assert secure.stage.ask(target="http://x\\admin@localhost/wiki").status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_plain_http_takes_no_secrets(secure: Secure, method: str) -> None:
    """A program that sends its token in the clear is refused, not redirected."""
    headers = (f"X-KAT: {TOKEN}", "Content-Length: 0")
    assert secure.stage.ask(*headers, method=method).status == 403
    assert secure.stage.application.take() == []


def test_plain_http_answers_challenges(secure: Secure) -> None:
    """ACME asks on port 80: a challenge goes through, with GET alone."""
    secure.stage.acme.take()
    target = "/.well-known/acme-challenge/a-Z_9"
    assert secure.stage.ask(target=target).status == 200
    assert len(secure.stage.acme.take()) == 1
    assert secure.stage.ask(target=target, method="HEAD").status == 301
    assert secure.stage.ask(target=target + "/../../admin").status == 301
    assert secure.stage.acme.take() == []
