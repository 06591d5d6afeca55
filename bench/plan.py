"""The run: which rounds, how long each, against whom; one Result per line of the table."""

import multiprocessing
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from bench import echo
from bench.options import Options
from bench.player import Job, Scenario
from bench.rounds import Figures, Measured, Round, play_round
from bench.servers import Server, private_redis, real_agent

_WARM_UP_SHARE = 0.1
_WARM_UP_RATE = 50_000
_LEAST_REQUESTS = 500

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one scenario, at one rate."""

    scenario: Scenario
    rate: float | None
    rounds: list[Round] = field(default_factory=list)

    @property
    def median(self) -> Figures:
        """The median of each figure by itself."""
        names = dict.fromkeys(name for one in self.rounds for name in one.figures)
        return {
            name: median(one.figures[name] for one in self.rounds if name in one.figures)
            for name in names
        }

    @property
    def wrong(self) -> Counter[str]:
        """Everything that was wrong in any round, by what it was."""
        return sum((one.wrong for one in self.rounds), Counter[str]())


@dataclass(frozen=True, slots=True)
class Cores:
    """Where processes may run."""

    agent: tuple[int, ...]
    others: tuple[int, ...]


def cores_of(options: Options) -> Cores:
    """Give the agent the last core to itself when pinned; else all cores to everybody."""
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    return Cores(allowed[-1:], allowed[:-1]) if options.pin else Cores(allowed, allowed)


def run(options: Options, directory: Path, say: Say) -> Iterator[Result]:
    """Measure everything that was asked for, in a fixed order."""
    if Scenario.CEILING in options.scenarios:
        yield _measure_ceiling(options, directory, say)
    against_agent = [one for one in options.scenarios if one is not Scenario.CEILING]
    if not against_agent:
        return
    say("starting Redis and the agent")
    with (
        private_redis(directory) as store,
        real_agent(directory, store.socket, options.workers) as agent,
    ):
        _pin(options, store, agent)
        measured = {"agent": agent, "redis": store}
        for scenario in against_agent:
            rates = options.rates if scenario is Scenario.OPEN else (None,)
            for rate in rates:
                job = _job(options, scenario, agent.socket, store.socket, rate)
                yield _measure(options, job, rate, measured, say)


def _pin(options: Options, store: Server, agent: Server) -> None:
    cores = cores_of(options)
    store.pin(cores.others)
    agent.pin(cores.agent)


def _measure_ceiling(options: Options, directory: Path, say: Say) -> Result:
    with echo_agent(directory, cores_of(options).agent) as path:
        job = _job(options, Scenario.CEILING, path, "", None)
        return _measure(options, job, None, {}, say)


def _job(options: Options, scenario: Scenario, agent: str, store: str, rate: float | None) -> Job:
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


def _measure(
    options: Options, job: Job, rate: float | None, measured: Mapping[str, Measured], say: Say
) -> Result:
    """Warm up, then play the rounds.

    A round has a number of requests, not an end: so every token prepared for it is asked for,
    and Redis can be asked for all of them afterwards. A warm-up tells how many fit the time.
    """
    result = Result(job.scenario, rate)
    name = f"{job.scenario} {rate:g}/s" if rate else str(job.scenario)
    say(f"{name}: warming up")
    warm_up = _sized(job, job.rate * options.seconds * _WARM_UP_SHARE)
    reached = play_round(warm_up, options.generators, measured).figures.get("requests_per_s", 0)
    sized = _sized(job, (rate or reached) * options.seconds)
    for number in range(options.rounds):
        say(f"{name}: round {number + 1} of {options.rounds}, {sized.requests} requests")
        result.rounds.append(play_round(sized, options.generators, measured))
    return result


def _sized(job: Job, requests: float) -> Job:
    return replace(job, requests=max(int(requests), _LEAST_REQUESTS))


@contextmanager
def echo_agent(directory: Path, cores: Sequence[int]) -> Iterator[str]:
    path = str(directory / "echo.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(512)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=echo.serve, args=(listener, cores), daemon=True)
        process.start()
    try:
        yield path
    finally:
        process.terminate()
        process.join()
