"""`kat serve`, from an empty machine to a running supervisor and back."""

import grp
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from spoa.config.endpoint import parse_tcp
from spoa.config.model import Config
from spoa.counters import Counters
from spoa.fleet import Fleet
from spoa.listen import Listener, ListenError, bind
from spoa.log import fields, log
from spoa.supervisor.embedded import Embedded
from spoa.supervisor.health import HealthServer
from spoa.supervisor.supervisor import Supervisor
from spoa.worker.worker import Order, run


def serve(config: Config, run: Callable[[Order], None] = run) -> int:
    """Run the agent until a signal ends it. Returns the exit code.

    Raises ListenError or EmbeddedError when it cannot start.
    """
    os.umask(0o077)
    # A core file would hold tokens.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with ExitStack() as stack:
        redis = stack.enter_context(_embedded(config)) if config.store.is_embedded else None
        listeners = stack.enter_context(_listeners(config))
        fleet = Fleet(Counters(list(config.acl), config.workers))
        if redis:
            fleet.store_fault = redis.fault
        stack.enter_context(_health(config, fleet))
        return Supervisor(config, fleet, listeners, redis, run).run()


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
    _make_run_dir(config)
    bound: list[Listener] = []
    try:
        for endpoint in config.shared_endpoints:
            bound.append(bind(endpoint, config.listen.group))
            log.info("listening", extra=fields(spop=str(endpoint)))
        yield bound
    finally:
        for listener in bound:
            listener.close()


def _make_run_dir(config: Config) -> None:
    """Make the sockets' directory: only we write to it, HAProxy's group may pass."""
    try:
        config.run_dir.mkdir(parents=True)
    except FileExistsError:
        return
    except OSError as error:
        raise ListenError(f"{config.run_dir} cannot be made: {error.strerror}") from None
    if config.listen.group is not None:
        os.chown(config.run_dir, -1, grp.getgrnam(config.listen.group).gr_gid)
        config.run_dir.chmod(0o750)


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
