"""haproxy/examples/airwatch.cfg as it is written, and the pages about it."""

import re
from pathlib import Path

import pytest

from haproxy import CONFIGURATION
from tests.support.airwatch import EXAMPLE, LISTENERS, complaints
from tests.support.haproxy import ROOT

LOCALHOST_PEM = Path(__file__).with_name("localhost.pem")

SETTINGS: dict[str, dict[str, str]] = {
    "none": {},
    "everything": {
        "KAT_BACKUP_CERT": str(LOCALHOST_PEM),
        "KAT_CHECK_UNVERIFIED": "yes",
        "KAT_KEEP": "yes",
        "KAT_TPROXY": "0.0.0.0",
        "KAT_USER": "nobody",
        "KAT_STATS_AUTH": "u:p",
        "KAT_AGENT_2": "127.0.0.1:9100",
        "KAT_LOG": "127.0.0.1:514",
        "KAT_RUNTIME": "/nowhere/kat.sock",
    },
    "IPv6": {"KAT_TPROXY": "[::]", "KAT_MAG_1": "[2001:db8::1]", "KAT_MAG_443": "[::1]:443"},
    "a backup elsewhere": {"KAT_BACKUP": "192.0.2.1:443"},
}


def test_haproxy_accepts_the_example_without_a_warning(haproxy_binary: Path) -> None:
    """By itself, with any settings, the example makes no HAProxy say a word."""
    for name, settings in SETTINGS.items():
        assert complaints(haproxy_binary, settings) == "", name


def test_every_setting_of_the_example_is_listed() -> None:
    """The head of the file names each variable that it reads, and kat.spoe.conf's, and no other."""
    head, _, body = EXAMPLE.read_text().partition("\nglobal\n")
    read = set(re.findall(r"(?:\$\{|defined\()(KAT_[A-Z_0-9]+)", body)) | {"KAT_PROCESSING"}
    assert set(re.findall(r"KAT_[A-Z_0-9]+", head)) == read


@pytest.mark.parametrize("page", ["airwatch.md", "tproxy.md"])
def test_the_pages_name_no_setting_that_is_none(page: str) -> None:
    """What docs/ tells to set is a setting that the file reads."""
    told = set(re.findall(r"KAT_[A-Z_0-9]+", (ROOT / "docs" / page).read_text()))
    assert told
    assert told <= set(re.findall(r"KAT_[A-Z_0-9]+", EXAMPLE.read_text()))


def test_the_gate_is_the_same_at_each_listener() -> None:
    """The rules differ in the name of the ACL alone, and in whether a ClientHello is waited for."""
    gates = {}
    for section in re.split(r"\n(?=listen )", EXAMPLE.read_text())[1:]:
        name = section.split()[1]
        rules = re.findall(r"^    ((?:tcp-request|acl|filter) .*)$", section, re.MULTILINE)
        gates[name] = [rule.replace("KAT_SEG", "KAT_MAG") for rule in rules]
    assert tuple(gates) == LISTENERS
    assert gates["mag_443"] == gates["seg_443"]
    assert gates["mag_2010"] == gates["mag_2020"]
    assert gates["mag_443"][3:] == gates["mag_2010"][2:]
    assert gates["mag_2010"][1] == "tcp-request inspect-delay 2s"


def test_the_agents_are_found_as_in_haproxy_cfg() -> None:
    """The last backend is that of haproxy.cfg, line by line."""
    backend = "backend kat_agents\n"
    shipped = CONFIGURATION.read_text().partition(backend)[2]
    assert EXAMPLE.read_text().partition(backend)[2] == shipped
    assert "server agent1" in shipped
