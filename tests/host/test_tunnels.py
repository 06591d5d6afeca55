"""The units of spiped, both ends of a tunnel on one machine."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.host.conftest import ENVIRONMENT, commands_of, status, token
from tests.host.machine import Machine
from tests.support.eventually import eventually


@contextlib.contextmanager
def tunnel(machine: Machine, kind: str, port: int, to: str) -> Iterator[str]:
    """Do as the page says for one end, as its table for the other. Gives the entry."""
    (near,) = commands_of("Tunnels")
    near = near.replace("[192.0.2.20]:9110", f"[127.0.0.1]:{port}")
    near = near.replace("kat-spop-tunnel", kind)
    machine.follow(near)
    machine.do("cp", "/etc/kat/tunnel/edge1.key", "/etc/kat/tunnel/far.key")
    machine.write("/etc/kat/tunnel/far.conf", f"WAY=-d\nFROM=[0.0.0.0]:{port}\nTO={to}\n")
    machine.do("systemctl", "start", f"{kind}@far")
    socket = "/run/kat-tunnel/edge1/socket"
    eventually(lambda: machine.run("test", "-S", socket).returncode == 0, "the tunnel's socket")
    try:
        yield socket
    finally:
        machine.do("systemctl", "disable", "--now", f"{kind}@edge1", f"{kind}@far")
        machine.do("rm", "-r", "/etc/kat/tunnel")


def test_haproxy_asks_the_agent_through_a_tunnel(machine: Machine) -> None:
    """With no other way to the agent, tokens are consumed; without the tunnel, 503."""
    with tunnel(machine, "kat-spop-tunnel", 9110, "/run/kat/tunnel.sock") as socket:
        machine.write(
            "/etc/default/haproxy",
            ENVIRONMENT.replace("unix@/run/kat/spoa.sock", f"unix@{socket}"),
        )
        try:
            machine.do("systemctl", "restart", "haproxy")
            # HAProxy's health check goes through the tunnel, too.
            eventually(lambda: status(machine) == "403", "the agent's answer")
            header = f"X-KAT: {token(machine)}"
            assert status(machine, "--header", header) == "200"
            assert status(machine, "--header", header) == "403"
            machine.do("systemctl", "stop", "kat-spop-tunnel@far")
            eventually(lambda: status(machine) == "503", "an answer without the tunnel")
        finally:
            machine.write("/etc/default/haproxy", ENVIRONMENT)
            machine.do("systemctl", "restart", "haproxy")
    eventually(lambda: status(machine) == "403", "the agent's answer")


def test_the_runtime_api_is_reached_through_a_tunnel(machine: Machine) -> None:
    """Who is in group kat-runtime reaches HAProxy by it as an admin."""
    with tunnel(machine, "kat-runtime-tunnel", 9120, "/run/haproxy/kat.sock") as socket:
        become = ("setpriv", "--reuid", "kat", "--regid", "kat", "--groups", "kat-runtime")
        ask = (*become, "socat", "-t", "5", "-", f"UNIX-CONNECT:{socket}")
        eventually(
            lambda: "admin" in machine.run(*ask, stdin="show cli level\n").stdout,
            "an answer through both ends",
        )


@pytest.mark.parametrize(
    ("kind", "group"), [("kat-spop-tunnel", "haproxy"), ("kat-runtime-tunnel", "kat-runtime")]
)
def test_the_socket_of_a_tunnel_is_for_one_group(machine: Machine, kind: str, group: str) -> None:
    """The entry is as closed as the socket at the other end."""
    with tunnel(machine, kind, 9130, "/nowhere") as socket:
        assert machine.do("stat", "--format", "%G %a", socket) == f"{group} 660"
        folder = machine.do("stat", "--format", "%G %a", "/run/kat-tunnel/edge1")
        assert folder == f"{group} 750"
        become = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
        refused = machine.run(*become, "socat", "-u", "OPEN:/dev/null", f"UNIX-CONNECT:{socket}")
        assert "Permission denied" in refused.stderr


def test_a_tunnel_runs_as_a_user_of_its_own(machine: Machine) -> None:
    """Neither root nor kat, in the one group, and its key is in a file that only it can read."""
    with tunnel(machine, "kat-spop-tunnel", 9131, "/nowhere"):
        pid = machine.property("kat-spop-tunnel@far", "MainPID")
        found = machine.do("ps", "-ww", "-o", "uid=,group=,args=", pid).split(maxsplit=2)
        assert found[0] not in {"0", machine.do("id", "-u", "kat")}
        assert found[1] == "haproxy"
        key = f"/proc/{pid}/root{found[2].split(' -k ')[1]}"
        assert machine.do("stat", "--format", "%u %a", key) == f"{found[0]} 400"
        assert machine.do("stat", "--format", "%U %a", "/etc/kat/tunnel/far.key") == "root 600"
