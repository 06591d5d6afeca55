"""A stage: a Redis and an agent of its own, on which jobs are played and memory is watched.

What grows or is disturbed is measured on stages side by side, one for each point, so that none
inherits the memory of another; and their rounds alternate, as those of a plan do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from spoa.bench.lines import LEAST_REQUESTS, WARM_UP_SHARE, cores_of, job_of, of_size
from spoa.bench.load.channel import Transport
from spoa.bench.load.player import Job
from spoa.bench.memory import Watch, peak
from spoa.bench.options import Options
from spoa.bench.progress import Progress
from spoa.bench.result import Result, Round
from spoa.bench.rounds import in_turn, play_round
from spoa.bench.scenario import ACLS, Scenario
from spoa.bench.servers import Server, private_redis, real_agent

_QUICK_S = 0.5


def is_quick(options: Options) -> bool:
    """Tell whether a run is to show that it works, no more: a few small points will do."""
    return options.seconds < _QUICK_S and options.rounds == 1


@dataclass(frozen=True, slots=True)
class Stage:
    """Who is asked, and who stands behind."""

    options: Options
    store: Server
    agent: Server

    def job(
        self, scenario: Scenario, connections: int, in_flight: int, rate: float | None = None
    ) -> Job:
        """Describe a round of the least size."""
        job = job_of(self.options, scenario, self.agent.socket, self.store.socket, rate)
        return replace(job, requests=LEAST_REQUESTS, connections=connections, in_flight=in_flight)

    def play(self, job: Job) -> Round:
        """Play a round, and look at the memory meanwhile."""
        generators = min(self.options.generators, job.connections)
        with Watch(self.agent.process.pid, self.store.socket) as watch:
            played = play_round(job, generators, {"agent": self.agent, "redis": self.store})
        return Round(played.figures | peak(watch.samples), played.wrong)

    def sized(self, job: Job, seconds: float) -> Job:
        """Warm up, and give the job as many requests as fill that time."""
        warm_up = of_size(job, WARM_UP_SHARE * seconds * job.rate)
        reached = self.play(warm_up).figures.get("requests_per_s", 0)
        return of_size(job, reached * seconds)


@contextmanager
def stage(options: Options, directory: Path, workers: int = 1) -> Iterator[Stage]:
    """Start a Redis and an agent in a directory of their own."""
    directory.mkdir(parents=True)
    is_tcp = options.redis is Transport.TCP
    with (
        private_redis(directory, is_tcp=is_tcp) as store,
        real_agent(
            directory / "a",
            store.tcp or store.socket,
            workers,
            ACLS,
            transport=options.transport,
        ) as agent,
    ):
        cores = cores_of(options)
        agent.pin(cores.agent)
        store.pin(cores.others)
        yield Stage(options, store, agent)


@dataclass(frozen=True, slots=True)
class Point:
    """A line while it is measured: where, and what came of it."""

    stage: Stage
    job: Job
    result: Result

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self.result.at.items())
        return f"{self.result.name}: {told}"


def play_all(points: list[Point], options: Options, progress: Progress) -> list[Result]:
    """Play all rounds of all points: the first ones in order, the next ones backwards, and so on.

    A machine that becomes slower, or faster, does so for all of them.
    """
    progress.begin(len(points) * (options.rounds + 1))
    sized = []
    for point in points:
        progress(f"{point}: warming up")
        sized.append(replace(point, job=point.stage.sized(point.job, options.seconds)))
        progress.advance()
    for number in range(options.rounds):
        for point in in_turn(sized, number):
            progress(f"{point}: {point.job.requests:,} requests")
            point.result.rounds.append(point.stage.play(point.job))
            progress.advance()
    return [point.result for point in sized]
