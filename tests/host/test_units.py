"""The units of host/systemd, as systemd reads them. Whether they run: test_running.py."""

import re
from pathlib import Path

import pytest

from tests.host.machine import ROOT, Machine

UNITS = sorted((ROOT / "host/systemd").glob("*.service"))
TUNNELS = [unit for unit in UNITS if "@" in unit.name]

# What each of them is refused. What a unit says otherwise needs a reason, there and here.
FORBIDDEN = {
    "NoNewPrivileges": "true",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "true",
    "PrivateTmp": "true",
    "PrivateDevices": "true",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "ProtectClock": "true",
    "ProtectControlGroups": "true",
    "ProtectHostname": "true",
    "ProtectKernelLogs": "true",
    "ProtectKernelModules": "true",
    "ProtectKernelTunables": "true",
    "KeyringMode": "private",
    "RemoveIPC": "true",
    "LockPersonality": "true",
    "MemoryDenyWriteExecute": "true",
    "RestrictNamespaces": "true",
    "RestrictRealtime": "true",
    "RestrictSUIDSGID": "true",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "LimitCORE": "0",
}


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say_about_a_unit(machine: Machine, unit: Path) -> None:
    """`systemd-analyze verify` is silent, programs and documentation included."""
    done = machine.run("systemd-analyze", "verify", f"/etc/systemd/system/{unit.name}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("broken", ["ProtectSytem=strict", "SystemCallFilter=@no-such"])
def test_systemd_would_say_so_of_a_broken_one(machine: Machine, broken: str) -> None:
    """A setting that systemd does not know is not passed over in silence."""
    text = (ROOT / "host/systemd/kat.service").read_text()
    machine.write("/run/broken.service", text.replace("[Install]", f"{broken}\n[Install]"))
    assert machine.run("systemd-analyze", "verify", "/run/broken.service").stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_forbids_all_that_it_does_not_need(unit: Path) -> None:
    """Each setting of the list is said, once."""
    said = settings(unit)
    assert {name: said.get(name) for name in FORBIDDEN} == {
        name: [value] for name, value in FORBIDDEN.items()
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_page_is_honest_about_exposure(machine: Machine, unit: Path) -> None:
    """docs/host.md says the number that systemd-analyze says."""
    page = (ROOT / "docs/host.md").read_text()
    said = re.search(rf"(?m)^\| `{re.escape(unit.name)}` \| ([0-9.]+) \|", page)
    analyze = ("systemd-analyze", "security", "--offline=yes", "--no-pager")
    found = machine.do(*analyze, f"/etc/systemd/system/{unit.name}").splitlines()[-1]
    assert said is not None
    assert f": {said[1]} " in found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_comes_back_and_takes_nobody_with_it(unit: Path) -> None:
    """It is always started again, and neither requires others nor is bound to them."""
    said = settings(unit)
    assert said["Restart"] == ["always"]
    assert said["StartLimitIntervalSec"] == ["0"]
    assert not {"Requires", "BindsTo", "PartOf", "Requisite"} & said.keys()


@pytest.mark.parametrize("unit", TUNNELS, ids=lambda unit: unit.name)
def test_the_key_of_a_tunnel_is_in_no_argument_and_no_environment(unit: Path) -> None:
    """Of the key, only the name of the file that systemd made of it is passed on."""
    said = settings(unit)
    (start,) = said["ExecStart"]
    assert start.endswith("-k ${CREDENTIALS_DIRECTORY}/key")
    assert said["LoadCredential"] == ["key:/etc/kat/tunnel/%i.key"]
