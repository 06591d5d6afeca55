"""A HAProxy of any version in front of a recording agent."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.recording_agent import Agent, Behaviour

_CONFIG = """\
global
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend site
    bind fd@{site_fd}
    unique-id-format %[uuid()]
    filter spoe engine kat config {engine}
    http-request send-spoe-group kat check
    http-request return status 200 content-type text/plain lf-string "{answer}"
backend kat_agents
.if version_atleast(3.1)
    mode spop
.else
    mode tcp
.endif
    {spop_check}
    server agent 127.0.0.1:{agent_port} pool-purge-delay 500ms {check}
"""

_ANSWER = " ".join(
    f"%[var(txn.kat.{name})]"
    for name in ("error", "text", "yes", "number", "negative", "v4", "v6", "gone")
)

_ENGINE = """\
[kat]
spoe-agent kat
    groups check
    option var-prefix kat
    option set-on-error error
    option continue-on-error
    {fragments} option send-frag-payload
    max-frame-size {max_frame_size}
    timeout hello 2s
    timeout idle {idle}
    timeout processing {processing}
    use-backend kat_agents
spoe-message check-http
    args {args}
spoe-group check
    messages check-http
"""


@dataclass(frozen=True)
class Engine:
    """What HAProxy is told about its agent."""

    args: str
    sends_fragments: bool = False
    is_health_checked: bool = False
    max_frame_size: int = 16380
    idle: str = "30s"
    processing: str = "5s"


class Site:
    """A running HAProxy with its agent."""

    process: asyncio.subprocess.Process

    def __init__(self, port: int, behaviour: Behaviour) -> None:
        self.agents: list[Agent] = []
        self._port = port
        self._behaviour = behaviour
        self._connected = asyncio.Event()

    def accept(self) -> Agent:
        """Serve one more connection of HAProxy."""
        self.agents.append(Agent(self._behaviour))
        self._connected.set()
        return self.agents[-1]

    async def request(self, path: str = "/", long_header: int = 0) -> str:
        """Send one request; return the status and the body, the variables that HAProxy has."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"GET {path} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n"
        writer.write(f"{head}X-Long: {'x' * long_header}\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return (answer[9:12] + b" " + answer.rpartition(b"\n")[2]).decode()

    async def first_close(self) -> str:
        """Wait until the first connection has ended."""
        await self._connected.wait()
        await self.agents[0].closed.wait()
        return "closed"


@contextlib.asynccontextmanager
async def running_site(
    haproxy: str, engine: Engine, agent: Behaviour, directory: Path
) -> AsyncIterator[Site]:
    """Start HAProxy with an agent of this behaviour; its files go into `directory`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = Site(listener.getsockname()[1], agent)
        server = await asyncio.get_running_loop().create_server(site.accept, "127.0.0.1", 0)
        configuration, engine_file = directory / "haproxy.cfg", directory / "kat.spoe.conf"
        port = server.sockets[0].getsockname()[1]
        configuration.write_text(
            _CONFIG.format(
                site_fd=listener.fileno(),
                engine=engine_file,
                agent_port=port,
                answer=_ANSWER,
                spop_check="option spop-check" if engine.is_health_checked else "",
                check="check inter 5s" if engine.is_health_checked else "",
            )
        )
        engine_file.write_text(
            _ENGINE.format(
                fragments="" if engine.sends_fragments else "no",
                max_frame_size=engine.max_frame_size,
                idle=engine.idle,
                processing=engine.processing,
                args=engine.args,
            )
        )
        site.process = await asyncio.create_subprocess_exec(
            haproxy, "-db", "-q", "-f", configuration, pass_fds=[listener.fileno()]
        )
        try:
            yield site
        finally:
            site.process.kill()
            await site.process.wait()
            server.close()
