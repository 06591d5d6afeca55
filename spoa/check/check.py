"""`kat check`: what would go wrong, said before it does."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spoa.check.agreement import disagreements, doubts
from spoa.check.haproxyfile import HaproxyFileError, read_haproxy_files
from spoa.check.keeping import kept
from spoa.check.places import closed_to, fault_of, is_open_to_all
from spoa.check.probe import NoAgent, demands_certificate, hello
from spoa.config.endpoint import Endpoint, TcpEndpoint, UnixEndpoint, parse_tcp
from spoa.config.file import url_in
from spoa.config.model import Config
from spoa.config.storeurl import holds_password
from spoa.listen import ListenError, bind
from spoa.supervisor.embedded import EmbeddedError, find_binary, ping
from spoa.tls import WORTH_A_WARNING_DAYS, TlsFault, ca_days_left, days_left, server_context
from tokens.admin.facts import describe_store
from tokens.admin.permission import may_append
from tokens.record import Keys
from tokens.store.client import StoreFault, connect


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


def findings(
    config: Config, haproxy_files: Iterable[Path], config_file: Path | None = None
) -> Iterator[Finding]:
    """Look at everything that `config` names outside of itself, and at the file it stands in."""
    yield from _config_file(config_file)
    yield from _directories(config)
    yield from _store(config)
    yield from _tls(config)
    yield from _sockets(config)
    yield from _allowlist(config)
    if files := list(haproxy_files):
        yield from _haproxy(config, files)


def _config_file(file: Path | None) -> Iterator[Finding]:
    if file and is_open_to_all(file) and holds_password(url_in(file)):
        sentence = f"{file} holds the password of Redis and can be read by everybody here"
        yield Finding(Level.WARN, "config", f"{sentence}: chmod o-r")


def _directories(config: Config) -> Iterator[Finding]:
    keys = {"run_dir": config.run_dir}
    if config.store.is_embedded:
        keys = {"state_dir": config.redis_dir, **keys}
    for key, directory in keys.items():
        if fault := fault_of(directory):
            yield Finding(Level.FAIL, key, fault)
        else:
            does = "can be written to" if directory.is_dir() else "is made by `kat serve`"
            yield Finding(Level.OK, key, f"{directory} {does}")


def _store(config: Config) -> Iterator[Finding]:
    yield from _key_file(config)
    if config.store.is_embedded and not _is_started(config):
        yield _embedded()
        return
    try:
        facts = describe_store(config.store_url, config.store.tls)
    except (ValueError, StoreFault) as fault:  # the former: files of TLS that are none
        yield Finding(Level.FAIL, "store", str(fault))
        return
    faults = facts.faults()
    yield from (Finding(Level.FAIL, "store", sentence) for sentence in faults)
    yield from (Finding(Level.WARN, "store", sentence) for sentence in facts.warnings)
    if not faults:
        yield Finding(Level.OK, "store", str(facts))
    yield from _audit(config)


def _allowlist(config: Config) -> Iterator[Finding]:
    for is_well, sentence in kept(config):
        yield Finding(Level.OK if is_well else Level.FAIL, "allowlist", sentence)


def _key_file(config: Config) -> Iterator[Finding]:
    key = config.store.key_file
    if key and is_open_to_all(key):
        yield Finding(Level.WARN, "store", f"key_file {key} can be read by everybody here")


def _audit(config: Config) -> Iterator[Finding]:
    """Find out whether the agent may tell what happened: no visitor would notice if not."""
    if not config.audit.stream:
        return
    stream = Keys(config.store.prefix).audit
    try:
        with connect(config.store_url, config.store.tls) as client:
            may = may_append(client, stream)
    except StoreFault as fault:
        yield Finding(Level.FAIL, "audit", str(fault))
        return
    name = stream.decode()
    if may:
        yield Finding(Level.OK, "audit", f"{name} can be written to")
    else:
        sentence = f"this Redis user may not XADD {name}: allow it, or set audit.stream = false"
        yield Finding(Level.FAIL, "audit", sentence)


def _is_started(config: Config) -> bool:
    """Tell whether a private Redis should be running, whether or not it does."""
    if ping(config.redis_socket) or _is_locked(config.redis_dir / "lock"):
        return True
    answers = (_agent(endpoint, config) for endpoint in _every_endpoint(config))
    return any(answer is not None and answer.level is Level.OK for answer in answers)


def _is_locked(lock: Path) -> bool:
    """Tell whether a `kat serve` or its Redis holds the state directory."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # held, or somebody else's: asking Redis will tell more
    return False


