from collections import Counter
from itertools import pairwise

import pytest

from spoa.bench.result import Figures, Result, Round
from spoa.bench.sizing import CLUSTER_FACTOR, Cost, costs, ladder, need


def result(part: str, name: str, figures: Figures, **at: float | str) -> Result:
    return Result(part, name, at, [Round(figures, Counter())])


SESSION = result("capacity", "session", {"agent_us": 8.0, "redis_us": 0.6})
CONSUME = result("capacity", "consume", {"agent_us": 12.0, "redis_us": 6.0})
THROUGH = [
    result("haproxy", "kat", {"haproxy_us": 11.0}, haproxy="2.6"),
    result("haproxy", "kat", {"haproxy_us": 30.0}, haproxy="3.2", rate=5000.0),
    result("haproxy", "kat", {"haproxy_us": 18.0}, haproxy="3.2", threads=1),
    result("haproxy", "kat", {"haproxy_us": 25.0}, haproxy="3.2", threads=2),
    result("haproxy", "kat session", {"haproxy_us": 16.0}, haproxy="3.2", threads=1),
    result("haproxy", "no filter", {"haproxy_us": 6.0}, haproxy="3.2"),
]


def test_costs_are_those_of_the_closed_loop() -> None:
    """HAProxy's is that of one thread of its last version, at its maximum, asking the agent."""
    assert costs([CONSUME, *THROUGH, SESSION]) == [
        Cost("session", {"agent": 8.0, "redis": 0.6, "haproxy": 16.0}),
        Cost("consume", {"agent": 12.0, "redis": 6.0, "haproxy": 18.0}),
    ]


def test_haproxy_need_not_be_measured() -> None:
    """Without it the two others are told."""
    assert costs([SESSION]) == [Cost("session", {"agent": 8.0, "redis": 0.6})]


def test_nothing_comes_of_nothing() -> None:
    """Without a closed loop there is nothing to compute with."""
    assert costs(THROUGH) == []


def test_a_rate_takes_so_many_cores() -> None:
    """100,000 session hits/s of 8 us are 0.8 cores, and at 60 % utilisation two workers."""
    (cost,) = costs([SESSION, *THROUGH])
    found = need(cost, 100_000)
    assert found.units == {"agent": 2, "redis": 1, "haproxy": 3}
    assert found.bottleneck == "haproxy"


def test_a_rate_that_just_fits_takes_no_more() -> None:
    """0.6 cores of work are one core at 60 %, whatever floats make of it."""
    cost = Cost("session", {"agent": 2.0, "redis": 0.1})
    assert [need(cost, rate).units["agent"] for rate in (300_000, 300_001)] == [1, 2]
    assert need(cost, 900_000).units["agent"] == 3


def test_one_redis_more_is_a_cluster() -> None:
    """Where one Redis is not enough, every request costs what it costs in a cluster."""
    (cost,) = costs([CONSUME])
    assert need(cost, 100_000).units == {"agent": 2, "redis": 1}
    found = need(cost, 200_000)
    assert found.units["redis"] == -int(-200_000 * 6e-6 * CLUSTER_FACTOR["redis"] // 0.6)
    assert found.units["agent"] == -int(-200_000 * 12e-6 * CLUSTER_FACTOR["agent"] // 0.6)


def test_each_rung_helps_the_bottleneck() -> None:
    """From rung to rung only what was full is doubled, until the rate is borne."""
    (cost,) = costs([SESSION, *THROUGH])
    rungs = ladder(cost, 200_000)
    assert rungs[0].units == {"agent": 1, "redis": 1, "haproxy": 1}
    assert rungs[0].bears == pytest.approx(0.6e6 / 16)
    for lower, upper in pairwise(rungs):
        grown = {who: upper.units[who] // lower.units[who] for who in lower.units}
        assert grown == {**dict.fromkeys(lower.units, 1), lower.bottleneck: 2}
    assert rungs[-1].bears >= 200_000 > rungs[-2].bears
