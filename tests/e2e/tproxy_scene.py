"""What the tests of TPROXY do again and again."""

from tests.e2e.scene import PATIENCE, Agent
from tests.support.eventually import eventually
from tests.support.network import Family, Network

ACL = "airwatch"
PORT = 2010


def settings_of(agent: Agent, family: Family, **more: str) -> dict[str, str]:
    return {
        "KAT_AGENT": f"unix@{agent.socket}",
        "KAT_PROCESSING": PATIENCE,
        "KAT_TPROXY": family.any,
        **more,
    }


def grant(agent: Agent, address: str, user: str = "alice") -> None:
    agent.command("grant", "--acl", ACL, "--user", user, address, "--for", "1h")


def await_open(network: Network, family: Family) -> list[str]:
    """Knock until HAProxy has met the agent; return the answer."""
    return eventually(lambda: network.knock(family.client, family.mag, PORT), "it opens")
