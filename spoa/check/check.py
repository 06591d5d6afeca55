"""`kat check`: what would go wrong, said before it does."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spoa.check.haproxyfile import HaproxyFacts, read_haproxy_files
from spoa.check.probe import NoAgent, hello
from spoa.config.endpoint import Endpoint, UnixEndpoint, parse_tcp
from spoa.config.model import Config
from spoa.listen import ListenError, bind
from spoa.supervisor.embedded import EmbeddedError, find_binary, ping
from tokens.client import StoreFault, describe_store


class Level(StrEnum):
    """How bad it is. Only FAIL makes `kat check` fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject}: {self.sentence}"


def findings(config: Config, haproxy_files: Iterable[Path]) -> Iterator[Finding]:
    """Look at everything that `config` names outside of itself."""
    yield from _store(config)
    yield from _sockets(config)
    if files := list(haproxy_files):
        yield from _haproxy(config, files)


def _store(config: Config) -> Iterator[Finding]:
    if config.store.is_embedded and not ping(config.redis_socket):
        yield _embedded()
        return
    try:
        facts = describe_store(config.store_url)
    except StoreFault as fault:
        yield Finding(Level.FAIL, "store", str(fault))
        return
    faults = facts.faults()
    for sentence in faults:
        yield Finding(Level.FAIL, "store", sentence)
    if facts.is_open:
        yield Finding(Level.WARN, "store", "no password: whoever reaches its port can issue tokens")
    if not faults:
        about = f"{facts.server} {facts.version}, {facts.role}, {facts.eviction}"
        yield Finding(Level.OK, "store", about)


def _embedded() -> Finding:
    try:
        return Finding(Level.OK, "store", f"embedded, `kat serve` starts {find_binary()}")
    except EmbeddedError as error:
        return Finding(Level.FAIL, "store", str(error))


def _sockets(config: Config) -> Iterator[Finding]:
    is_running = False
    for endpoint in _every_endpoint(config):
        if finding := _agent(endpoint):
            is_running = True
            yield finding
        else:
            yield _bindable("listen", endpoint, config)
    # Where an agent runs, the metrics port is its own.
    if config.listen.metrics and not is_running:
        yield _bindable("metrics", parse_tcp(config.listen.metrics), config)


def _every_endpoint(config: Config) -> Iterator[Endpoint]:
    yield from config.shared_endpoints
    for index in range(config.workers):
        yield from config.own_endpoints(index)


def _agent(endpoint: Endpoint) -> Finding | None:
    """Say hello to whoever listens there."""
    try:
        agreed = hello(endpoint)
    except NoAgent as error:
        return Finding(Level.FAIL, "listen", str(error))
    except OSError:
        return None
    return Finding(Level.OK, "listen", f"an agent answers at {endpoint}, frames up to {agreed}")


def _bindable(subject: str, endpoint: Endpoint, config: Config) -> Finding:
    if isinstance(endpoint, UnixEndpoint):
        directory = Path(endpoint.path).parent
        if directory == config.run_dir and not directory.exists():
            return _makeable(directory)
    try:
        bind(endpoint, config.listen.group).close()
    except ListenError as error:
        return Finding(Level.FAIL, subject, str(error))
    return Finding(Level.OK, subject, f"{endpoint} can be bound; no agent runs there")


def _makeable(directory: Path) -> Finding:
    """Judge a directory that `kat serve` would make. Not made here: it would be root's."""
    above = next(parent for parent in directory.parents if parent.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return Finding(Level.OK, "listen", f"`kat serve` makes {directory}")
    return Finding(Level.FAIL, "listen", f"{directory} cannot be made: {above} is not writable")


def _haproxy(config: Config, files: list[Path]) -> Iterator[Finding]:
    try:
        facts = read_haproxy_files(files, os.environ)
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(Level.FAIL, "haproxy", f"cannot be read: {error}")
        return
    faults = [*_late(config, facts), *_elsewhere(config, facts), *_unknown(config, facts)]
    yield from (Finding(Level.FAIL, "haproxy", sentence) for sentence in faults)
    if not faults:
        yield Finding(Level.OK, "haproxy", "agrees with this configuration")


def _late(config: Config, facts: HaproxyFacts) -> Iterator[str]:
    deadline_ms = config.limits.deadline_ms
    if not facts.processing_ms:
        yield "no spoe-agent found; give haproxy.cfg or its SPOE file with --haproxy"
    for processing_ms in facts.processing_ms:
        if processing_ms == float("inf"):
            yield "spoe-agent has no `timeout processing`: a silent agent holds requests forever"
        elif processing_ms <= deadline_ms:
            yield (
                f"`timeout processing` is {processing_ms:g} ms, limits.deadline_ms {deadline_ms}: "
                "HAProxy would give up on requests whose token is being consumed"
            )


def _elsewhere(config: Config, facts: HaproxyFacts) -> Iterator[str]:
    ours = {str(endpoint) for endpoint in _every_endpoint(config)}
    theirs = facts.agents()
    if theirs and not ours & set(theirs):
        yield f"sends to {', '.join(theirs)}; we listen at {', '.join(sorted(ours))}"


def _unknown(config: Config, facts: HaproxyFacts) -> Iterator[str]:
    for name in facts.acls:
        if name not in config.acl:
            yield f"a gate asks for the ACL {name}, which is not configured: unknown_acl, 503"
