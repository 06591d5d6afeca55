"""Where Redis is: on a unix socket, on loopback TCP, and a millisecond or five away from there.

The milliseconds are those of a round trip, half of it each way, as `ping` would tell them of a
Redis elsewhere. One Redis serves all agents; each has its own way to it.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from spoa.bench.delay import delay_line
from spoa.bench.lines import Line, cores_of, job_of, measure
from spoa.bench.options import Options, Part
from spoa.bench.progress import Progress
from spoa.bench.result import Result
from spoa.bench.rounds import Measured
from spoa.bench.scenario import ACLS, Scenario
from spoa.bench.servers import Server, private_redis, real_agent

ROUND_TRIPS_S: Final[Mapping[str, float]] = {"+1 ms": 0.001, "+5 ms": 0.005}


def run(options: Options, directory: Path, progress: Progress) -> list[Result]:
    """Measure consumes and session hits at each place: closed loop, and open loop at one rate."""
    with ExitStack() as stack:
        store = stack.enter_context(private_redis(directory, is_tcp=True))
        store.pin(cores_of(options).others)
        places = dict(_places(options, directory, store, stack))
        lines = [
            _line(options, scenario, place, measured)
            for scenario in options.scenarios_of(Part.PLACEMENT)
            for place, measured in places.items()
        ]
        return measure(lines, options, progress)


def _places(
    options: Options, directory: Path, store: Server, stack: ExitStack
) -> Iterator[tuple[str, dict[str, Measured]]]:
    """Start an agent for each place, and say who works for it."""
    cores = cores_of(options)
    ways: dict[str, tuple[str, dict[str, Measured]]] = {
        "unix": (store.socket, {}),
        "tcp": (store.tcp, {}),
    }
    for place, round_trip_s in ROUND_TRIPS_S.items():
        line = stack.enter_context(delay_line(store.tcp, round_trip_s, cores.others))
        ways[place] = (line.address, {"delay": line})
    for number, (place, (address, between)) in enumerate(ways.items()):
        agent = stack.enter_context(
            real_agent(
                directory / f"agent{number}",
                address,
                options.workers,
                ACLS,
                transport=options.transport,
            )
        )
        agent.pin(cores.agent)
        yield place, {"agent": agent, "redis": store, **between}


def _line(
    options: Options, scenario: Scenario, place: str, measured: Mapping[str, Measured]
) -> Line:
    agent, store = measured["agent"], measured["redis"]
    assert isinstance(agent, Server)
    assert isinstance(store, Server)
    rate = options.rates[0] if scenario.case.is_open_loop else None
    at: dict[str, float | str] = {"redis": place} | ({"rate": rate} if rate else {})
    job = job_of(options, scenario, agent.socket, store.socket, rate)
    return Line(job, measured, Result(Part.PLACEMENT, scenario, at))
