"""Counting in shared memory."""

from multiprocessing import get_context

import pytest

from spoa.counters import (
    BATCH_SIZES,
    CLOSED_BY,
    REASONS,
    SECONDS,
    STORE_ERRORS,
    UNKNOWN_ACL,
    Counters,
    merged,
)
from spoa.spop.constants import StatusCode
from tokens.outcome import Outcome

DEADLINE_S = 30


def _count_elsewhere(counters: Counters) -> None:
    counters.worker(1).decided(b"wiki", b"ok", 5)
    counters.worker(1).heartbeat(12.5)


def test_what_another_process_counts_is_seen_here() -> None:
    """A spawned worker writes into the supervisor's own memory."""
    counters = Counters(["wiki"], 2)
    process = get_context("spawn").Process(target=_count_elsewhere, args=(counters,))
    process.start()
    process.join(DEADLINE_S)
    assert process.exitcode == 0
    cells, _ = merged(counters)
    assert cells[counters.layout.request("wiki", "ok")] == 5
    assert counters.heartbeat(1) == 12.5
    assert counters.heartbeat(0) == 0.0


def test_a_new_worker_goes_on_where_the_old_one_stopped() -> None:
    """Counters outlive a worker, gauges do not."""
    counters = Counters(["wiki"], 1)
    old = counters.worker(0)
    old.decided(b"wiki", b"ok", 1)
    old.connection_opened()
    old.sessions_opened(2)
    old.grants_opened(3)
    old.audit_lost(4)
    old.asked_again()
    old.fence_moved()
    old.in_flight(7)
    old.store_up(is_up=True)
    old.heartbeat(1.0)
    counters.forget(0)
    counters.worker(0).decided(b"wiki", b"ok", 1)
    cells, _ = merged(counters)
    layout = counters.layout
    assert cells[layout.request("wiki", "ok")] == 2
    assert cells[layout.opened] == 1
    assert [cells[layout.sessions_opened], cells[layout.grants_opened]] == [2, 3]
    assert [cells[layout.audit_lost], cells[layout.asked_again]] == [4, 1]
    assert cells[layout.fence_moves] == 1
    assert [cells[layout.connections], cells[layout.in_flight]] == [0, 0]
    assert not counters.is_store_up(0)
    assert counters.heartbeat(0) == 0.0


def test_every_reason_of_the_gate_can_be_counted() -> None:
    """The gate reports no reason that has no counter."""
    assert {outcome.reason.decode() for outcome in Outcome} <= set(REASONS)


def test_no_counter_waits_for_a_reason_that_never_comes() -> None:
    """Every series of `reason` can move: what the gate cannot report is not exposed."""
    assert set(REASONS) <= {outcome.reason.decode() for outcome in Outcome}


def test_an_acl_that_is_not_configured_opens_no_new_series() -> None:
    """Whatever a peer calls its ACL, it counts as one and the same."""
    counters = Counters(["wiki"], 1)
    for name in (b"nope", b"\xff", b"", b"Wiki"):
        counters.worker(0).decided(name, b"unknown_acl", 1)
    cells, _ = merged(counters)
    assert cells[counters.layout.request(UNKNOWN_ACL, "unknown_acl")] == 4


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.0001, 0), (0.00011, 1), (1.0, 11), (5.0, 12)]
)
def test_a_value_falls_into_the_bucket_that_ends_with_it(seconds: float, bucket: int) -> None:
    """A bucket includes its upper bound, and what is above all bounds has a bucket too."""
    counters = Counters(["wiki"], 1)
    counters.worker(0).latency(seconds, 3)
    cells, floats = merged(counters)
    start = counters.layout.latency
    assert cells[start : start + len(SECONDS) + 1] == [
        3 if index == bucket else 0 for index in range(len(SECONDS) + 1)
    ]
    assert floats[start + len(SECONDS) + 1] == pytest.approx(3 * seconds)


def test_no_two_counts_share_a_cell() -> None:
    """Each thing that can be counted changes its own cells and no other's."""
    counters = Counters(["a", "b"], 1)
    pen = counters.worker(0)
    touched: set[int] = set()
    steps = [
        *(lambda a=acl, r=reason: pen.decided(a, r.encode(), 1)
          for acl in (b"a", b"b", b"?") for reason in REASONS),
        *(lambda s=status, by=by: pen.connection_closed(s, by)
          for status in StatusCode for by in CLOSED_BY),
        *(lambda s=status: pen.protocol_error(s) for status in StatusCode),
        *(lambda k=kind: pen.store_error(k) for kind in STORE_ERRORS),
        *(lambda s=bound: pen.latency(s, 1) for bound in (*SECONDS, 9.0)),
        *(lambda s=bound: pen.redis_round_trip(s) for bound in (*SECONDS, 9.0)),
        *(lambda s=bound: pen.batch(int(s)) for bound in (*BATCH_SIZES, 999)),
        lambda: pen.sessions_opened(2),
        lambda: pen.grants_opened(2),
        lambda: pen.audit_lost(2),
        pen.asked_again,
        pen.fence_moved,
        lambda: pen.store_up(is_up=True),
        lambda: pen.in_flight(1),
        lambda: pen.heartbeat(1.0),
    ]  # fmt: skip
    shared = {counters.layout.connections}
    sums = {
        counters.layout.latency + len(SECONDS) + 1,
        counters.layout.redis + len(SECONDS) + 1,
        counters.layout.batch + len(BATCH_SIZES) + 1,
    }
    for step in steps:
        pen.connection_opened()
        before = merged(counters)[0]
        step()
        after = merged(counters)[0]
        changed = {cell for cell, (x, y) in enumerate(zip(before, after, strict=True)) if x != y}
        own = changed - shared - sums
        assert len(own) == 1
        assert not own & touched
        touched |= own


def test_a_status_that_spop_does_not_know_counts_as_unknown() -> None:
    """HAProxy may say any number; the number of series stays the same."""
    counters = Counters([], 1)
    pen = counters.worker(0)
    pen.connection_opened()
    pen.connection_closed(2**40, "haproxy")
    pen.store_error("never heard of")
    cells, _ = merged(counters)
    layout = counters.layout
    assert cells[layout.disconnect(StatusCode.UNKNOWN, "haproxy")] == 1
    assert cells[layout.store_errors + STORE_ERRORS.index("other")] == 1
