"""A machine with what docs/host.md installs, and the page itself."""

import re
from collections.abc import Iterator

import pytest

from tests.host.machine import ROOT, Machine, running_machine

CONFIG = """\
state_dir = "/var/lib/kat"
run_dir = "/run/kat"

[listen]
group = "haproxy"
spop = ["unix:/run/kat/spoa.sock", "tunnel:/run/kat/tunnel.sock"]

[acl.wiki]
mode = "strict"

[acl.vpn]
mode = "ip"

[allowlist.edge1]
runtime = "unix:/run/haproxy/kat.sock"
acl = { vpn = ["#500"] }
heartbeat = "kat_alive"
"""

# Beside the gate of haproxy.cfg, which stands in a file of its own: what `kat allowlist` writes to.
BESIDE = """\
backend kat_alive
    stick-table type string len 64 size 1k expire 30s store gpc0
frontend addresses
    mode http
    bind 127.0.0.1:8081
    acl granted src -u 500
    http-request return status 200 if granted { str(vpn),in_table(kat_alive) }
    http-request return status 403
"""

# HAProxy's own unit reads it. KAT_APP is the page that the test's application serves.
ENVIRONMENT = """\
KAT_USER=haproxy
KAT_GROUP=haproxy
KAT_HOSTS=wiki.example.org
KAT_ACL=wiki
KAT_APP=127.0.0.1:8000
KAT_AGENT=unix@/run/kat/spoa.sock
KAT_RUNTIME=/run/haproxy/kat.sock
KAT_RUNTIME_GROUP=kat-runtime
CONFIG="/etc/haproxy/haproxy.cfg -f /etc/haproxy/beside.cfg"
"""


def commands_of(heading: str, page: str = "docs/host.md") -> list[str]:
    """Return the shell blocks of one section."""
    text = (ROOT / page).read_text()
    section = re.split(r"(?m)^## ", text.split(f"\n## {heading}\n")[1])[0]
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", section)
    assert blocks, f"{page} has no commands under {heading!r}"
    return blocks


def status(machine: Machine, *arguments: str) -> str:
    """Ask HAProxy, and return the status of its answer."""
    ask = ("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}")
    host = ("--header", "Host: wiki.example.org")
    return machine.run(*ask, *host, *arguments, "http://127.0.0.1:8080/").stdout


def token(machine: Machine) -> str:
    issue = ("/opt/kat/bin/kat", "issue", "--acl", "wiki", "--user", "user1", "--ttl", "60")
    return machine.do("runuser", "-u", "kat", "--", *issue)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give a machine after "Install": agent, HAProxy, `kat allowlist` and an application run."""
    with running_machine(tmp_path_factory.mktemp("machine")) as machine:
        files, agent, allowlist = commands_of("Install")
        machine.follow(files)
        machine.write("/etc/kat/kat.toml", CONFIG)
        machine.follow(agent)
        _serve_application(machine)
        machine.follow("cp haproxy/haproxy.cfg haproxy/kat.spoe.conf /etc/haproxy/")
        machine.follow("cp -r haproxy/errors/. /etc/haproxy/errors/")
        machine.write("/etc/haproxy/beside.cfg", BESIDE)
        machine.write("/etc/default/haproxy", ENVIRONMENT)
        # As at boot, where HAProxy's own package has its folder made.
        machine.do("systemd-tmpfiles", "--create", "haproxy.conf")
        machine.follow(allowlist)
        yield machine


def _serve_application(machine: Machine) -> None:
    machine.do("mkdir", "/srv/app")
    machine.write("/srv/app/index.html", "the application\n")
    serve = ("/opt/kat/bin/python", "-m", "http.server", "--bind", "127.0.0.1", "8000")
    machine.do("systemd-run", "--unit=app", "--working-directory=/srv/app", *serve)
