"""docs/tproxy.md and airwatch.cfg with KAT_TPROXY, in a network of the tests' own.

Addresses are real ones here, so `kat grant` and `kat block` are, too.
"""

import os
import pwd
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scene import Agent
from tests.e2e.tproxy_scene import ACL, PORT, await_open, grant, settings_of
from tests.support.airwatch import LISTENERS
from tests.support.allowlist import keeping
from tests.support.eventually import eventually
from tests.support.haproxy import tell
from tests.support.network import FAMILIES, RULES, Family, Network, commands, running_network

CAP_NET_BIND_SERVICE, CAP_NET_RAW = 1 << 10, 1 << 13


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    """Give a real agent, where HAProxy may reach it as a user of root's group, too."""
    with tempfile.TemporaryDirectory(prefix="kat-") as folder:
        Path(folder).chmod(0o750)
        agent = Agent(Path(folder), {"KAT_ACL__AIRWATCH__MODE": "ip", "KAT_LISTEN__GROUP": "root"})
        yield agent
        agent.stop()


@pytest.fixture(scope="module")
def _network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running_network(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def network(_network: Network) -> Iterator[Network]:
    """Give the network as the page sets it up; afterwards it is as before, as the page says."""
    before = _set_up(_network)
    for command in commands("Switch it on"):
        _network.proxy.run(*(str(RULES) if word.endswith(".nft") else word for word in command))
    assert _set_up(_network) != before
    yield _network
    for command in commands("Undo it"):
        _network.proxy.run(*command)
    assert _set_up(_network) == before


def _set_up(network: Network) -> list[str]:
    """Return what filters and routes on HAProxy's machine, but what the kernel does by itself."""
    looks = ("nft list ruleset", "ip rule", "ip -6 rule")
    routes = ("ip route show table all", "ip -6 route show table all")
    said = [network.proxy.run(*look.split()) for look in (*looks, *routes)]
    return [line for it in said for line in it.splitlines() if "proto kernel" not in line]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, agent: Agent) -> Family:
    """Give a family of addresses of which nothing is granted or blocked."""
    agent.client.flushdb()
    return FAMILIES[request.param]


def test_the_server_sees_the_client(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path
) -> None:
    """A granted client meets a server, which sees the client's address; so do agent and log."""
    grant(agent, family.client)
    with network.haproxy(haproxy_binary, family, settings_of(agent, family)):
        server, seen, *_ = await_open(network, family)
        assert server in {"mag1", "mag2"}
        assert seen == family.client
        assert network.knock(family.other_client, family.mag, PORT) == []
        for address, reason in ((family.client, "grant"), (family.other_client, "no_grant")):
            eventually(
                lambda it=address, why=reason: any(
                    f"reason={why} " in line for line in network.log_lines(it)
                ),
                f"the line of {address}",
            )


def test_each_client_is_seen_as_itself_by_servers_that_are_well(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path
) -> None:
    """Both clients have their own address at the servers, and checks, from HAProxy's, are well."""
    settings = settings_of(agent, family, KAT_CHECK_EVERY="400ms")
    with network.haproxy(haproxy_binary, family, settings):
        for address in (family.client, family.other_client):
            grant(agent, address)
            _, seen, *_ = eventually(
                lambda it=address: network.knock(it, family.mag, PORT), f"{address} is let in"
            )
            assert seen == address
        for server in ("mag1", "mag2"):
            eventually(lambda it=server: _is_well(network, it), f"{server} was checked")


def _is_well(network: Network, server: str) -> bool:
    _, page = network.page("127.0.0.1:8008/stats;csv")
    return bool(re.search(rf"^mag_{PORT},{server},.*,UP,.*,L4OK,", page, re.MULTILINE))


def test_every_family_has_its_servers_remembered(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path, tmp_path: Path
) -> None:
    """Whose address it is, IPv4 or IPv6, the table knows which server the client met."""
    grant(agent, family.client)
    settings = settings_of(agent, family, KAT_RUNTIME=f"{tmp_path}/haproxy.sock")
    with network.haproxy(haproxy_binary, family, settings):
        server, *_ = await_open(network, family)
        table = tell(tmp_path / "haproxy.sock", f"show table mag_{PORT}")
        (line,) = re.findall(r"key=.*$", table, re.MULTILINE)
        assert re.match(rf"key=(?:::ffff:)?{family.client} .*server_key={server}$", line)


def test_without_it_the_server_sees_haproxy(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path
) -> None:
    """Without KAT_TPROXY the agent judges the same address, and the server sees HAProxy's."""
    grant(agent, family.client)
    settings = settings_of(agent, family)
    del settings["KAT_TPROXY"]
    with network.haproxy(haproxy_binary, family, settings):
        _, seen, *_ = await_open(network, family)
        assert seen in {"198.51.100.1", "2001:db8:2::1"}
        assert network.knock(family.other_client, family.mag, PORT) == []


