"""The parts of the benchmark: what each says, what it does not, and which figures tell it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from spoa.bench.result import Result


@dataclass(frozen=True, slots=True)
class Part:
    """What a reader has to know about one part."""

    name: str
    title: str
    says: str
    says_not: str
    figures: Sequence[str] = ()
    """The columns of its table, so far as they were measured. What is unusual follows them."""
    compared: Sequence[str] = ("requests_per_s", "per_agent_core", "per_redis_core")


_CPU: Final = ("haproxy_us", "agent_us", "redis_us", "generator_us")
_PER_CORE: Final = ("per_agent_core", *_CPU)
_TAIL: Final = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "p99.99_ms", "max_ms")
_FELT: Final = ("requests_per_s", "haproxy_us", "agent_us", "redis_us", "p50_ms", "p99_ms")

PARTS: Final = (
    Part(
        "capacity",
        "Capacity",
        "Closed loop: the next request leaves when an answer has come. CPU in us per request; a "
        "core's worth is 1,000,000 / agent us: what one core would do if nothing else held it up.",
        "Its latency is that of full queues. Where the processes share cores, requests/s is lower "
        "than what a core is worth, and flatters whatever asks less of Redis.",
        ("requests_per_s", *_PER_CORE, "p50_ms", "p99_ms", "memory_mb"),
    ),
    Part(
        "latency",
        "Latency",
        "Open loop: requests leave on a fixed schedule whatever the answers do, and latency counts "
        "from the scheduled moment, so a stall is paid by every request that it delays. What is "
        "called late of it is the generator's own.",
        "A request that comes alone costs wake-ups that a batch would share. Where the CPU of all "
        "processes together comes near the machine's cores, the tail is the machine's, not the "
        "agent's.",
        ("requests_per_s", *_CPU, *_TAIL, "late_p99_ms"),
        _FELT,
    ),
    Part(
        "placement",
        "Where Redis is",
        "The same requests with Redis on a unix socket, on loopback TCP, and with a delay added on "
        "the way.",
        "An added delay is constant; a real network also varies, loses and is shared.",
        ("requests_per_s", *_PER_CORE, *_TAIL),
        _FELT,
    ),
    Part(
        "haproxy",
        "Through HAProxy",
        "Requests of HTTP clients through a real HAProxy. Who answers its filter is named; what "
        "the echo agent costs is SPOE itself, the difference to it is the agent's.",
        "HAProxy itself is the limit of most of it, and clients, HAProxy, agent and Redis share "
        "one machine.",
        ("requests_per_s", *_CPU, *_TAIL),
        ("requests_per_s", "haproxy_us"),
    ),
    Part(
        "growth",
        "When it grows",
        "What a request costs, and what memory is used, as one thing grows and all else stays.",
        "One thing at a time, up to the largest number shown: nothing is said beyond it.",
        ("requests_per_s", *_PER_CORE, "p50_ms", "p99_ms", "memory_mb"),
        _FELT,
    ),
    Part(
        "disturbed",
        "When it is disturbed",
        "The same honest requests, calm and then beside a disturbance.",
        "One disturbance at a time, and it takes its CPU from the same cores.",
        ("requests_per_s", "agent_us", "redis_us", *_TAIL),
        ("requests_per_s", "agent_us", "p50_ms", "p99_ms", "p99.9_ms"),
    ),
    Part(
        "peers",
        "Other agents",
        "The same exchange with other agents, on the same machine, in the same run.",
        "What else an agent promises is not compared, only what the exchange costs.",
        ("requests_per_s", *_PER_CORE, "p50_ms", "p99_ms", "memory_mb"),
        ("requests_per_s", "per_agent_core"),
    ),
)


def chosen(results: Sequence[Result]) -> Iterator[tuple[Part, list[Result]]]:
    """Sort results into their parts; one that nobody described comes last, under its own name."""
    described = [part.name for part in PARTS]
    strange = dict.fromkeys(one.part for one in results if one.part not in described)
    for part in (*PARTS, *(Part(name, name, "", "") for name in strange)):
        if mine := [one for one in results if one.part == part.name]:
            yield part, mine


def not_measured(results: Sequence[Result]) -> str:
    """Say what nobody may read out of these results; true of the parts that were chosen."""
    measured = {one.part for one in results}
    left_out = [what for what, parts in _LEFT_OUT if not measured.intersection(parts)]
    if not any("memory_mb" in one.median for one in results):
        left_out.append("memory")
    return (
        f"Not measured: {', '.join([*left_out, *_NEVER])}. Everything runs on one machine: "
        "absolute figures hold for it on one day, ratios within one run hold better."
    )


_LEFT_OUT: Final = (
    ("HAProxy and its clients", ("haproxy",)),
    ("latency at a fixed rate", ("latency", "haproxy", "placement", "disturbed")),
    ("other ways to Redis", ("placement",)),
    ("growth", ("growth",)),
    ("connection set-up and disturbances", ("disturbed",)),
)
"""What only some parts measure."""

_NEVER: Final = (
    "a real network",
    "TLS",
    "more than one Redis, replicas, persistence",
    "revocations and blocks in force",
)
