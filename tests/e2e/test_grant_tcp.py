"""haproxy/examples/grant-tcp.cfg: a TCP service that opens to granted addresses."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count
from pathlib import Path

import pytest

from haproxy import FILES
from spoa.spop.codec import encode_ack
from spoa.spop.value import Address
from tests.e2e.scene import PATIENCE, Agent, Stage, staged, until
from tests.support.haproxy import Haproxy, complaints, fresh_source, running
from tests.support.service import GREETING, Service
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
from tokens.record import Keys

EXAMPLE = FILES / "examples" / "grant-tcp.cfg"
ACL = b"ssh"

_LINES = count()

NO_ANSWERS: dict[str, Script] = {
    "a refusal": acknowledging(refuse(b"missing", b"no_grant", ACL)),
    "silence": saying(b""),
    "a closed connection": closing,
    "garbage": saying(GARBAGE),
    "an ACK without actions": acknowledging(b""),
    "an ACK that ends inside allow": acknowledging(allow(ACL)[:-1]),
    "an ACK for nobody": lambda _: encode_ack(b"\xef\xef", allow(ACL)),
    "a yes for another ACL": acknowledging(allow(b"demo")),
    "a yes for a longer ACL": acknowledging(allow(b"ssh2")),
    "a yes for no ACL": acknowledging(actions(**{"class": b"allow"}, allow=True)),
    "allow as a word": acknowledging(actions(**{"class": b"allow"}, acl=ACL, allow=b"yes")),
    "allow unset": acknowledging(actions(**{"class": b"allow"}, reason=b"grant", acl=ACL)),
    "a yes with an error": acknowledging(actions(acl=ACL, error=1, allow=True)),
}


def _settings(folder: Path, service: Service) -> dict[str, str]:
    return {
        "KAT_HTTP": f"unix@{folder}/web.sock",
        "KAT_TCP_APP": service.address,
        "KAT_TCP_ACL": ACL.decode(),
    }


@dataclass
class Door:
    """The example with a service behind it."""

    haproxy: Haproxy = field(repr=False)
    service: Service = field(repr=False)

    def opens(self, source: str | None = None) -> bool:
        """Connect and say something: either the service greets and hears it, or nobody does."""
        line = b"line %d\n" % next(_LINES)
        told = b""
        # Who is turned away may find the connection reset; who is left waiting is a TimeoutError.
        with suppress(ConnectionError), self.haproxy.connect(source) as client:
            client.sendall(line)
            while len(told) < len(GREETING + line) and (piece := client.recv(4096)):
                told += piece
        is_heard = line in self.service.heard
        assert told == (GREETING + line if is_heard else b"")
        return is_heard


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def _stage(
    haproxy_binary: Path, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("tcp")
    settings = _settings(folder, service)
    with staged(haproxy_binary, folder, EXAMPLE, listener="KAT_TCP", settings=settings) as stage:
        yield stage


@pytest.fixture
def stage(_stage: Stage) -> Stage:
    stage = _stage.renewed()
    stage.agent.script = acknowledging(allow(ACL))
    return stage


@pytest.fixture
def door(stage: Stage, service: Service) -> Door:
    """Return the door with a scripted agent, which says yes unless told otherwise."""
    return Door(stage.haproxy, service)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(tmp_path_factory.mktemp("agent"), {"KAT_ACL__SSH__MODE": "ip"})
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def real_door(
    haproxy_binary: Path,
    agent: Agent,
    service: Service,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Door]:
    """Open a door whose agent and Redis are real."""
    folder = tmp_path_factory.mktemp("real")
    settings = {
        **_settings(folder, service),
        "KAT_AGENT": f"unix@{agent.socket}",
        "KAT_PROCESSING": PATIENCE,
    }
    with running(haproxy_binary, folder, settings, EXAMPLE, listener="KAT_TCP") as haproxy:
        yield Door(haproxy, service)


def _grant(agent: Agent, member: str, for_s: float, acl: bytes = ACL) -> None:
    """Write a grant as the contract says; one of the past, too."""
    expires_ms = int((time.time() + for_s) * 1000)
    agent.client.zadd(Keys().grants(acl).decode(), {member: expires_ms})


def test_haproxy_accepts_the_example_without_a_warning(haproxy_binary: Path) -> None:
    """Behind haproxy.cfg the example makes no HAProxy say a word."""
    assert complaints(haproxy_binary, {}, EXAMPLE) == ""


def test_every_setting_of_the_example_is_listed() -> None:
    """The head of the file names each variable that it reads, and no other."""
    head, _, body = EXAMPLE.read_text().partition("\ndefaults ")
    read = set(re.findall(r"\$\{(KAT_[A-Z_0-9]+)", body)) - {"KAT_FILES"}
    assert set(re.findall(r"^# +(KAT_[A-Z_]+)", head, re.MULTILINE)) == read


def test_a_yes_opens_the_door(door: Door) -> None:
    """Who is admitted is connected, and what both sides say gets through."""
    assert door.opens()


def test_the_service_may_speak_first(door: Door) -> None:
    """A client that waits for the greeting gets it without having sent a byte."""
    with door.haproxy.connect() as client:
        assert client.recv(len(GREETING)) == GREETING


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_anything_but_a_yes_keeps_it_shut(stage: Stage, door: Door, case: str) -> None:
    """Without allow, this ACL and no error the connection ends, and the service hears nothing."""
    stage.agent.script = NO_ANSWERS[case]
    assert not door.opens()


def test_an_agent_that_is_gone_keeps_it_shut(stage: Stage, door: Door) -> None:
    """No agent, no way in; and the door opens again when the agent is back."""
    stage.agent.vanish()
    try:
        assert not door.opens()
    finally:
        stage.agent.listen()
    until(door.opens)


def test_the_agent_is_asked_for_the_address(stage: Stage, door: Door) -> None:
    """One message for each connection: the ACL, the client's address, an id, and the time."""
    source = fresh_source()
    door.opens(source)
    [notify] = stage.agent.notifies
    [message] = notify.messages
    assert message.name == b"check-tcp"
    assert set(message.args) == {b"acl", b"src", b"id", b"at"}
    assert message.args[b"acl"] == ACL
    assert message.args[b"src"] == Address(ip_address(source).packed)
    at_ms = message.args[b"at"]
    assert isinstance(at_ms, int)
    assert abs(time.time() * 1000 - at_ms) < 60_000


