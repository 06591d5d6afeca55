"""haproxy/examples/airwatch.cfg: which server a device gets, and what happens when one fails."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.e2e.airwatch_site import Site, checked_site
from tests.support.airwatch import HOSTS, LISTENERS, Device
from tests.support.authority import make_authority
from tests.support.eventually import eventually
from tests.support.gateways import Gateway
from tests.support.haproxy import Answer, fresh_source

TLS, TCP = "mag_443", "mag_2010"


@pytest.fixture
def site(haproxy_binary: Path, tmp_path: Path) -> Iterator[Site]:
    with checked_site(haproxy_binary, tmp_path) as site:
        yield site


def _fails(site: Site, listener: str, name: str) -> None:
    """Let checks find that a server is no more, though what is connected to it stays."""
    gateway = site.gateway(listener, name)
    if listener in HOSTS:
        gateway.is_ill = True
    else:
        gateway.refuse()
    site.airwatch.await_status(listener, name, "DOWN")


def _recovers(site: Site, listener: str, name: str) -> None:
    gateway = site.gateway(listener, name)
    if listener in HOSTS:
        gateway.is_ill = False
    else:
        gateway.listen_again()
    site.airwatch.await_status(listener, name, "UP")


def _other(name: str) -> str:
    return name[:-1] + ("2" if name.endswith("1") else "1")


def test_a_device_keeps_its_server(site: Site, haproxy_binary: Path) -> None:
    """200 connections of the same clients meet the same servers, and so do 200 after a reload."""
    for listener in LISTENERS:
        with ExitStack() as stack:
            sources = [*(fresh_source() for _ in range(7)), "::1"]
            met = [stack.enter_context(site.airwatch.device(listener, it)) for it in sources]
            before = {device.source: device.server for device in met}
        assert len(set(before.values())) == 2  # or persistence would be nothing to see
        assert _met_in_25(site, listener, sources) == {it: {before[it]} for it in sources}
        site.airwatch.reload()
        after = _met_in_25(site, listener, sources)
        assert {len(servers) for servers in after.values()} == {1}
        # Debian's 2.6.12 teaches the new process nothing, whatever the configuration.
        if "/2.6/" not in str(haproxy_binary):
            assert after == {it: {before[it]} for it in sources}


def _met_in_25(site: Site, listener: str, sources: list[str]) -> dict[str, set[str]]:
    """Connect 25 times from each address; tell which servers it met."""
    return {it: {site.airwatch.server(listener, it) for _ in range(25)} for it in sources}


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_one_device_two_hundred_times(site: Site, haproxy_binary: Path, family: str) -> None:
    """The same client meets the same server over 200 connections and two reloads."""
    source = "::1" if family == "IPv6" else fresh_source()
    first = site.airwatch.server(TLS, source)
    # The other one is now preferred by leastconn: who is forgotten gets it.
    with ExitStack() as stack:
        while stack.enter_context(site.airwatch.device(TLS)).server != first:
            pass
        met = [site.airwatch.server(TLS, source) for _ in range(100)]
    assert set(met) == {first}
    if "/2.6/" not in str(haproxy_binary):
        for _ in range(2):
            site.airwatch.reload()
            met += [site.airwatch.server(TLS, source) for _ in range(50)]
        assert met == [first] * 200


@pytest.mark.parametrize("listener", LISTENERS)
def test_the_server_with_fewer_connections_gets_the_next(site: Site, listener: str) -> None:
    """Devices that stay are spread evenly; and where some leave, the next ones go."""
    with ExitStack() as staying:
        leaving = staying.enter_context(ExitStack())
        first = _connected(staying, site, listener)
        others = [_connected(staying, site, listener) for _ in range(2)]
        for _ in range(3):
            _connected(leaving, site, listener)
        servers = (first.server, _other(first.server))
        assert [_connections(site, listener, it) for it in servers] == [3, 3]
        leaving.close()
        gone = {it: sum(1 for d in (first, *others) if d.server == it) for it in servers}
        eventually(
            lambda: [_connections(site, listener, it) for it in servers] == [*gone.values()],
            "HAProxy saw them leave",
        )
        for _ in range(3):
            _connected(staying, site, listener)
        assert [_connections(site, listener, it) for it in servers] == [3, 3]


def _connected(stack: ExitStack, site: Site, listener: str) -> Device:
    device = stack.enter_context(site.airwatch.device(listener))
    assert device.server
    return device


def _connections(site: Site, listener: str, server: str) -> int:
    return int(site.airwatch.stats(listener, server)["scur"])


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_failed_server_is_left_and_comes_back(site: Site, listener: str) -> None:
    """Devices of a failed server get the other one, and stay there when it is back."""
    source = fresh_source()
    first = site.airwatch.server(listener, source)
    _fails(site, listener, first)
    assert site.airwatch.server(listener, source) == _other(first)
    _recovers(site, listener, first)
    assert site.airwatch.server(listener, source) == _other(first)
    eventually(lambda: site.airwatch.server(listener) == first, "new devices get it again")


@pytest.mark.parametrize("listener", [TLS, TCP])
def test_connections_of_a_failed_server_are_ended(site: Site, listener: str) -> None:
    """When checks fail, what is connected to that server ends; what is at the other one goes on."""
    with ExitStack() as stack:
        device, other = (_connected(stack, site, listener) for _ in range(2))
        assert device.server == _other(other.server)
        server = device.server
        _fails(site, listener, server)
        assert _has_ended(device)
        assert other.server == _other(server)


@pytest.mark.parametrize("listener", [TLS, TCP])
def test_connections_are_kept_where_so_configured(
    haproxy_binary: Path, tmp_path: Path, listener: str
) -> None:
    """With KAT_KEEP what is connected goes on, though new connections get the other server."""
    with (
        checked_site(haproxy_binary, tmp_path, KAT_KEEP="yes") as site,
        site.airwatch.device(listener) as device,
    ):
        server = device.server
        _fails(site, listener, server)
        assert site.airwatch.server(listener, device.source) == _other(server)
        assert device.server == server


def _has_ended(device: Device) -> bool:
    try:
        return device.connection.recv(1) == b""
    except (ConnectionError, ssl.SSLEOFError):
        return True


def test_without_a_server_and_a_page_it_is_closed(site: Site) -> None:
    """When both servers fail, devices are admitted and find a closed connection."""
    for name in ("mag1", "mag2"):
        _fails(site, TCP, name)
    with site.airwatch.connect(TCP) as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize("listener", LISTENERS)
def test_the_last_resort_is_a_page(haproxy_binary: Path, tmp_path: Path, listener: str) -> None:
    """Without a server devices get a 503 over TLS, in the service's name, until one is back."""
    (tmp_path / "page").mkdir()
    authority = make_authority(tmp_path / "page")
    files = authority.issue("page", *(f"DNS:{host}" for host in HOSTS.values()))
    pem = tmp_path / "page.pem"
    pem.write_text(files.cert_file.read_text() + files.key_file.read_text())
    settings = {"KAT_BACKUP": f"unix@{tmp_path}/page.sock", "KAT_BACKUP_CERT": str(pem)}
    with checked_site(haproxy_binary, tmp_path, **settings) as site:
        source = fresh_source()
        first = site.airwatch.server(listener, source)
        for name in (_other(first), first):
            _fails(site, listener, name)
        site.airwatch.trusting.load_verify_locations(authority.ca_file)
        answer = _ask_for_a_page(site, listener, source)
        assert answer.status == 503
        assert answer.header("Retry-After") == "60"
        assert answer.header("Cache-Control") == "no-store"
        assert "Not available right now" in answer.body
        _recovers(site, listener, first)
        assert site.airwatch.server(listener, source) == first


def _ask_for_a_page(site: Site, listener: str, source: str) -> Answer:
    with site.airwatch.device(listener, source, is_tls=True) as device:
        device.connection.sendall(b"GET /some/page?secret HTTP/1.1\r\nHost: x\r\n\r\n")
        response = HTTPResponse(device.connection)
        response.begin()
        return Answer(response.status, response.getheaders(), response.read().decode())


def test_the_last_resort_may_be_a_server_of_yours(haproxy_binary: Path, tmp_path: Path) -> None:
    """KAT_BACKUP alone names a server that gets devices when no other is left."""
    with Gateway("backup") as backup:
        port = backup.listen("127.0.0.1")
        settings = {"KAT_BACKUP": f"127.0.0.1:{port}"}
        with checked_site(haproxy_binary, tmp_path, **settings) as site:
            source = fresh_source()
            assert site.airwatch.server(TCP, source) != "backup"
            for name in ("mag1", "mag2"):
                _fails(site, TCP, name)
            assert site.airwatch.server(TCP, source) == "backup"
