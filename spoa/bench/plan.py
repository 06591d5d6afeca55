"""The run: which rounds, in which order, against whom; one Result per line of the table."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from spoa.bench import echo
from spoa.bench.options import Options
from spoa.bench.player import Job
from spoa.bench.result import Result
from spoa.bench.rounds import Measured, play_round
from spoa.bench.scenario import ACLS, WITHOUT_AUDIT, Asked, Scenario
from spoa.bench.servers import Server, private_redis, real_agent

_WARM_UP_SHARE = 0.2
_WARM_UP_RATE = 50_000
_LEAST_REQUESTS = 500

_SETTINGS = {Asked.AGENT: ACLS, Asked.UNAUDITED: {**ACLS, **WITHOUT_AUDIT}}

Say = Callable[[str], None]


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
class _Line:
    """A line of the table while it is measured: its job, who works on it, what came of it."""

    job: Job
    measured: Mapping[str, Measured]
    rate: float | None
    result: Result

    def __str__(self) -> str:
        return f"{self.job.scenario} {self.rate:g}/s" if self.rate else str(self.job.scenario)


def run(options: Options, directory: Path, say: Say) -> list[Result]:
    """Measure everything that was asked for.

    First the first round of all lines, then the second one backwards, and so on: a machine that
    becomes slower, or faster, does so for all of them, and their ratios hold.
    """
    with ExitStack() as stack:
        say("starting Redis and the agents")
        lines = list(_lines(options, directory, stack))
        lines = [_sized(options, line, say) for line in lines]
        for number in range(options.rounds):
            for line in lines if number % 2 == 0 else reversed(lines):
                say(f"{line}: round {number + 1} of {options.rounds}, {line.job.requests} requests")
                line.result.rounds.append(play_round(line.job, options.generators, line.measured))
        return [line.result for line in lines]


def _lines(options: Options, directory: Path, stack: ExitStack) -> Iterator[_Line]:
    """Start whom these scenarios need, and say what each of them asks."""
    cores = cores_of(options)
    store: Server | None = None
    agents: dict[Asked, Server] = {}
    for scenario in options.scenarios:
        asked = scenario.case.asked
        if asked is Asked.ECHO:
            path = stack.enter_context(echo_agent(directory, cores.agent))
            yield _line(options, scenario, path, "", None, {})
            continue
        if store is None:
            store = stack.enter_context(private_redis(directory))
            store.pin(cores.others)
        if asked not in agents:
            place = directory / asked.value
            starting = real_agent(place, store.socket, options.workers, _SETTINGS[asked])
            agents[asked] = stack.enter_context(starting)
            agents[asked].pin(cores.agent)
        measured = {"agent": agents[asked], "redis": store}
        for rate in options.rates if scenario.case.is_open_loop else (None,):
            yield _line(options, scenario, agents[asked].socket, store.socket, rate, measured)


def _line(  # noqa: PLR0917 - in the order of a sentence: who asks what, of whom, how fast
    options: Options,
    scenario: Scenario,
    agent: str,
    store: str,
    rate: float | None,
    measured: Mapping[str, Measured],
) -> _Line:
    job = Job(
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
    part, at = ("latency", {"rate": rate}) if rate else ("capacity", {})
    return _Line(job, measured, rate, Result(part, str(scenario), at))


def _sized(options: Options, line: _Line, say: Say) -> _Line:
    """Warm up, and see how many requests fill a round.

    A round has a number of requests, not an end: so every token prepared for it is asked for,
    and Redis can be asked for all of them afterwards.
    """
    say(f"{line}: warming up")
    warm_up = _with(line.job, line.job.rate * options.seconds * _WARM_UP_SHARE)
    reached = play_round(warm_up, options.generators, line.measured).figures
    rate = line.rate or reached.get("requests_per_s", 0)
    return replace(line, job=_with(line.job, rate * options.seconds))


def _with(job: Job, requests: float) -> Job:
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
