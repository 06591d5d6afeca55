"""What honest requests notice of a flood and of a crowd; and whether memory grows in the long run.

The honest ones consume at a fixed rate, over connections of their own; their latency counts from
the scheduled moment. In each round they are first alone, then disturbed in each way. CPU is not
told: agent and Redis work for both sides.

    flood              well-formed tokens that nobody issued: at half of what the agent bears of
                       them alone, and in a closed loop, as fast as answers come
    malformed flood    tokens with a wrong checksum, the same two ways
    connection burst   1,000 connections at once, all greeted, all closed, again after a second
    memory             all kinds of requests, one after the other, and crowds between them
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from math import inf
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import redis

from spoa.bench.beside import Doing, beside
from spoa.bench.crowd import Crowd
from spoa.bench.fault import Fault
from spoa.bench.flood import Flood
from spoa.bench.load.player import Job
from spoa.bench.memory import Watch, trend
from spoa.bench.options import Options, Part
from spoa.bench.progress import Progress
from spoa.bench.result import Figures, Result, Round
from spoa.bench.rounds import in_turn
from spoa.bench.scenario import Scenario
from spoa.bench.stage import Stage, is_quick, stage

HONEST_PER_S: Final = 2000
LONGER: Final = 5
"""So many times a usual round: one request of a thousand must happen often enough."""

CROWD: Final = 1000
CROWD_PAUSE_S: Final = 1.0
HALF: Final = 0.5

MINUTES_VARIABLE: Final = "KAT_BENCH_MINUTES"
"""How long memory is watched. The claim is for 10; a usual run only shows that it works."""
MINUTES: Final = 1.0
QUICK_MINUTES: Final = 0.1
_LOOK_S: Final = 0.5

ALL_KINDS: Final = (
    Scenario.MIXED,
    Scenario.SESSION_OPEN,
    Scenario.UNKNOWN,
    Scenario.MIXED,
    Scenario.SESSION_COLD,
    Scenario.CONSUME,
)

_OURS = ("agent_us", "redis_us", "memory_mb", "rss_mb", "agent_memory_mb", "redis_memory_mb")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One way to disturb, what else is known of it, and the rounds so disturbed."""

    doing: Doing
    known: Figures
    result: Result


def run(options: Options, directory: Path, progress: Progress) -> list[Result]:
    """Disturb in each way, then watch the memory."""
    lasting_minutes = minutes(options)  # a mistake is told before a minute has passed
    with stage(options, directory / "l") as on:
        results = list(_latencies(on, progress))
    with stage(options, directory / "m") as on:
        return [*results, watched(on, lasting_minutes, progress)]


def minutes(options: Options) -> float:
    """Say for how long memory is watched. Raises Fault for what is no number above 0."""
    text = os.environ.get(MINUTES_VARIABLE)
    if text is None:
        return QUICK_MINUTES if is_quick(options) else MINUTES
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < inf:
        raise Fault(f"{MINUTES_VARIABLE} is {text!a}: must be a number above 0")
    return number


def _latencies(on: Stage, progress: Progress) -> Iterator[Result]:
    options = on.options
    disturbances = list(_disturbances(on, progress))
    seconds = max(LONGER * options.seconds, 2 * CROWD_PAUSE_S)
    job = on.job(Scenario.OPEN, options.connections, options.in_flight, HONEST_PER_S)
    job = replace(job, requests=int(HONEST_PER_S * seconds))
    calm: list[Round] = []
    progress.begin((len(disturbances) + 1) * options.rounds)
    for number in range(options.rounds):
        progress("calm")
        calm.append(_honest(on.play(job)))
        progress.advance()
        for one in in_turn(disturbances, number):
            progress(one.result.name)
            one.result.rounds.append(disturb(on, job, one))
            progress.advance()
    for one in disturbances:
        yield Result(Part.DISTURBED, one.result.name, {"phase": "calm"}, calm)
        yield one.result


def disturb(on: Stage, job: Job, one: Disturbance) -> Round:
    """Play the honest requests while they are disturbed."""
    with beside(one.doing) as companion:
        honest = _honest(on.play(job))
        other = companion.stop()
    return Round(honest.figures | one.known | other.figures, honest.wrong + other.wrong)


def _honest(played: Round) -> Round:
    figures = {name: value for name, value in played.figures.items() if name not in _OURS}
    return Round(figures, played.wrong)


def _disturbances(on: Stage, progress: Progress) -> Iterator[Disturbance]:
    options, agent = on.options, on.agent.socket
    for kind, brings in (("flood", Scenario.UNKNOWN), ("malformed flood", Scenario.MALFORMED)):
        progress(f"{kind}: how much of it the agent bears")
        flood = Flood(agent, brings, options.connections, options.in_flight)
        alone = flooded_alone(on, flood, options.seconds)
        known = {"redis_commands_per_guess": alone["redis_commands_per_guess"]}
        slower = replace(flood, rate=HALF * alone["flood_per_s"])
        for how, doing in ((f"{kind}, half of capacity", slower), (f"{kind}, saturating", flood)):
            yield Disturbance(doing, known, Result(Part.DISTURBED, how, {"phase": "disturbed"}))
    crowd = Crowd(agent, CROWD, CROWD_PAUSE_S)
    yield Disturbance(crowd, {}, Result(Part.DISTURBED, "connection burst", {"phase": "disturbed"}))


def flooded_alone(on: Stage, flood: Flood, seconds: float) -> Figures:
    """Flood while nobody else asks: how much of it the agent bears, and what it asks of Redis."""
    with redis.Redis(unix_socket_path=on.store.socket) as client, beside(flood) as companion:
        before = _commands(client)
        sleep(seconds)
        told = companion.stop().figures
        asked = _commands(client) - before
    return told | {"redis_commands_per_guess": round(asked / told["flood"], 4)}


def _commands(client: "redis.Redis") -> int:
    """Count what Redis was asked until now, from within scripts too, but for our own asking."""
    stats: Mapping[str, Mapping[str, int]] = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(one["calls"]) for name, one in stats.items()}
    return sum(count for name, count in calls.items() if name not in {"info", "client|setinfo"})


def watched(on: Stage, lasting_minutes: float, progress: Progress) -> Result:
    """Play all kinds of requests for so long, a crowd after each turn, and watch the memory."""
    options = on.options
    jobs = [on.job(one, options.connections, options.in_flight) for one in ALL_KINDS]
    seconds = 2 * options.seconds
    jobs = [on.sized(job, seconds) for job in jobs]
    crowd = Crowd(on.agent.socket, CROWD, 0.0)
    wrong: Counter[str] = Counter()
    requests = 0.0
    progress.begin()
    with Watch(on.agent.process.pid, on.store.socket, _LOOK_S) as watch:
        ends_at = monotonic() + 60 * lasting_minutes
        for job in cycle(jobs):
            if (left_s := ends_at - monotonic()) <= 0:
                break
            progress(f"memory: {job.scenario}, {left_s:.0f} s to go")
            played = on.play(job)
            requests += played.figures["requests"]
            wrong += played.wrong
            if job is jobs[-1]:
                wrong += _crowd_once(crowd)
    figures = {"requests": requests, **trend(watch.samples)}
    at = {"minutes": round(lasting_minutes, 2)}
    return Result(Part.DISTURBED, "memory", at, [Round(figures, wrong)])


def _crowd_once(crowd: Crowd) -> Counter[str]:
    with beside(crowd) as companion:
        return companion.stop().wrong
