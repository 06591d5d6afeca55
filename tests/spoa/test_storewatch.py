"""What a worker makes of a new connection to its store: whether a fence has moved."""

import json

import pytest

from spoa.counters import Counters
from spoa.worker.storewatch import StoreWatch
from tokens.audit import Journal
from tokens.question import Fence
from tokens.record import Keys

KEYS = Keys()
ONE, OTHER, THIRD = (name * 40 for name in (b"a", b"b", b"c"))

CASES: dict[str, tuple[list[Fence], list[int]]] = {
    "the first one": ([Fence(ONE, 10)], []),
    "the same again": ([Fence(ONE, 10), Fence(ONE, 10)], []),
    "another server": ([Fence(ONE, 10), Fence(OTHER, 20)], [20]),
    "and the first one again": ([Fence(ONE, 10), Fence(OTHER, 20), Fence(ONE, 10)], [20]),
    "a clock that is behind": ([Fence(ONE, 10), Fence(OTHER, 5)], [5]),
    "the same server, later": ([Fence(ONE, 10), Fence(ONE, 20)], [20]),
    "a cluster": ([Fence(ONE, 10), Fence(OTHER, 10), Fence(THIRD, 10)], []),
    "one of a cluster": ([Fence(ONE, 10), Fence(OTHER, 10), Fence(THIRD, 20)], [20]),
    "no fence": ([Fence(ONE, 0), Fence(OTHER, 0)], []),
}


@pytest.mark.parametrize(("met", "moves"), CASES.values(), ids=CASES)
def test_a_fence_that_moved_is_told_once(met: list[Fence], moves: list[int]) -> None:
    """A later date is told and counted, once; a server's name alone says nothing."""
    told: list[bytes] = []
    counters = Counters(["demo"], 1)
    journal = Journal(KEYS.audit, 0, told.append)
    watch = StoreWatch(counters.worker(0), journal)
    for fence in met:
        watch.greeted(fence)
    journal.take(0.0)
    events = [event for batch in told for event in json.loads(batch)]
    assert [event["since"] for event in events] == moves
    assert counters.block(0)[0][counters.layout.fence_moves] == len(moves)
