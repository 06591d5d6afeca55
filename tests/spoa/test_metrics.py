"""What Prometheus reads."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spoa.counters import Counters
from spoa.fleet import Fleet
from spoa.metrics import Exposition
from spoa.spop.constants import StatusCode


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(Counters(["wiki"], 2))


def _value(fleet: Fleet, name: str, **labels: str) -> float:
    """Scrape, and read one series as Prometheus would."""
    text, _ = Exposition(fleet).text()
    [value] = [
        sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return value


def test_workers_are_added_up(fleet: Fleet) -> None:
    """A request counts once, whichever worker answered it."""
    fleet.counters.worker(0).decided(b"wiki", b"ok", 3)
    fleet.counters.worker(1).decided(b"wiki", b"ok", 4)
    assert _value(fleet, "kat_requests_total", acl="wiki", reason="ok") == 7
    assert _value(fleet, "kat_requests_total", acl="wiki", reason="replayed") == 0


def test_a_histogram_is_cumulative(fleet: Fleet) -> None:
    """Each bucket holds those below it, +Inf holds all, and count and sum agree."""
    fleet.counters.worker(0).latency(0.0004, 2)
    fleet.counters.worker(1).latency(0.003, 1)
    name = "kat_decision_seconds"
    found = [
        _value(fleet, f"{name}_bucket", le=le) for le in ("0.00025", "0.0005", "0.005", "+Inf")
    ]
    assert found == [0, 2, 3, 3]
    assert _value(fleet, f"{name}_count") == 3
    assert _value(fleet, f"{name}_sum") == pytest.approx(0.0038)


def test_every_metric_shows_what_was_counted(fleet: Fleet) -> None:
    """No count goes to another's name."""
    pen = fleet.counters.worker(1)
    pen.redis_round_trip(0.0002)
    pen.batch(20)
    pen.in_flight(5)
    for _ in range(3):
        pen.connection_opened()
    pen.connection_closed(StatusCode.NORMAL, "haproxy")
    pen.protocol_error(StatusCode.INVALID_FRAME)
    pen.store_up(is_up=True)
    pen.store_error("oom")
    pen.sessions_opened(3)
    pen.sessions_opened(3)
    pen.grants_opened(7)
    pen.audit_lost(8)
    pen.asked_again()
    for _ in range(2):
        pen.fence_moved()
    fleet.restarts = 2
    fleet.started[1] = 1.0
    assert _value(fleet, "kat_redis_round_trip_seconds_count") == 1
    assert _value(fleet, "kat_batch_requests_sum") == 20
    assert _value(fleet, "kat_in_flight") == 5
    assert _value(fleet, "kat_spop_connects_total") == 3
    assert _value(fleet, "kat_spop_connections") == 2
    assert _value(fleet, "kat_spop_disconnects_total", status="0", by="haproxy") == 1
    assert _value(fleet, "kat_spop_protocol_errors_total", status="4") == 1
    assert _value(fleet, "kat_store_up", worker="1") == 1
    assert _value(fleet, "kat_store_up", worker="0") == 0
    assert _value(fleet, "kat_store_errors_total", kind="oom") == 1
    assert _value(fleet, "kat_sessions_opened_total") == 6
    assert _value(fleet, "kat_grants_opened_total") == 7
    assert _value(fleet, "kat_audit_lost_total") == 8
    assert _value(fleet, "kat_store_asked_again_total") == 1
    assert _value(fleet, "kat_store_fence_moves_total") == 2
    assert _value(fleet, "kat_worker_restarts_total") == 2
    assert _value(fleet, "kat_workers") == 1


def test_the_number_of_series_does_not_depend_on_traffic(fleet: Fleet) -> None:
    """No client can make the exposition grow."""
    before = Exposition(fleet).text()[0].count(b"\n")
    pen = fleet.counters.worker(0)
    for number in range(100):
        pen.decided(b"acl%d" % number, b"unknown_acl", 1)
        pen.connection_opened()
        pen.connection_closed(number, "haproxy")
        pen.store_error(f"error {number}")
    assert Exposition(fleet).text()[0].count(b"\n") == before
