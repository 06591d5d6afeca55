"""The run: its parts one after the other; and the two that measure the agent by itself."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

import redis

from spoa.bench.fault import Fault
from spoa.bench.lines import Line, cores_of, job_of, measure
from spoa.bench.load.channel import Transport
from spoa.bench.load.echo import echo_agent
from spoa.bench.options import Options, Part
from spoa.bench.progress import Progress
from spoa.bench.result import Result
from spoa.bench.scenario import ACLS, WITHOUT_AUDIT, Asked, Scenario
from spoa.bench.servers import Server, private_redis, real_agent
from spoa.config.endpoint import MAX_UNIX_PATH_BYTES

_SETTINGS = {Asked.AGENT: ACLS, Asked.UNAUDITED: {**ACLS, **WITHOUT_AUDIT}}

# What the parts put below their directory.
_LONGEST_SOCKET: Final = "disturbed/unaudited1/spoa.sock"

Measure = Callable[[Options, Path, Progress], list[Result]]


def run(options: Options, directory: Path, progress: Progress) -> Iterator[Result]:
    """Measure everything that was asked for, in files below an empty directory.

    Raises Fault when a part cannot go on; what the parts before it gave has been told by then.
    """
    _check_room(directory)
    for name, part in _parts(options):
        place = directory / name
        place.mkdir()
        progress.begin()
        progress(f"{name}: starting")
        try:
            yield from part(options, place, progress)
        except (OSError, RuntimeError, redis.RedisError) as error:
            raise Fault(f"{name}: {error or type(error).__name__}") from error


def _parts(options: Options) -> Iterator[tuple[str, Measure]]:
    """Name the parts, and what measures each. The first two share their rounds."""
    wanted = list(options.parts)
    if {Part.CAPACITY, Part.LATENCY}.intersection(wanted):
        yield "agent", measure_agent
    for part in Part:
        if part in wanted and part not in {Part.CAPACITY, Part.LATENCY}:
            # Not above: each is loaded when it is asked for, and some of them build on this file.
            measure: Measure = import_module(f"spoa.bench.{part}").run
            yield part, measure


def measure_agent(options: Options, directory: Path, progress: Progress) -> list[Result]:
    """Measure capacity and latency, as far as they are wanted, of every build."""
    with ExitStack() as stack:
        results = measure(_lines(options, _Company(options, directory, stack)), options, progress)
    order = list(Part)
    return sorted(results, key=lambda result: order.index(Part(result.part)))


@dataclass
class _Company:
    """Who takes part: started when the first one needs him, ended with the stack."""

    options: Options
    directory: Path
    stack: ExitStack
    agents: dict[tuple[str, Asked], Server] = field(default_factory=dict)
    _store: list[Server] = field(default_factory=list)

    @property
    def store(self) -> Server:
        if not self._store:
            is_tcp = self.options.redis is Transport.TCP
            self._store.append(
                self.stack.enter_context(private_redis(self.directory, is_tcp=is_tcp))
            )
            self._store[0].pin(cores_of(self.options).others)
        return self._store[0]

    def agent(self, build: str, asked: Asked) -> Server:
        if (build, asked) not in self.agents:
            options, store = self.options, self.store
            starting = real_agent(
                self.directory / f"{asked.value}{len(self.agents)}",
                store.tcp or store.socket,
                options.workers,
                _SETTINGS[asked],
                transport=options.transport,
                packages=options.builds[build],
            )
            self.agents[build, asked] = self.stack.enter_context(starting)
            self.agents[build, asked].pin(cores_of(options).agent)
        return self.agents[build, asked]

    def echo(self) -> str:
        cores = cores_of(self.options).agent
        starting = echo_agent(self.directory, cores, self.options.transport)
        return self.stack.enter_context(starting).address


def _lines(options: Options, company: _Company) -> Iterator[Line]:
    """Start whom these scenarios need, and say what each of them asks."""
    for part in (part for part in (Part.CAPACITY, Part.LATENCY) if part in options.parts):
        for scenario in options.scenarios_of(part):
            if scenario.case.asked is Asked.ECHO:
                job = job_of(options, scenario, company.echo(), "", None)
                yield Line(job, {}, Result(part, scenario))
                continue
            for rate in options.rates if part is Part.LATENCY else (None,):
                yield from _side_by_side(options, company, part, scenario, rate)


def _side_by_side(
    options: Options, company: _Company, part: Part, scenario: Scenario, rate: float | None
) -> Iterator[Line]:
    """Ask the same of each build."""
    for build in options.builds:
        agent = company.agent(build, scenario.case.asked)
        at: dict[str, float | str] = {"rate": rate} if rate else {}
        if options.against:
            at["build"] = build
        job = job_of(options, scenario, agent.socket, company.store.socket, rate)
        yield Line(job, {"agent": agent, "redis": company.store}, Result(part, scenario, at))


def _check_room(directory: Path) -> None:
    """Refuse a place whose unix sockets would have names that are too long. Raises Fault."""
    size = len(str(directory / _LONGEST_SOCKET).encode())
    if size > MAX_UNIX_PATH_BYTES:
        raise Fault(
            f"{directory}: a socket below it would have a name of {size} bytes, "
            f"{MAX_UNIX_PATH_BYTES} are allowed: set TMPDIR to a shorter one"
        )
