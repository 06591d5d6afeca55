"""haproxy/examples/airwatch.cfg: who gets through to AirWatch's servers, and what passes."""

import re
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from itertools import count
from os import urandom
from pathlib import Path

import pytest

from spoa.spop.value import Address
from tests.e2e.airwatch_site import ACL, Site, running_site
from tests.support.airwatch import HOSTS, LISTENERS
from tests.support.eventually import eventually
from tests.support.haproxy import fresh_source
from tests.support.stub_agent import (
    GARBAGE,
    Script,
    acknowledging,
    actions,
    allow,
    closing,
    refuse,
    saying,
)

_NAMES = count()

NO_ANSWERS: dict[str, Script] = {
    "a refusal": acknowledging(refuse(b"missing", b"no_grant", ACL)),
    "silence": saying(b""),
    "a closed connection": closing,
    "garbage": saying(GARBAGE),
    "an ACK that ends inside allow": acknowledging(allow(ACL)[:-1]),
    "a yes for another ACL": acknowledging(allow(b"demo")),
    "a yes for no ACL": acknowledging(actions(**{"class": b"allow"}, allow=True)),
    "a yes with an error": acknowledging(actions(acl=ACL, error=1, allow=True)),
}


@pytest.fixture(scope="module")
def _site(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(haproxy_binary, tmp_path_factory.mktemp("site")) as site:
        for listener in LISTENERS:
            site.airwatch.await_checked(listener)
        yield site


@pytest.fixture
def site(_site: Site) -> Site:
    return _site.renewed()


def _hello(name: str) -> bytes:
    """Return what a TLS client says first, to a server of this name."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def _first_words(listener: str, name: str = "name.example") -> bytes:
    """Return what a client says first; a server that gets it has heard the name."""
    return _hello(name) if listener in HOSTS else f"{name}\n".encode()


def _is_heard(site: Site, listener: str, name: str) -> bool:
    return any(
        name in it.asked_for or f"{name}\n".encode() in it.heard for it in site.gateways[listener]
    )


def _is_closed(site: Site, listener: str) -> bool:
    """Connect and say something; tell whether the end of the file is all that comes back."""
    name = f"n{next(_NAMES)}.example"
    with site.airwatch.connect(listener) as client:
        client.sendall(_first_words(listener, name))
        is_closed = client.recv(1) == b""  # a reset is an error
    assert _is_heard(site, listener, name) is not is_closed
    return is_closed


@pytest.mark.parametrize("listener", LISTENERS)
def test_what_passes_is_not_changed(site: Site, listener: str) -> None:
    """Who is admitted gets the server's certificate, by the name asked for, and his bytes back."""
    word = b64encode(urandom(300_000))
    with site.airwatch.device(listener) as device:
        name, _, line = device.says(word)
        assert line == word
        if isinstance(device.connection, ssl.SSLSocket):
            shown = ssl.DER_cert_to_PEM_cert(device.connection.getpeercert(binary_form=True) or b"")
            assert shown in (site.airwatch.folder / "servers.pem").read_text()
            assert HOSTS[listener] in site.gateway(listener, name.decode()).asked_for


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_anything_but_a_yes_ends_in_a_clean_close(site: Site, case: str) -> None:
    """Without allow, this ACL and no error it is an end of file, not a reset, at every listener."""
    site.agent.script = NO_ANSWERS[case]
    for listener in LISTENERS:
        assert _is_closed(site, listener)


def test_an_agent_that_is_gone_keeps_it_shut(site: Site) -> None:
    """No agent, no way in, and a clean close; and devices get in again when the agent is back."""
    site.agent.vanish()
    try:
        for listener in LISTENERS:
            assert _is_closed(site, listener)
    finally:
        site.agent.listen()
    eventually(lambda: _is_let_in(site), "a device gets in again")


def _is_let_in(site: Site) -> bool:
    with suppress(OSError):
        return site.airwatch.server("mag_443") in {"mag1", "mag2"}
    return False


@pytest.mark.parametrize("listener", HOSTS)
def test_a_hello_in_pieces_is_refused_by_a_clean_close(site: Site, listener: str) -> None:
    """Who is turned away with a hello in two packets gets an end of file, too."""
    site.agent.script = acknowledging(refuse(b"denied", b"blocked", ACL))
    hello = _hello(HOSTS[listener])
    for _ in range(100):
        with site.airwatch.connect(listener) as client:
            client.sendall(hello[:100])
            client.sendall(hello[100:])
            assert client.recv(1) == b""


def test_who_speaks_no_tls_is_not_worth_a_question(site: Site) -> None:
    """At 443 the agent is asked about ClientHellos alone; others are closed without a word."""
    for listener in HOSTS:
        with site.airwatch.connect(listener) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1) == b""
    assert site.agent.notifies == []


