"""Record what real HAProxy says to an agent: python -m tests.support.record_vectors HAPROXY...

Each HAPROXY is a binary. For each of its scenarios one file is written anew to
tests/spop/vectors/<version>/. The agent is built on `schema`, not on the code that the vectors
will judge.
"""
# ruff: noqa: T201 - a command prints

import argparse
import asyncio
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.recording_agent import Behaviour, agent_hello
from tests.support.recording_site import Engine, Site, running_site
from tests.support.vectors import DIRECTORY

DEADLINE_S = 10

PIPELINED = 20
"""As many as HAProxy keeps in flight on one connection."""

# Shaped like a token, so that tests see it hidden; its checksum is wrong and it opens nothing.
EXAMPLE_TOKEN = "kat_ThisOnlyLooksLikeATokenInAVector000000"
EXAMPLE_SESSION = "ThisOnlyLooksLikeASessionCookie000000000000"

_GATE = (
    f"acl=str(demo) token=str({EXAMPLE_TOKEN}) via=str(header) session=str({EXAMPLE_SESSION}) "
    "nonce=var(txn.never_set) src=src host=req.hdr(host) method=method path=path id=unique-id "
    "at=date(0,ms)"
)
_EVERY_TYPE = (
    "null=var(txn.never_set) yes=bool(true) no=bool(false) zero=int(0) small=int(239) "
    "two=int(240) big=int(4328786160) negative=int(-1) v4=ipv4(192.0.2.7) v6=ipv6(2001:db8::7) "
    "text=str(demo) binary=bin(00ff8041) long=req.hdr(x-long) src twice=int(1) twice=int(2)"
)


@dataclass(frozen=True)
class Scenario:
    """What the agent does, how HAProxy is told to behave, and what then happens."""

    about: str
    act: Callable[[Site], Awaitable[str]]
    agent: Behaviour = field(default_factory=Behaviour)
    engine: Engine = field(default_factory=lambda: Engine(_GATE))


async def _one_request(site: Site) -> str:
    answer = await site.request("/first?a=b", long_header=300)
    assert answer == "200  seen 1 4328786160 -7 192.0.2.9 2001:db8::9 ", answer
    return answer


async def _pipeline(site: Site) -> str:
    await site.request("/warm")  # 3.1+ shares a connection only once it has served
    site.agents[0].answer_after = PIPELINED
    await asyncio.gather(*(site.request(f"/{number}") for number in range(PIPELINED)))
    return f"{max(agent.most_held for agent in site.agents)} in flight"


async def _request_and_close(site: Site) -> str:
    return f"{await site.request()}, {await site.first_close()}"


async def _big_request(site: Site) -> str:
    return await site.request(long_header=600)


async def _too_big_request(site: Site) -> str:
    answer = await site.request(long_header=600)
    # 3.1+ knows before it connects.
    return f"{answer}, {await site.first_close()}" if site.agents else answer


async def _soft_stop(site: Site) -> str:
    await site.request()
    site.process.send_signal(signal.SIGUSR1)
    return await site.first_close()


async def _late_answer(site: Site) -> str:
    return f"{await site.request('/in-vain')}, {await site.request('/answered')}"


_BIG = Engine(_EVERY_TYPE, sends_fragments=True, max_frame_size=256, processing="300ms")

# A HELLO that it refuses makes HAProxy up to 3.0 connect again at once, 1,400 times a second and
# request until `timeout processing`: here that is short.
_IMPATIENT = Engine(_GATE, processing="300ms")

SCENARIOS = {
    "health-check": Scenario(
        "option spop-check",
        Site.first_close,
        Behaviour(closes_after_hello=True),
        Engine(_GATE, is_health_checked=True),
    ),
    "notify": Scenario(
        "every type of argument and of variable", _one_request, engine=Engine(_EVERY_TYPE)
    ),
    "gate": Scenario("the arguments of this project's gate", Site.request),
    "pipelined": Scenario("20 requests, answered last first", _pipeline),
    "idle": Scenario("timeout idle 1s", _request_and_close, engine=Engine(_GATE, idle="1s")),
    "fragmented": Scenario(
        "an argument of 600 bytes, frames of 256, the agent announces fragmentation",
        _big_request,
        Behaviour(agent_hello(b"pipelining,fragmentation", 256)),
        _BIG,
    ),
    "too-big": Scenario(
        "an argument of 600 bytes, frames of 256, no fragmentation announced",
        _too_big_request,
        Behaviour(agent_hello(b"pipelining", 256)),
        _BIG,
    ),
    "agent-disconnect": Scenario(
        "the agent answers a NOTIFY by AGENT-DISCONNECT",
        _request_and_close,
        Behaviour(says_goodbye=True),
    ),
    "bad-version": Scenario(
        "AGENT-HELLO says 1.0",
        _request_and_close,
        Behaviour(agent_hello(b"pipelining", version=b"1.0")),
        _IMPATIENT,
    ),
    "bad-size": Scenario(
        "AGENT-HELLO says 20000",
        _request_and_close,
        Behaviour(agent_hello(b"pipelining", 20000)),
        _IMPATIENT,
    ),
    "soft-stop": Scenario("HAProxy receives SIGUSR1", _soft_stop),
    "timeout": Scenario(
        "timeout processing 100ms, the answer comes after it",
        _late_answer,
        Behaviour(answer_after=2),
        Engine(_GATE, processing="100ms"),
    ),
}


async def _record(haproxy: str, version: str, name: str) -> None:
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory() as directory:
        async with (
            asyncio.timeout(DEADLINE_S),
            running_site(haproxy, scenario.engine, scenario.agent, Path(directory)) as site,
        ):
            print(f"{version} {name}: {await scenario.act(site)}, {len(site.agents)} connections")
            if not site.agents:
                return
            busiest = max(site.agents, key=lambda agent: agent.size_bytes)
            text = f"# HAProxy {version}, {name}: {scenario.about}\n" + "\n".join(busiest.lines)
    path = DIRECTORY / ".".join(version.split(".")[:2]) / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("haproxy", nargs="+", help="path of a HAProxy binary")
    parser.add_argument("--only", help="record this scenario alone", choices=SCENARIOS)
    arguments = parser.parse_args()
    for haproxy in arguments.haproxy:
        output = subprocess.run([haproxy, "-v"], capture_output=True, text=True, check=True).stdout
        version = output.split()[2].partition("-")[0]
        for name in [arguments.only] if arguments.only else SCENARIOS:
            asyncio.run(_record(haproxy, version, name))


if __name__ == "__main__":
    main()
