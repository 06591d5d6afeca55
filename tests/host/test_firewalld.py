"""The files of host/firewalld, judged by firewalld itself and held against what listens."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.host.conftest import commands_of
from tests.host.machine import ROOT

HOST = ROOT / "host/firewalld"
SERVICES = sorted((HOST / "services").glob("*.xml"))
ZONES = sorted((HOST / "zones").glob("*.xml"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an /etc/firewalld of the test's own, with our files in it."""
    etc = tmp_path / "firewalld"
    shutil.copytree(HOST, etc)
    # firewalld's own; without one it complains of that.
    shutil.copy("/etc/firewalld/firewalld.conf", etc)
    return etc


def offline(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["firewall-offline-cmd", "--system-config", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def check(folder: Path) -> "subprocess.CompletedProcess[str]":
    return offline(folder, "--check-config")


def ports(service: Path) -> set[tuple[str, str]]:
    return {
        (port.attrib["protocol"], port.attrib["port"])
        for port in ET.parse(service).getroot().iter("port")
    }


def test_firewalld_finds_nothing_wrong(folder: Path) -> None:
    """All services and zones together pass firewalld's own check, in silence."""
    done = check(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in {"", "success"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('protocol="tcp"', 'protocl="tcp"'),
        ('port="443"', 'port="44300000"'),
        ("</service>", ""),
        ('<port protocol="tcp" port="443"/>', '<prt protocol="tcp" port="443"/>'),
    ],
)
def test_firewalld_finds_what_is_wrong_in_a_service(folder: Path, right: str, wrong: str) -> None:
    """The check is one: a broken service fails it."""
    service = folder / "services/kat-web.xml"
    assert right in service.read_text()
    service.write_text(service.read_text().replace(right, wrong))
    assert check(folder).returncode != 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('<service name="kat-spop-tls"/>', '<service name="kat-spop-tsl"/>'),
        ('address="192.0.2.10"', 'address="192.0.2.1000"'),
        ("%%REJECT%%", "REJECTED"),
    ],
)
def test_firewalld_finds_what_is_wrong_in_the_zone(folder: Path, right: str, wrong: str) -> None:
    """A zone that names a service that is not there, or no address, fails."""
    zone = folder / "zones/kat-haproxy.xml"
    assert right in zone.read_text()
    zone.write_text(zone.read_text().replace(right, wrong))
    assert check(folder).returncode != 0


def test_the_page_lists_exactly_the_ports() -> None:
    """The table of docs/host.md has each service with its ports, and each file is in the table."""
    page = (ROOT / "docs/host.md").read_text()
    rows = re.findall(r"(?m)^\| `(kat-[a-z-]+)` \| ([0-9, ]+) \|", page)
    table = {name: {("tcp", port) for port in numbers.split(", ")} for name, numbers in rows}
    assert table == {service.stem: ports(service) for service in SERVICES}


def listeners(example: str) -> set[tuple[str, str]]:
    """Return the ports at which an example listens by default, for others than its own machine."""
    text = (ROOT / "haproxy/examples" / example).read_text()
    addresses = re.findall(r'(?m)^ *bind "\$\{\w+-(\S*:[0-9]+)\}"', text)
    assert addresses
    return {("tcp", at.rpartition(":")[2]) for at in addresses if not at.startswith("127.")}


@pytest.mark.parametrize(
    ("example", "services"),
    [
        ("airwatch.cfg", ("kat-airwatch-mag", "kat-airwatch-seg")),
        ("confluence.cfg", ("kat-web",)),
    ],
)
def test_the_services_are_what_the_examples_listen_at(
    example: str, services: tuple[str, ...]
) -> None:
    """Each port of an example is in its service, and a service has no other."""
    opened = {port for name in services for port in ports(HOST / f"services/{name}.xml")}
    assert opened == listeners(example)


def test_a_web_application_gets_the_default_ports_of_http(folder: Path) -> None:
    """Port 80 and 443 by kat-web, and nothing else is opened by what the page says."""
    offline(folder, "--zone=public", "--add-service=kat-web")
    listed = offline(folder, "--zone=public", "--list-services").stdout.split()
    assert "kat-web" in listed
    assert not [name for name in listed if name.startswith("kat-") and name != "kat-web"]


def test_the_rich_rule_is_one(folder: Path) -> None:
    """It takes the rule of the page, word by word, and holds it afterwards."""
    rule_block = commands_of("firewalld")[1]
    rule = re.search(r"--add-rich-rule='(.*)'", rule_block)
    assert rule is not None
    assert offline(folder, "--zone=public", f"--add-rich-rule={rule[1]}").returncode == 0
    held = offline(folder, "--zone=public", "--list-rich-rules").stdout
    assert 'source address="192.0.2.10"' in held
    assert check(folder).returncode == 0


def test_only_haproxys_address_is_in_the_zone() -> None:
    """The zone opens one service, for its source address alone, and refuses all else."""
    (zone,) = ZONES
    root = ET.parse(zone).getroot()
    assert root.attrib == {"target": "%%REJECT%%"}
    assert [source.attrib for source in root.iter("source")] == [{"address": "192.0.2.10"}]
    assert [service.attrib for service in root.iter("service")] == [{"name": "kat-spop-tls"}]
    assert not [*root.iter("port"), *root.iter("interface"), *root.iter("rule")]
