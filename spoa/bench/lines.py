"""Lines of a table while they are measured: sized by a warm-up, then played in turn."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from spoa.bench.fault import Fault
from spoa.bench.load.player import Job
from spoa.bench.options import Options
from spoa.bench.progress import Progress
from spoa.bench.result import Result, Round
from spoa.bench.rounds import Measured, in_turn, play_round
from spoa.bench.scenario import Scenario
from spoa.bench.servers import Server

WARM_UP_SHARE = 0.2
_WARM_UP_RATE = 50_000
LEAST_REQUESTS = 500


@dataclass(frozen=True, slots=True)
class Cores:
    """Where processes may run."""

    agent: tuple[int, ...]
    others: tuple[int, ...]


def cores_of(options: Options) -> Cores:
    """Give the agent the last core to itself when pinned; else all cores to everybody."""
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    return Cores(allowed[-1:], allowed[:-1]) if options.pin else Cores(allowed, allowed)


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its job, whose CPU time is counted, what came of it."""

    job: Job
    measured: Mapping[str, Measured]
    result: Result

    def __str__(self) -> str:
        under = (f"{value:g}/s" if key == "rate" else f"{key} {value}" for key, value in self._at())
        return ", ".join([self.result.name, *under])

    def _at(self) -> Iterable[tuple[str, float | str]]:
        return self.result.at.items()


def job_of(options: Options, scenario: Scenario, agent: str, store: str, rate: float | None) -> Job:
    """Describe a round that has no size yet."""
    return Job(
        scenario=scenario,
        requests=0,
        connections=options.connections,
        in_flight=options.in_flight,
        rate=rate or _WARM_UP_RATE,
        users=options.users,
        agent_socket=agent,
        redis_socket=store,
        cores=cores_of(options).others,
    )


def measure(lines: Iterable[Line], options: Options, progress: Progress) -> list[Result]:
    """Play all rounds of all lines.

    First the first round of all lines, then the second one backwards, and so on: a machine that
    becomes slower, or faster, does so for all of them, and their ratios hold.
    """
    lines = list(lines)
    progress.begin(len(lines) * (options.rounds + 1))
    lines = [_sized(options, line, progress) for line in lines]
    for number in range(options.rounds):
        for line in in_turn(lines, number):
            progress(f"{line}: {line.job.requests:,} requests")
            line.result.rounds.append(_play(line.job, options, line.measured))
            progress.advance()
    return [line.result for line in lines]


def _sized(options: Options, line: Line, progress: Progress) -> Line:
    """Warm up, and see how many requests fill a round.

    A round has a number of requests, not an end: so every token prepared for it is asked for,
    and Redis can be asked for all of them afterwards.
    """
    progress(f"{line}: warming up")
    warm_up = of_size(line.job, line.job.rate * options.seconds * WARM_UP_SHARE)
    reached = _play(warm_up, options, line.measured).figures
    progress.advance()
    is_open = line.job.scenario.case.is_open_loop
    rate = line.job.rate if is_open else reached.get("requests_per_s", 0)
    return replace(line, job=of_size(line.job, rate * options.seconds))


def _play(job: Job, options: Options, measured: Mapping[str, Measured]) -> Round:
    try:
        return play_round(job, options.generators, measured)
    except (Fault, OSError):
        # Of a server that has died, its last words tell more than a connection that is refused.
        for server in measured.values():
            if isinstance(server, Server):
                server.check()
        raise


def of_size(job: Job, requests: float) -> Job:
    """Give a job so many requests, or the least that say anything."""
    return replace(job, requests=max(int(requests), LEAST_REQUESTS))
