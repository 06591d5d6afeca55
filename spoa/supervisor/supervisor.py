"""The parent of all: starts the workers, restarts them, drains them.

Nothing here is on the way of a request. The supervisor sleeps until a worker dies, a signal comes
or a restart is due.
"""

import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import connection, resource_tracker

from spoa.config.model import Config
from spoa.fleet import Fleet
from spoa.listen import Listener
from spoa.log import fields, log
from spoa.supervisor.embedded import Embedded, EmbeddedError
from spoa.supervisor.notify import notify
from spoa.supervisor.signals import IGNORED_SIGNALS, STOP_SIGNALS, heard, withheld
from spoa.supervisor.slot import Restarts, Slot
from spoa.worker.worker import BOOT_FAILURE, Order

# Workers end by themselves within `drain_s` and a second for goodbyes; only a stuck one does not.
KILL_GRACE_S = 2.0

# How often to look, while booting, whether every worker serves. Afterwards nothing is polled.
BOOT_POLL_S = 0.05


class Supervisor:
    """Keeps `config.workers` processes running until a signal says stop."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        listeners: list[Listener],
        redis: Embedded | None,
        run: Callable[[Order], None],
    ) -> None:
        self._drain_s = config.limits.drain_s
        self._fleet = fleet
        self._listeners = listeners
        self._redis = redis
        self._redis_restarts = Restarts(due_s=None)
        sockets = [listener.socket for listener in listeners]
        self._slots = [
            Slot(index, run, Order(config, index, sockets, fleet.counters))
            for index in range(config.workers)
        ]
        self._is_announced = False

    def run(self) -> int:
        """Work until one of STOP_SIGNALS (0), or until no worker can boot (BOOT_FAILURE)."""
        # Started lazily, it would unblock the SIGINT that a Slot blocks while it starts a worker.
        with withheld():
            resource_tracker.ensure_running()
        with heard() as wakeup:
            try:
                return self._watch(wakeup)
            finally:
                self._kill()

    def _watch(self, wakeup: socket.socket) -> int:
        while True:
            self._start_due()
            self._announce()
            signals = self._sleep(wakeup, self._next_start_s())
            if signals & STOP_SIGNALS:
                self._drain(wakeup)
                return 0
            _decline(signals & IGNORED_SIGNALS)
            self._bury_dead()
            if not self._fleet.serving and all(slot.is_hopeless for slot in self._slots):
                log.error("no worker can start")
                self._drain(wakeup)
                return BOOT_FAILURE

    def _start_due(self) -> None:
        if self._redis and self._redis_restarts.is_due:
            self._restart_redis(self._redis)
        for slot in self._slots:
            if slot.restarts.is_due:
                slot.start()
                self._fleet.started[slot.index] = time.monotonic()

    def _restart_redis(self, redis: Embedded) -> None:
        self._redis_restarts.started()
        try:
            redis.start()
        except EmbeddedError as error:
            log.error("the private Redis cannot be restarted", extra=fields(error=str(error)))
            self._redis_restarts.died()
        else:
            log.info("private Redis restarted", extra=fields(pid=redis.pid))

    def _announce(self) -> None:
        """Say once that every worker serves."""
        if not self._is_announced and len(self._fleet.serving) == len(self._slots):
            self._is_announced = True
            notify("READY=1")
            # Not whether Redis is up: a worker that has just begun to serve is still greeting it.
            # Who waits for Redis as well, waits for /readyz.
            log.info("ready", extra=fields(workers=len(self._slots), store=self._store_state()))

    def _store_state(self) -> str:
        """Say how Redis stands: `ready` alone reads as if it could be used."""
        counters = self._fleet.counters
        is_up = all(counters.is_store_up(slot.index) for slot in self._slots)
        return "up" if is_up else "not reached yet: see /readyz"

    def _next_start_s(self) -> float | None:
        restarts = [slot.restarts for slot in self._slots] + [self._redis_restarts]
        now = time.monotonic()
        waits = [max(0.0, one.due_s - now) for one in restarts if one.due_s is not None]
        return min(waits, default=None) if self._is_announced else min([*waits, BOOT_POLL_S])

    def _sleep(self, wakeup: socket.socket, timeout_s: float | None) -> set[int]:
        """Wait for a death, a signal or the timeout. Returns the signals that came."""
        sentinels = [slot.process.sentinel for slot in self._slots if slot.process]
        woken = connection.wait([wakeup, *sentinels], timeout_s)
        return set(wakeup.recv(4096)) if wakeup in woken else set()

    def _bury_dead(self) -> None:
        if self._redis and self._redis_restarts.due_s is None and self._redis.is_dead:
            log.error(
                "the private Redis died",
                extra=fields(
                    exit=self._redis.exit_code,
                    said=self._redis.last_words(),
                    log=str(self._redis.log),
                ),
            )
            self._redis_restarts.died()
        for slot in self._slots:
            if slot.process and not slot.process.is_alive():
                self._bury(slot)

    def _bury(self, slot: Slot[Order]) -> None:
        pid = slot.process.pid if slot.process else None
        code = slot.bury(has_served=slot.index in self._fleet.serving)
        self._fleet.started[slot.index] = None
        self._fleet.counters.forget(slot.index)
        if not slot.is_hopeless:
            self._fleet.restarts += 1
        log.warning("worker died", extra=fields(worker=slot.index, pid=pid, exit=code))

    def _drain(self, wakeup: socket.socket) -> None:
        """Let the workers finish what is in flight, for so long; a second signal ends it."""
        self._fleet.is_draining = True
        notify("STOPPING=1")
        log.info("stopping")
        # First of all: a connection that nobody will accept must be refused, not kept waiting.
        for listener in self._listeners:
            listener.close()
        for slot in self._slots:
            if slot.process:
                slot.process.terminate()
        deadline = time.monotonic() + self._drain_s + KILL_GRACE_S
        while self._has_living() and (left := deadline - time.monotonic()) > 0:
            if self._sleep(wakeup, left) & STOP_SIGNALS:
                return
            self._bury_drained()

    def _has_living(self) -> bool:
        return any(slot.process for slot in self._slots)

    def _bury_drained(self) -> None:
        for slot in self._slots:
            if slot.process and not slot.process.is_alive():
                slot.bury(has_served=True)

    def _kill(self) -> None:
        """End what did not end by itself."""
        for slot in self._slots:
            if slot.process:
                log.warning("worker killed", extra=fields(worker=slot.index, pid=slot.process.pid))
                slot.process.kill()
                slot.bury(has_served=True)


def _decline(signals: set[int]) -> None:
    for number in signals:
        log.warning(
            "signal ignored: configuration is read at start, restart to change it",
            extra=fields(signal=signal.Signals(number).name),
        )