def test_each_connection_is_asked_for_alone(stage: Stage, door: Door) -> None:
    """A yes is for one connection: the next one from the same address is asked for again."""
    source = fresh_source()
    assert door.opens(source)
    stage.agent.script = acknowledging(refuse(b"missing", b"no_grant", ACL))
    assert not door.opens(source)
    assert len(stage.agent.notifies) == 2


def test_a_line_of_the_log_says_why(stage: Stage, door: Door) -> None:
    """Who was turned away stands in the log with the reason, though he never said a word."""
    stage.agent.script = acknowledging(refuse(b"missing", b"no_grant", ACL))
    source = fresh_source()
    with suppress(ConnectionError), door.haproxy.connect(source) as client:
        assert client.recv(1) == b""
    why = " acl=ssh class=missing reason=no_grant error=-"
    until(
        lambda: any(
            line.startswith(f"{source}:") and line.endswith(why)
            for line in stage.haproxy.log().splitlines()
        )
    )


def test_a_granted_address_may_connect(agent: Agent, real_door: Door) -> None:
    """The address of a living grant gets through, another one does not."""
    until(lambda: _is_open_to_a_granted(agent, real_door))
    assert not real_door.opens()


def _is_open_to_a_granted(agent: Agent, door: Door) -> bool:
    """Grant an address and connect from it: HAProxy may not yet have met the agent."""
    source = fresh_source()
    _grant(agent, source, 60)
    return door.opens(source)


def test_an_address_of_a_granted_network_may_connect(agent: Agent, real_door: Door) -> None:
    """A grant for a network serves every address in it."""
    until(lambda: _is_open_to_a_granted(agent, real_door))
    assert not real_door.opens("127.77.0.5")
    _grant(agent, "127.77.0.0/24", 60)
    try:
        assert real_door.opens("127.77.0.5")
        assert not real_door.opens("127.77.1.5")
    finally:
        agent.client.zrem(Keys().grants(ACL).decode(), "127.77.0.0/24")


def test_a_grant_that_is_over_opens_nothing(agent: Agent, real_door: Door) -> None:
    """The time of a grant counts, not that it is still listed; nor does one of another ACL."""
    until(lambda: _is_open_to_a_granted(agent, real_door))
    source = fresh_source()
    _grant(agent, source, -1)
    assert not real_door.opens(source)
    _grant(agent, source, 60, acl=b"demo")
    assert not real_door.opens(source)
    _grant(agent, source, 60)
    assert real_door.opens(source)