def test_a_compromised_device_is_found_and_blocked(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path
) -> None:
    """From an address in a server's log to its user, and to a closed door within a second."""
    grant(agent, family.client)
    grant(agent, family.other_client, user="bob")
    with network.haproxy(haproxy_binary, family, settings_of(agent, family)):
        _, seen, *_ = await_open(network, family)
        found = agent.command("audit", "--ip", seen)
        assert "alice" in found
        assert "bob" not in found
        agent.command("block", seen, "--for", "1d")
        # What was blocked before it connects is refused: it takes no second at all.
        assert network.knock(family.client, family.mag, PORT) == []
        assert network.knock(family.other_client, family.mag, PORT) != []
        eventually(
            lambda: any("reason=blocked " in it for it in network.log_lines(family.client)),
            "the line of the blocked one",
        )
        agent.command("block", seen, "--lift")
        assert network.knock(family.client, family.mag, PORT) != []


def test_what_a_blocked_device_has_open_is_ended(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path, tmp_path: Path
) -> None:
    """A block ends a device's connections within a second, and a grant's end those of its own."""
    for address, user in ((family.client, "alice"), (family.other_client, "bob")):
        grant(agent, address, user)
    runtime = tmp_path / "haproxy.sock"
    settings = settings_of(agent, family, KAT_RUNTIME=str(runtime))
    store = agent.socket.parents[1] / "state" / "redis" / "redis.sock"
    edge = {"runtime": f"unix:{runtime}", "heartbeat": "", "shut": {ACL: list(LISTENERS)}}
    with (
        network.haproxy(haproxy_binary, family, settings),
        keeping(tmp_path, f"unix://{store}", {"edge1": edge}) as allowlist,
    ):
        allowlist.told("msg=keeping")
        await_open(network, family)
        with (
            network.staying(family.client, family.mag, PORT) as blocked,
            network.staying(family.other_client, family.mag, PORT) as other,
        ):
            assert blocked.readline()
            assert other.readline()
            agent.command("block", family.client, "--for", "1d")
            since = time.monotonic()
            assert blocked.readline() == b"ended\n"
            assert time.monotonic() - since < 1.0
            agent.command("revoke", "--user", "bob")
            assert other.readline() == b"ended\n"


def test_haproxy_gives_root_up(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path
) -> None:
    """With KAT_USER it is nobody, with one capability left; 2.6 cannot, says so and ends."""
    _be_root()
    grant(agent, family.client)
    settings = settings_of(agent, family, KAT_USER="nobody", KAT_GROUP="root")
    if _is_2_6(haproxy_binary):
        with (
            pytest.raises(AssertionError, match=r"so global\.uid cannot be changed"),
            network.haproxy(haproxy_binary, family, settings),
        ):
            pass
        return
    with network.haproxy(haproxy_binary, family, settings) as process:
        _, seen, *_ = await_open(network, family)
        assert seen == family.client
        _assert_plain(network.proxy.status(process), CAP_NET_RAW)


def test_haproxy_may_start_as_a_plain_user(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path
) -> None:
    """Whoever starts it with AmbientCapabilities of systemd has no use for root, on 2.6 either."""
    _be_root()
    grant(agent, family.client)
    user = ("setpriv", "--reuid", "nobody", "--regid", "root", "--clear-groups")
    caps = "+net_raw,+net_bind_service"
    drop = (*user, "--inh-caps", caps, "--ambient-caps", caps)
    settings = settings_of(agent, family)
    with network.haproxy(haproxy_binary, family, settings, *drop) as process:
        _, seen, *_ = await_open(network, family)
        assert seen == family.client
        _assert_plain(network.proxy.status(process), CAP_NET_RAW | CAP_NET_BIND_SERVICE)


def _be_root() -> None:
    assert os.geteuid() == 0, "this test needs root: it has HAProxy become somebody else"


def _is_2_6(binary: Path) -> bool:
    return "/2.6/" in str(binary)


def _assert_plain(status: str, capabilities: int) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    assert re.search(rf"^Uid:\t{nobody}\t{nobody}\t{nobody}\t{nobody}$", status, re.MULTILINE)
    for kind in ("Prm", "Eff"):
        (held,) = re.findall(rf"^Cap{kind}:\t([0-9a-f]+)$", status, re.MULTILINE)
        assert int(held, 16) == capabilities, kind


def test_statistics_are_for_this_machine_alone(
    network: Network, agent: Agent, family: Family, haproxy_binary: Path
) -> None:
    """Without a password the page answers nobody from elsewhere, though it listens everywhere."""
    settings = settings_of(agent, family, KAT_STATS=f"{family.any.replace('0.0.0.0', '*')}:8008")
    here, there = f"{family.loopback}:8008/stats", f"{family.mag_place}:8008/stats"
    with network.haproxy(haproxy_binary, family, settings):
        assert network.page(here)[0] == 200
        assert network.page(there, network.clients)[0] == 403
    settings |= {"KAT_STATS_AUTH": "ops:4d0ee0f2c7d04d21"}
    with network.haproxy(haproxy_binary, family, settings):
        assert network.page(there, network.clients)[0] == 401
