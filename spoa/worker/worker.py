"""One worker process: event loop, store, agent and transports, wired together.

Nothing but SPOP and Redis traffic runs on its loop. It ends when it is told to (SIGTERM), when its
supervisor is gone, or when something in it is broken; never because of what a peer sent.
"""

import asyncio
import gc
import multiprocessing
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from spoa.config.endpoint import Endpoint, TcpEndpoint
from spoa.config.model import Config
from spoa.counters import Counters
from spoa.listen import BACKLOG, Listener, ListenError, bind
from spoa.log import configure, log
from spoa.tls import TlsFault
from spoa.worker.agent import Agent
from spoa.worker.answers import Answers
from spoa.worker.auditlog import AuditLog
from spoa.worker.storewatch import StoreWatch
from spoa.worker.tls import Credentials, TlsServer
from spoa.worker.transport import COMPLAINT_INTERVAL_S, MAX_CONNECTIONS, SpopServer
from tokens.audit import Journal
from tokens.policy import cut
from tokens.policy.gate import SCRIPTS, Gate
from tokens.policy.redeem import MAX_TOKENS_PER_CALL
from tokens.record import Keys
from tokens.store.settings import StoreSettings
from tokens.store.store import Store, open_store
from tokens.store.url import keys_per_call, parse_store_url

BOOT_FAILURE = 3
"""Exit code: this worker cannot start, and another attempt would not help."""

HEARTBEAT_S = 1.0
ProtocolFactory = Callable[[], asyncio.Protocol]

_GOODBYE_S = 1.0
_OTHER_FILES = 64


@dataclass(frozen=True, slots=True)
class Order:
    """What the supervisor gives a worker to do."""

    config: Config
    index: int
    listeners: list[socket.socket]
    counters: Counters


def run(order: Order) -> None:
    """Serve until told to stop. The target of a worker's process."""
    configure(order.config.log)
    # The terminal sends Ctrl-C to the whole group; when to stop is the supervisor's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_Worker(order).serve())
    except ListenError as error:
        log.error("worker cannot start: %s", error)
        sys.exit(BOOT_FAILURE)
    except TlsFault as error:
        # No BOOT_FAILURE: the supervisor has found them in order, somebody is replacing them now.
        log.error("worker cannot start: %s", error)
        sys.exit(1)


def _raise_file_limit() -> None:
    """Ask for a file for each connection. Most systems start a program with 1,024 of them.

    Short of files, uvloop drops new connections without a word.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class _Worker:
    """Everything one process owns."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._config = order.config
        self._counters = order.counters.worker(order.index)
        tls = order.config.listen.tls
        self._credentials = Credentials(tls) if tls else None
        self._own: list[Listener] = []
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        self._complained_at = -COMPLAINT_INTERVAL_S

    async def serve(self) -> None:
        """Accept, until there is a reason to stop; then drain. Raises what broke, if anything."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._break)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        if parent := multiprocessing.parent_process():
            loop.add_reader(parent.sentinel, self._stop.set)
        agent, store = self._build()
        spop = SpopServer(agent, self._config.limits, self._counters)
        # A reference to each server: asyncio closes the listening socket of one that is collected.
        servers = [
            await _listen(listener, self._factory(spop, at)) for at, listener in self._doors()
        ]
        keeping = asyncio.create_task(store.run())
        keeping.add_done_callback(lambda _: self._stop.set())
        gc.freeze()  # what is loaded by now stays: no need to look at it in every collection
        self._beat(agent)
        await self._stop.wait()
        for server in servers:
            server.close()
        for listener in self._own:
            listener.close()
        await self._drain(agent, spop)
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        if self._fault:
            raise self._fault

    def _build(self) -> tuple[Agent, Store]:
        config = self._config
        keys = Keys(config.store.prefix)
        settings = StoreSettings(
            url=config.store_url,
            fence_key=keys.fence,
            is_fenced=config.store.fence,
            clock_skew_ms=config.store.clock_skew_ms,
            scripts=SCRIPTS,
            deadline_s=config.limits.deadline_ms / 1000,
            tls=config.store.tls,
            # Behind every batch: a Redis that does not answer it can decide nothing.
            probe=cut.ask(keys.cut, cut.Cut()),
        )
        audit = config.audit
        hear = AuditLog(config.log) if audit.log else None
        journal = Journal(keys.audit, audit.max_entries if audit.stream else 0, hear)
        per_call = keys_per_call(parse_store_url(settings.url), MAX_TOKENS_PER_CALL)
        gate = Gate(config.rules, keys, config.limits.deadline_ms, journal, per_call)
        store = open_store(settings, StoreWatch(self._counters, journal))
        agent = Agent(gate, store, Answers(config.acl), config.limits, self._counters)
        return agent, store

    def _doors(self) -> list[tuple[Endpoint, socket.socket]]:
        """Return what the supervisor bound for all, and bind what is this worker's own."""
        for endpoint in self._config.own_endpoints(self._order.index):
            self._own.append(bind(endpoint, self._config.listen.group))
        shared = zip(self._config.shared_endpoints, self._order.listeners, strict=True)
        # Duplicates: asyncio closes what it is given, and a Listener that finds its socket closed
        # leaves its file alone.
        return [*shared, *((own.endpoint, own.socket.dup()) for own in self._own)]

    def _factory(self, spop: SpopServer, endpoint: Endpoint) -> ProtocolFactory:
        """Choose what speaks to whom connects there: TLS is for TCP alone."""
        if self._credentials and isinstance(endpoint, TcpEndpoint):
            return TlsServer(spop, self._credentials)
        return partial(spop, is_local=endpoint.is_local)

    def _beat(self, agent: Agent) -> None:
        """Say that the loop turns, every second. The first beat says that this worker serves."""
        self._counters.heartbeat(time.monotonic())
        agent.note()  # of a flood the journal tells the rest when it is over
        asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat, agent)
        if self._credentials:
            self._credentials.look()

    async def _drain(self, agent: Agent, spop: SpopServer) -> None:
        """Finish what is in flight, say goodbye to every HAProxy, and see them off."""
        limits = self._config.limits
        spop.stop_taking()
        # Nothing is added any more, so the deadline is the end of it; unless a fault lost count.
        patience_s = min(limits.drain_s, 2 * limits.deadline_ms / 1000)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await agent.drain()
        agent.note(is_last=True)
        spop.disconnect_all("the agent is stopping")
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await spop.wait_closed()
        spop.abort_all()

    def _break(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Take an exception that nobody caught for our own fault: this worker must not go on.

        What a peer does never gets here; a lack of file descriptors does, and will pass.
        """
        fault = context.get("exception")
        if isinstance(fault, OSError) or not isinstance(fault, BaseException):
            self._complain(context.get("message"))
            return
        self._fault = fault
        self._stop.set()

    def _complain(self, message: object) -> None:
        """Log what is no fault, once a second: short of files, asyncio says it 4,096 times."""
        now = time.monotonic()
        if now - self._complained_at >= COMPLAINT_INTERVAL_S:
            self._complained_at = now
            log.warning("event loop: %s", message)


async def _listen(listener: socket.socket, factory: ProtocolFactory) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if listener.family == socket.AF_UNIX:
        return await loop.create_unix_server(factory, sock=listener, backlog=BACKLOG)
    return await loop.create_server(factory, sock=listener, backlog=BACKLOG)
