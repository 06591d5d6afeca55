"""From what a request costs to what a site needs. Pure.

Measured are microseconds of CPU per request, of the agent, of Redis and of HAProxy. Computed is
what one core does, how many cores a rate takes, and which of the three is the first to be full.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from spoa.bench.result import Figures, Result

UTILISATION: Final = 0.6
"""How much of a core is given away: what queues for a fuller one is felt."""

TARGETS: Final = (10_000, 100_000, 1_000_000)
KINDS: Final = ("session", "consume", "mixed")
THROUGH: Final = {"session": "kat session", "consume": "kat", "mixed": "kat session"}
"""What the part `haproxy` calls them. Of what is mixed most are session hits."""

LADDER_TO: Final = 100_000

AGENT: Final = "agent"
REDIS: Final = "redis"
HAPROXY: Final = "haproxy"
# In a cluster the keys of a batch live apart: redeem.lua is called for each token, GET takes the
# place of MGET. Over loopback TCP a cluster of one node took 15.9 to 17.0 us of Redis per consume
# where a server without took 7.1 to 8.1, and 1.7 per session hit instead of 0.85; of the agent
# 19 to 22 instead of 12.5, and 12.5 instead of 8.5 (CPython 3.11, Redis 7.0, 16 x 20).
CLUSTER_FACTOR: Final = {"agent": 1.6, "redis": 2.1, "haproxy": 1.0}
"""What a request costs where Redis is a cluster, against one Redis alone."""

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU in us that one request of a kind takes, by who spends it."""

    kind: str
    us: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Need:
    """How many of each it takes for a rate, and who has the most to do."""

    kind: str
    requests_per_s: int
    units: Mapping[str, int]
    bottleneck: str


@dataclass(frozen=True, slots=True)
class Rung:
    """So many of each bear so much; one more of the bottleneck is what helps."""

    units: Mapping[str, int]
    bears: float
    """requests/s"""
    bottleneck: str


def costs(lines: Sequence[Result]) -> list[Cost]:
    """Find what each kind of request costs; nothing of what was not measured."""
    return [
        _cost(line, haproxy_us(lines, THROUGH[kind]))
        for kind in KINDS
        for line in _capacity(lines, kind)
    ]


def haproxy_us(results: Iterable[Result], name: str) -> dict[str, float]:
    """Find what such a request costs HAProxy; nothing if it was not measured.

    Of several measurements that of the last version counts, at its maximum rather than at a rate,
    of one thread rather than of several: they share a core's caches with nobody.
    """
    asked = [
        (_version(one), "rate" not in one.at, one.at.get("threads") == 1, one.median["haproxy_us"])
        for one in results
        if (one.part, one.name) == ("haproxy", name) and "haproxy_us" in one.median
    ]
    return {HAPROXY: max(asked)[-1]} if asked else {}


def per_core(us: float) -> float:
    """Say what one core would do if nothing else held it up."""
    return MILLION / us


def need(cost: Cost, requests_per_s: int, utilisation: float = UTILISATION) -> Need:
    """Say how many of each a rate takes. More than one Redis is a cluster, where it costs more."""
    load = {who: requests_per_s * us / MILLION for who, us in cost.us.items()}
    if load[REDIS] > utilisation:
        load = {who: cores * CLUSTER_FACTOR[who] for who, cores in load.items()}
    units = {who: max(1, _units(cores, utilisation)) for who, cores in load.items()}
    return Need(cost.kind, requests_per_s, units, max(load, key=load.__getitem__))


def ladder(cost: Cost, up_to: int = LADDER_TO, utilisation: float = UTILISATION) -> list[Rung]:
    """Begin with one of each, and double what is the first to be full, until the rate is borne."""
    units = dict.fromkeys(cost.us, 1)
    rungs: list[Rung] = []
    while not rungs or rungs[-1].bears < up_to:
        if rungs:
            units[rungs[-1].bottleneck] *= 2
        bears = _bears(cost, units, utilisation)
        bottleneck = min(bears, key=bears.__getitem__)
        rungs.append(Rung(dict(units), bears[bottleneck], bottleneck))
    return rungs


def _capacity(lines: Iterable[Result], kind: str) -> Iterator[Result]:
    for line in lines:
        if line.part == "capacity" and line.name == kind and _is_whole(line.median):
            yield line
            return


def _is_whole(median: Figures) -> bool:
    return all(median.get(f"{who}_us") for who in (AGENT, REDIS))


def _cost(line: Result, shared: Mapping[str, float]) -> Cost:
    own = {who: line.median[f"{who}_us"] for who in (AGENT, REDIS)}
    return Cost(line.name, {**own, **shared})


def _version(line: Result) -> tuple[int, ...]:
    numbers = str(line.at.get("haproxy", "")).split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())


def _units(cores: float, utilisation: float) -> int:
    # A rate that just fits must not take one more because 0.6 has no last digit.
    return ceil(round(cores / utilisation, 9))


def _bears(cost: Cost, units: Mapping[str, int], utilisation: float) -> dict[str, float]:
    """Say how many requests/s so many of each bear, each for itself."""
    is_cluster = units[REDIS] > 1
    factors = CLUSTER_FACTOR if is_cluster else dict.fromkeys(units, 1.0)
    return {
        who: units[who] * utilisation * per_core(us * factors[who]) for who, us in cost.us.items()
    }
