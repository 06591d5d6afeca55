"""haproxy/examples/airwatch.cfg: how HAProxy finds out whether a server is well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.airwatch_site import Site, checked_site, running_site
from tests.support.airwatch import HOSTS
from tests.support.authority import make_authority


@pytest.fixture(scope="module")
def site(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with checked_site(haproxy_binary, tmp_path_factory.mktemp("site")) as site:
        yield site


def test_the_check_of_443_is_a_head_over_tls(site: Site) -> None:
    """Checks ask for / of HTTP/1.1 by HEAD, with the name of the service in Host and in SNI."""
    for listener, host in HOSTS.items():
        for gateway in site.gateways[listener]:
            first, *headers = gateway.heads[0]
            assert first == "HEAD / HTTP/1.1"
            assert [it for it in headers if it.lower().startswith("host:")] == [f"host: {host}"]
            assert set(gateway.asked_for) == {host}
        assert site.airwatch.stats(listener, "BACKEND")["check_status"] == ""
        name = site.gateways[listener][0].name
        assert site.airwatch.stats(listener, name)["check_status"] == "L7OK"


def test_the_check_elsewhere_is_a_connection(site: Site) -> None:
    """At 2010 and 2020 a check is content with a port that answers, and says nothing."""
    for gateway in site.gateways["mag_2010"]:
        assert gateway.heads == gateway.heard == []
        assert site.airwatch.stats("mag_2010", gateway.name)["check_status"] == "L4OK"


@pytest.mark.parametrize("flaw", ["another's name", "another's CA"])
def test_a_certificate_must_be_the_servers(haproxy_binary: Path, tmp_path: Path, flaw: str) -> None:
    """A server with a certificate of another name or CA is down, unless checks are to take any."""
    (tmp_path / "others").mkdir()
    (tmp_path / "lax").mkdir()
    others = make_authority(tmp_path / "others")
    files = others.issue("flawed", "DNS:airwatchmag.domain.com", "DNS:airwatchseg.domain.com")
    settings = {}
    if flaw == "another's name":
        files = others.issue("flawed", "DNS:airwatch.domain.com", "IP:127.0.0.1")
        settings = {"KAT_CA": str(others.ca_file)}
    with running_site(haproxy_binary, tmp_path, files, **settings) as site:
        for listener in HOSTS:
            for gateway in site.gateways[listener]:
                site.airwatch.await_status(listener, gateway.name, "DOWN")
                assert site.airwatch.stats(listener, gateway.name)["check_status"] == "L6RSP"
                assert gateway.heads == []
    settings["KAT_CHECK_UNVERIFIED"] = "yes"
    with running_site(haproxy_binary, tmp_path / "lax", files, **settings) as site:
        for listener in HOSTS:
            site.airwatch.await_checked(listener)
