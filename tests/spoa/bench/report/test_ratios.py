from collections import Counter
from collections.abc import Mapping
from math import inf

import pytest

from spoa.bench.report.parts import PARTS
from spoa.bench.report.ratios import ratios_of
from spoa.bench.result import Result, Round

PART = {part.name: part for part in PARTS}


def result(part: str, name: str, at: Mapping[str, float | str], *agent_us: float) -> Result:
    rounds = [
        Round({"requests_per_s": 3e5 / us, "agent_us": us, "p99_ms": us}, Counter())
        for us in agent_us
    ]
    return Result(part, name, at, rounds)


def names_of(part: str, *results: Result) -> list[str]:
    return [name for name, _ in ratios_of(PART[part], results)]


def test_ratios_are_of_rounds_side_by_side() -> None:
    """A machine that slows down does so for both: each pair counts, and their median is shown."""
    consume = result("capacity", "consume", {}, 10, 20, 44)
    session = result("capacity", "session", {}, 5, 10, 11)
    ((name, figures),) = ratios_of(PART["capacity"], [consume, session])
    assert name == "session / consume"
    assert figures == {"requests_per_s": 2.0, "per_agent_core": 2.0}


def test_what_was_not_measured_has_no_ratio() -> None:
    """One scenario alone is compared with nothing, and a zero with nobody."""
    assert names_of("capacity", result("capacity", "session", {}, 5.0)) == []
    zero = Result("capacity", "consume", {}, [Round({"requests_per_s": 0.0}, Counter())])
    assert names_of("capacity", result("capacity", "session", {}, 5.0), zero) == []
    endless = Result("capacity", "consume", {}, [Round({"requests_per_s": inf}, Counter())])
    assert names_of("capacity", result("capacity", "session", {}, 5.0), endless) == []


@pytest.mark.parametrize("name", ["unknown", "wrong-acl", "replay", "malformed", "mixed", "bound"])
def test_every_scenario_is_compared_with_a_consume(name: str) -> None:
    """Whatever is asked, it is known how much more of it there could be."""
    found = names_of(
        "capacity", result("capacity", "consume", {}, 1), result("capacity", name, {}, 1)
    )
    assert found == [f"{name} / consume"]


def test_builds_are_compared_with_this_one() -> None:
    """Each scenario of another build is compared with the same one of this; within a build, too."""
    results = [
        result("capacity", name, {"build": build}, us)
        for name, us in (("consume", 10), ("session", 5))
        for build, us in (("old", 2 * us), ("this", us))
    ]
    found = dict(ratios_of(PART["capacity"], results))
    assert list(found) == [
        *("session / consume, old", "session / consume, this"),
        *("consume: old / this", "session: old / this"),
    ]
    assert found["consume: old / this"]["per_agent_core"] == 0.5


def test_a_disturbance_is_compared_with_the_calm() -> None:
    """How much longer the rare request takes is the answer that a disturbance gives."""
    calm = result("disturbed", "flood", {"phase": "calm"}, 1)
    other = result("disturbed", "burst", {"phase": "calm"}, 1)
    disturbed = result("disturbed", "flood", {"phase": "disturbed"}, 4)
    ((name, figures),) = ratios_of(PART["disturbed"], [calm, other, disturbed])
    assert (name, figures["p99_ms"]) == ("flood: disturbed / calm", 4)


def test_places_are_compared_with_the_socket() -> None:
    """At one rate and of one scenario, whatever else was measured."""
    results = [
        result("placement", "open", {"redis": place, "rate": rate}, 1)
        for rate in (1e3, 2e3)
        for place in ("unix", "+1 ms")
    ]
    found = names_of("placement", *results)
    assert found == ["open, 1,000/s: +1 ms / unix", "open, 2,000/s: +1 ms / unix"]


def test_peers_are_compared_however_they_are_connected() -> None:
    """Each has the most that it stands under; the echo agent is nobody's peer."""
    results = [
        result("peers", "echo agent", {"connections": 16}, 1),
        result("peers", "kat consume", {"connections": 16}, 5),
        result("peers", "another", {"connections": 4}, 50),
        result("peers", "another", {"rate": 1e3}, 50),
    ]
    assert names_of("peers", *results) == ["kat consume / another"]


def test_haproxies_are_not_mixed() -> None:
    """Only what was measured behind the same HAProxy is compared."""
    results = [
        result("haproxy", name, {"haproxy": version}, 1)
        for name, version in (("echo agent", "3.2"), ("no filter", "3.2"), ("no filter", "2.6"))
    ]
    assert names_of("haproxy", *results) == ["echo agent / no filter, HAProxy 3.2"]


def test_rounds_that_only_one_has_are_left_out() -> None:
    """Joined files may have different numbers of rounds; pairs are what is compared."""
    consume, session = (
        result("capacity", "consume", {}, 10, 10),
        result("capacity", "session", {}, 5),
    )
    ((_, figures),) = ratios_of(PART["capacity"], [consume, session])
    assert figures["requests_per_s"] == 2
