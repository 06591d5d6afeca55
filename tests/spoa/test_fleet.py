"""When the agent calls itself alive, and when ready."""

import time
from pathlib import Path

import pytest

from spoa.config.endpoint import UnixEndpoint
from spoa.counters import Counters
from spoa.fleet import STALE_AFTER_S, Fleet
from spoa.listen import bind


@pytest.fixture
def fleet() -> Fleet:
    """Two workers, both running and serving, with a store."""
    fleet = Fleet(Counters(["wiki"], 2))
    for index in range(2):
        fleet.started[index] = time.monotonic()
        fleet.counters.worker(index).heartbeat(time.monotonic())
        fleet.counters.worker(index).store_up(is_up=True)
    return fleet


def _stale() -> float:
    return time.monotonic() - STALE_AFTER_S - 1


def test_all_is_well(fleet: Fleet) -> None:
    """Two workers that beat, with a store, are alive and ready."""
    assert fleet.why_not_alive() is None
    assert fleet.why_not_ready() is None


def test_every_worker_that_runs_needs_a_store(fleet: Fleet) -> None:
    """A dead worker does not make the agent unready; one that answers 503 does, and is named."""
    fleet.started[0] = None
    assert fleet.why_not_ready() is None
    fleet.started[0] = time.monotonic()
    fleet.counters.worker(0).store_up(is_up=False)
    assert fleet.why_not_ready() == "no store for worker 0: its log says why"


def test_a_store_that_is_down_is_named(fleet: Fleet) -> None:
    """Without a store nothing can be let through, and readiness says so."""
    for index in range(2):
        fleet.counters.worker(index).store_up(is_up=False)
    assert fleet.why_not_ready() == "no worker can use the store: its log says why"
    fleet.store_fault = lambda: "the private Redis does not answer"
    assert fleet.why_not_ready() == "the private Redis does not answer"
    assert fleet.why_not_alive() is None


def test_a_stuck_worker_is_not_alive(fleet: Fleet) -> None:
    """A loop that stopped turning is named; a worker being replaced is not."""
    fleet.started[:] = [_stale(), _stale()]
    fleet.counters.worker(1).heartbeat(_stale())
    assert fleet.why_not_alive() == "no heartbeat for 10 s from worker 1"
    assert fleet.why_not_ready() is None
    fleet.started[1] = None
    assert fleet.why_not_alive() is None


def test_a_worker_that_is_starting_is_alive_but_not_ready(fleet: Fleet) -> None:
    """Before its first beat a worker serves nobody."""
    for index in range(2):
        fleet.counters.forget(index)
    assert fleet.why_not_alive() is None
    assert fleet.why_not_ready() == "none of 2 workers is serving"


def test_a_worker_that_never_beats_is_stuck(fleet: Fleet) -> None:
    """Starting does not take ten seconds."""
    fleet.started[0] = _stale()
    fleet.counters.forget(0)
    assert fleet.why_not_alive() == "no heartbeat for 10 s from worker 0"


def test_a_socket_that_is_gone_is_named(fleet: Fleet, place: Path) -> None:
    """Workers that nobody can reach are not ready."""
    listener = bind(UnixEndpoint(str(place / "s")))
    fleet.listeners = [listener]
    assert fleet.why_not_ready() is None
    (place / "s").unlink()
    assert fleet.why_not_ready() == listener.fault()
    listener.close()


def test_nothing_new_while_shutting_down(fleet: Fleet) -> None:
    """A draining agent is not ready."""
    fleet.is_draining = True
    assert fleet.why_not_ready() == "shutting down"