def _embedded() -> Finding:
    try:
        return Finding(Level.OK, "store", f"embedded, `kat serve` starts {find_binary()}")
    except EmbeddedError as error:
        return Finding(Level.FAIL, "store", str(error))


def _tls(config: Config) -> Iterator[Finding]:
    """Find what HAProxy would refuse to speak to, and what it soon will."""
    files = config.listen.tls
    if files is None:
        return
    try:
        server_context(files)
        ends = {
            f"cert_file {files.cert_file}": days_left(files),
            f"client_ca_file {files.client_ca_file}": ca_days_left(files),
        }
    except TlsFault as fault:
        yield Finding(Level.FAIL, "tls", str(fault))
        return
    for file, days in ends.items():
        if days < 0:
            yield Finding(Level.FAIL, "tls", f"listen.{file} has expired: nobody can connect")
        elif days < WORTH_A_WARNING_DAYS:
            yield Finding(Level.WARN, "tls", f"listen.{file} ends in {days:.0f} days: renew it")
        else:
            yield Finding(Level.OK, "tls", f"listen.{file} holds for {days:.0f} days")


def _sockets(config: Config) -> Iterator[Finding]:
    is_running = False
    for endpoint in _every_endpoint(config):
        yield from _closed(endpoint, config.listen.group)
        if finding := _agent(endpoint, config):
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


def _closed(endpoint: Endpoint, group: str | None) -> Iterator[Finding]:
    """Find what keeps HAProxy's group from a socket that is meant for it."""
    if group is None or not isinstance(endpoint, UnixEndpoint):
        return
    if directory := closed_to(group, endpoint.path):
        sentence = f"the group {group} cannot reach {endpoint}: {directory} does not let it pass"
        yield Finding(Level.FAIL, "listen", sentence)


def _agent(endpoint: Endpoint, config: Config) -> Finding | None:
    """Say hello to whoever listens there."""
    try:
        if config.listen.tls and isinstance(endpoint, TcpEndpoint):
            demands_certificate(endpoint)
            sentence = f"TLS is spoken at {endpoint}, and only with those who show a certificate"
        else:
            sentence = f"an agent answers at {endpoint}, frames up to {hello(endpoint)}"
    except NoAgent as error:
        return Finding(Level.FAIL, "listen", str(error))
    except OSError:
        return None
    return Finding(Level.OK, "listen", sentence)


def _bindable(subject: str, endpoint: Endpoint, config: Config) -> Finding:
    if isinstance(endpoint, UnixEndpoint):
        directory = Path(endpoint.path).parent
        if directory == config.run_dir and not os.path.lexists(directory):
            return Finding(Level.OK, subject, f"{endpoint} is made by `kat serve`")
    try:
        bind(endpoint, config.listen.group).close()
    except ListenError as error:
        return Finding(Level.FAIL, subject, str(error))
    return Finding(Level.OK, subject, f"{endpoint} can be bound; no agent runs there")


def _haproxy(config: Config, files: list[Path]) -> Iterator[Finding]:
    try:
        facts = read_haproxy_files(files, os.environ)
    except HaproxyFileError as error:
        yield Finding(Level.FAIL, "haproxy", f"{error}; nothing of HAProxy was looked at")
        return
    faults = list(disagreements(config, facts, frozenset(map(str, _every_endpoint(config)))))
    doubted = list(doubts(config, facts))
    yield from (Finding(Level.FAIL, "haproxy", sentence) for sentence in faults)
    yield from (Finding(Level.WARN, "haproxy", sentence) for sentence in doubted)
    if not faults and not doubted:
        yield Finding(Level.OK, "haproxy", "agrees with this configuration")