def test_nobody_waits_for_a_first_byte_elsewhere(site: Site) -> None:
    """At 2010 and 2020 a refused device need not say a word to be closed."""
    site.agent.script = acknowledging(refuse(b"missing", b"no_grant", ACL))
    for listener in ("mag_2010", "mag_2020"):
        with site.airwatch.connect(listener) as client:
            assert client.recv(1) == b""


@pytest.mark.parametrize("source", ["IPv4", "IPv6"])
def test_the_agent_is_asked_once_for_the_address(site: Site, source: str) -> None:
    """One message for each connection, with the ACL, the device's address, an id and the time."""
    address = "::1" if source == "IPv6" else fresh_source()
    for listener in LISTENERS:
        site.agent.notifies.clear()
        site.airwatch.server(listener, address)
        [notify] = site.agent.notifies
        [message] = notify.messages
        assert message.name == b"check-tcp"
        assert set(message.args) == {b"acl", b"src", b"id", b"at"}
        assert message.args[b"acl"] == ACL
        seen = message.args[b"src"]
        assert isinstance(seen, Address)
        told = ip_address(bytes(seen))
        assert (getattr(told, "ipv4_mapped", None) or told) == ip_address(address)
        at_ms = message.args[b"at"]
        assert isinstance(at_ms, int)
        assert abs(time.time() * 1000 - at_ms) < 60_000


def test_mag_and_seg_may_have_acls_of_their_own(haproxy_binary: Path, tmp_path: Path) -> None:
    """KAT_MAG_ACL and KAT_SEG_ACL are what the agent is asked for, and what it must have judged."""
    settings = {"KAT_MAG_ACL": "mag", "KAT_SEG_ACL": "seg"}
    with running_site(haproxy_binary, tmp_path, **settings) as site:
        for name in ("mag", "seg"):
            site.agent.script = acknowledging(allow(name.encode()))
            for listener in LISTENERS:
                site.agent.notifies.clear()
                assert _is_closed(site, listener) is not listener.startswith(name)
                [notify] = site.agent.notifies
                assert notify.messages[0].args[b"acl"] == listener[:3].encode()


def test_a_line_of_the_log_says_who_and_why(site: Site) -> None:
    """Every connection leaves a line: address, listener, server, and why it was turned away."""
    site.agent.script = acknowledging(refuse(b"denied", b"blocked", ACL))
    refused, admitted = fresh_source(), fresh_source()
    with site.airwatch.connect("seg_443", refused) as client:
        client.sendall(_hello(HOSTS["seg_443"]))
        assert client.recv(1) == b""
    site.agent.script = acknowledging(allow(ACL))
    server = site.airwatch.server("seg_443", admitted)
    no = r" seg_443 seg_443/<NOSRV> .* acl=airwatch class=denied reason=blocked error=-"
    yes = rf" seg_443 seg_443/{server} .* acl=airwatch class=allow reason=ok error=-"
    for source, line in ((refused, no), (admitted, yes)):
        pattern = re.compile(rf"^(?:::ffff:)?{source}:\d+ .*{line}$", re.MULTILINE)
        eventually(lambda it=pattern: it.search(site.airwatch.log()), f"the line of {source}")
