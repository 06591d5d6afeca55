from collections import Counter
from collections.abc import Mapping
from math import nan
from xml.etree import ElementTree as ET

import pytest

from spoa.bench.report.parts import PARTS
from spoa.bench.report.pictures import Picture, pictures
from spoa.bench.result import Result, Round

SVG = "{http://www.w3.org/2000/svg}"
PS = ("p50", "p99")
TAIL = {"p50_ms": 0.2, "p90_ms": 0.5, "p99_ms": 1.0, "p99.9_ms": 4.0, "p99.99_ms": 9.0}


def result(
    part: str, name: str, at: Mapping[str, float | str] | None = None, /, **figures: float
) -> Result:
    return Result(part, name, at or {}, [Round(dict(figures), Counter())])


def timed(part: str, name: str, at: Mapping[str, float | str]) -> Result:
    return Result(part, name, at, [Round({**TAIL, "agent_us": 9, "redis_us": 2}, Counter())])


def names(drawn: list[Picture]) -> list[str]:
    return [picture.name for picture in drawn]


def words(picture: Picture) -> list[str]:
    return [one.text or "" for one in ET.fromstring(picture.svg).iter(f"{SVG}text")]


def test_nothing_makes_no_picture() -> None:
    """Without results, and of results without figures, there is nothing to be seen."""
    assert pictures([]) == []
    parts = [*(part.name for part in PARTS), "strange"]
    assert pictures([result(part, "a") for part in parts]) == []
    assert pictures([result(part, "a", {"rate": 1.0}, p50_ms=nan) for part in parts]) == []


@pytest.mark.parametrize("part", ["capacity", "haproxy", "peers", "placement", "strange"])
def test_throughput_is_bars(part: str) -> None:
    """Each result is there with its name and number, one alone as well."""
    many = [result(part, name, requests_per_s=n) for n, name in ((84_000, "kat"), (7, "b"))]
    for results in (many, many[:1]):
        (drawn,) = pictures(results)
        assert (drawn.name, drawn.part) == (f"{part}-throughput", part)
        for one in results:
            assert {one.name, f"{one.median['requests_per_s']:,.0f}"} <= set(words(drawn))


def test_each_haproxy_has_a_group() -> None:
    """Its bars stand below its name, which they do not repeat."""
    at: Mapping[str, float | str] = {"haproxy": "3.2", "threads": 1}
    (drawn,) = pictures([result("haproxy", "kat", at, requests_per_s=5)])
    assert {"HAProxy 3.2, 1 thread", "kat"} <= set(words(drawn))


def test_latency_has_a_line_for_each_rate() -> None:
    """By percentile and against the load, and what a request costs there."""
    drawn = pictures([timed("latency", "open", {"rate": rate}) for rate in (1e3, 5e3)])
    assert names(drawn) == ["latency-percentiles-open", "latency-load-open", "latency-cost-open"]
    curves, load, cost = map(words, drawn)
    assert {"1,000/s  9", "5,000/s  9", "99.99"} <= set(curves)
    assert {"p50  0.2", "p99  1", "p99.9  4"} <= set(load)
    assert {"agent  9", "redis  2"} <= set(cost)


def test_one_rate_is_no_load() -> None:
    """A line of one point shows nothing: one rate has its percentiles and no more."""
    drawn = pictures([timed("latency", "open", {"rate": 1e3})])
    assert names(drawn) == ["latency-percentiles-open"]


def test_a_percentile_is_drawn_where_requests_lie_beyond_it() -> None:
    """Of 1,000 requests a round the curve ends at 99.9: p99.99 would be the largest again."""
    rounds = [Round({**TAIL, "requests": 1000.0}, Counter())]
    (drawn,) = pictures([Result("latency", "open", {"rate": 1e3}, rounds)])
    assert "99.9" in words(drawn)
    assert "99.99" not in words(drawn)


def test_a_disturbance_is_beside_its_calm() -> None:
    """Each has a picture of its own, with both phases."""
    drawn = pictures(
        [
            timed("disturbed", name, {"phase": phase})
            for name in ("flood", "connection burst")
            for phase in ("calm", "disturbed")
        ]
    )
    assert names(drawn) == [
        "disturbed-percentiles-flood",
        "disturbed-percentiles-connection-burst",
    ]
    assert {"calm  9", "disturbed  9"} <= set(words(drawn[0]))


def test_everybody_who_answers_haproxy_has_a_line() -> None:
    """Against the load, and by percentile at one rate in the middle for each HAProxy."""
    drawn = pictures(
        [
            timed("haproxy", name, {"haproxy": version, "rate": rate})
            for version in ("2.6", "3.2")
            for rate in (1e3, 5e3, 1e4)
            for name in ("no filter", "kat")
        ]
    )
    assert names(drawn) == [
        *(f"haproxy-load-{p}-haproxy-{version}" for version in ("2.6", "3.2") for p in PS),
        *(f"haproxy-percentiles-haproxy-{version}-5-000-s" for version in ("2.6", "3.2")),
    ]
    assert all({"no filter", "kat"} <= {said.split("  ")[0] for said in words(d)} for d in drawn)


def test_growth_is_one_line_whatever_grows_with_it() -> None:
    """Cost, throughput and memory by what grows; requests in flight that follow change no line."""
    drawn = pictures(
        [
            Result(
                "growth",
                "connections",
                {"connections": count, "in_flight": max(1, 320 // count)},
                [Round({"agent_us": 9, "requests_per_s": 8e4, "memory_mb": 40 + count}, Counter())],
            )
            for count in (16, 1000)
        ]
    )
    assert names(drawn) == [
        f"growth-{kind}-by-connections" for kind in ("cost", "throughput", "memory")
    ]
    assert {"16", "1,000", "connections"} <= set(words(drawn[2]))


def test_growth_of_workers_is_by_scenario() -> None:
    """What is asked makes another picture."""
    results = [
        result("growth", "workers", {"workers": n, "scenario": asked}, memory_mb=40.0)
        for n in (1, 2)
        for asked in ("session", "consume")
    ]
    assert names(pictures(results)) == [
        f"growth-memory-by-workers-{asked}" for asked in ("session", "consume")
    ]


def test_what_redis_stores_is_bars_by_kind() -> None:
    """Bytes of a token, a session, a grant stand beside each other."""
    results = [
        result("growth", "stored in Redis", {"kind": kind}, redis_bytes=size)
        for kind, size in (("token", 310), ("grant", 120))
    ]
    (drawn,) = pictures(results)
    assert {"token", "310", "grant", "120"} <= set(words(drawn))


def test_only_the_agent_is_coloured() -> None:
    """Others are grey, as are another build and the generator's ceiling."""
    ours = [result("peers", "kat session", {}, requests_per_s=1)]
    others = [
        result("peers", "katalog", {}, requests_per_s=1),
        result("capacity", "consume", {"build": "old"}, requests_per_s=1),
        result("capacity", "ceiling", {}, requests_per_s=1),
    ]
    assert all('<rect class="ours"' in drawn.svg for drawn in pictures(ours))
    assert all('<rect class="ours"' not in drawn.svg for drawn in pictures(others))


def test_names_are_files_and_no_two_are_alike() -> None:
    """Whatever results are called, each picture can be a file of its own."""
    strange = ["a b", "a-b", "../../etc", "<&>", "x" * 300, "x" * 301]
    drawn = pictures([timed("disturbed", name, {"phase": "calm"}) for name in strange])
    found = names(drawn)
    assert len(set(found)) == len(strange)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for name in found)
    assert max(map(len, found)) < 100
    for picture in drawn:
        ET.fromstring(picture.svg)
