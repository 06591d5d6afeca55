"""`kat serve`, from an empty machine to a running supervisor and back."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from spoa.config.endpoint import UnixEndpoint, parse_tcp
from spoa.config.model import Config
from spoa.counters import Counters
from spoa.fleet import Fleet
from spoa.listen import Listener, ListenError, admit, bind, find_closed_door
from spoa.log import fields, log
from spoa.supervisor.embedded import Embedded
from spoa.supervisor.health import HealthServer
from spoa.supervisor.signals import IGNORED_SIGNALS
from spoa.supervisor.supervisor import Supervisor
from spoa.tls import WORTH_A_WARNING_DAYS, TlsFault, days_left, server_context
from spoa.worker.worker import Order, run


def serve(config: Config, run: Callable[[Order], None] = run) -> int:
    """Run the agent until a signal ends it. Returns the exit code.

    Raises ListenError or EmbeddedError when it cannot start.
    """
    os.umask(0o077)
    # From the first moment to the last: the supervisor hears them only while it watches.
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A core file would hold tokens.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _check_tls(config)
    with ExitStack() as stack:
        # First of all: the private Redis would make their common parents for itself alone.
        _make_run_dir(config)
        redis = stack.enter_context(_embedded(config)) if config.store.is_embedded else None
        listeners = stack.enter_context(_listeners(config))
        fleet = Fleet(Counters(list(config.acl), config.workers), listeners)
        if redis:
            fleet.store_fault = redis.fault
        stack.enter_context(_health(config, fleet))
        return Supervisor(config, fleet, listeners, redis, run).run()


def _check_tls(config: Config) -> None:
    """Refuse files that no worker could use; of a certificate that HAProxy refuses, only warn.

    Who comes by a unix socket is served all the same, and the clock may be set a moment later.
    """
    if (files := config.listen.tls) is None:
        return
    try:
        server_context(files)
    except TlsFault as fault:
        raise ListenError(str(fault)) from None
    try:
        days = days_left(files)
    except TlsFault as fault:
        log.warning("no HAProxy will connect by TLS", extra=fields(reason=str(fault)))
        return
    if days < WORTH_A_WARNING_DAYS:
        log.warning(
            "the certificate ends soon",
            extra=fields(file=str(files.cert_file), days=int(days)),
        )


@contextmanager
def _embedded(config: Config) -> Iterator[Embedded]:
    redis = Embedded(config.redis_dir, config.redis_socket)
    try:
        redis.start()
        redis.wait()
        log.info("private Redis started", extra=fields(pid=redis.pid, dir=str(config.redis_dir)))
        yield redis
    finally:
        redis.stop()


@contextmanager
def _listeners(config: Config) -> Iterator[list[Listener]]:
    """Bind before any worker runs: HAProxy can connect from the first moment, and waits."""
    bound: list[Listener] = []
    try:
        for endpoint in config.shared_endpoints:
            bound.append(bind(endpoint, config.listen.group))
            log.info("listening", extra=fields(spop=str(endpoint)))
        _warn_of_closed_doors(config)
        yield bound
    finally:
        for listener in bound:
            listener.close()


def _make_run_dir(config: Config) -> None:
    """Make the sockets' directory: only we write to it, HAProxy's group may pass and look."""
    try:
        if config.run_dir.exists():
            return
        for parent in reversed(config.run_dir.parents):
            if not parent.exists():
                _make_directory(parent, config.listen.group, 0o710)
        _make_directory(config.run_dir, config.listen.group, 0o750)
    except OSError as error:
        raise ListenError(f"{config.run_dir} cannot be made: {error.strerror}") from None


def _make_directory(path: Path, group: str | None, mode: int) -> None:
    """Make one directory, or none: half made it would be taken for ready the next time."""
    path.mkdir(0o700)
    if group is None:
        return
    try:
        admit(group, path, mode)
    except OSError:
        path.rmdir()
        raise


def _warn_of_closed_doors(config: Config) -> None:
    """Name directories that the group cannot pass. Only a warning: HAProxy may be in by an ACL."""
    group = config.listen.group
    for endpoint in (*config.shared_endpoints, *config.own_endpoints(0)):
        if group is None or not isinstance(endpoint, UnixEndpoint):
            continue
        if door := find_closed_door(Path(endpoint.path), group):
            log.warning(
                "the group cannot reach the socket: this directory does not let it pass",
                extra=fields(group=group, dir=str(door), socket=endpoint.path),
            )


@contextmanager
def _health(config: Config, fleet: Fleet) -> Iterator[None]:
    if not config.listen.metrics:
        yield
        return
    try:
        server = HealthServer(parse_tcp(config.listen.metrics), fleet)
    except ListenError as error:
        raise ListenError(f"listen.metrics: {error}") from None
    log.info("listening", extra=fields(http=str(server.endpoint)))
    try:
        yield
    finally:
        server.close()
