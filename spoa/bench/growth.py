"""What a request costs, and what memory it takes, when something grows.

connections     session hits, 320 in flight in all: 20 on each as long as they fit, then fewer,
                and one on each of 1,000 and 2,000
in flight       session hits over 16 connections
stored tokens   consumes, beside so many tokens that nobody asks for
workers         session hits and consumes; beyond the cores, too
stored in Redis bytes of each kind of key
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from spoa.bench.crowd import raise_file_limit
from spoa.bench.options import Options, Part
from spoa.bench.progress import Progress
from spoa.bench.result import Result, Round
from spoa.bench.scenario import Scenario
from spoa.bench.stage import Point, Stage, is_quick, play_all, stage
from spoa.bench.stored import audit_event_bytes, bytes_of, fill, kinds, room_for

CONNECTIONS: Final = (1, 4, 16, 64, 256, 1000, 2000)
IN_FLIGHT: Final = (1, 4, 20)
STORED: Final = (10**3, 10**4, 10**5, 10**6)
LARGE: Final = 10**7
QUICK_CONNECTIONS: Final = (1, 64)
QUICK_STORED: Final = (10**3, 10**4)

HAPROXY_IN_FLIGHT: Final = 20
"""HAProxy's limit on one connection."""
ALL_IN_FLIGHT: Final = 320
KEYS: Final = 100_000
QUICK_KEYS: Final = 5_000
"""So many of a kind are stored to see what one takes."""

LARGE_VARIABLE: Final = "KAT_BENCH_LARGE"
"""Set to 1, it adds the point of 10^7 tokens: 4 GB, and half a minute to fill."""


def run(options: Options, directory: Path, progress: Progress) -> list[Result]:
    """Let one thing grow after the other."""
    results = []
    for number, points in enumerate((_connections, _in_flight, _stored, _workers)):
        with ExitStack() as stack:
            progress("starting Redis and the agents")
            room = _Room(options, directory / str(number), stack, progress)
            grown = list(points(room))
            results += play_all(grown, options, progress)
    return [*results, *_keys(options, directory / "k", progress)]


def shared_in_flight(connections: int) -> int:
    """Say how many requests each connection may have in flight, so that the total is bounded."""
    return min(HAPROXY_IN_FLIGHT, max(1, ALL_IN_FLIGHT // connections))


def workers_of(cores: int) -> list[int]:
    """Say with how many workers to measure: 1, 2, 4, ... up to twice the cores, and the cores."""
    doubled = [2**power for power in range(cores.bit_length() + 1) if 2**power <= 2 * cores]
    return sorted({*doubled, cores, 2 * cores})


@dataclass(frozen=True, slots=True)
class _Room:
    """Where the stages of one kind of growth stand."""

    options: Options
    directory: Path
    stack: ExitStack
    progress: Progress

    def stage(self, name: object, workers: int = 1) -> Stage:
        return self.stack.enter_context(stage(self.options, self.directory / str(name), workers))


def _connections(room: _Room) -> Iterator[Point]:
    counts = QUICK_CONNECTIONS if is_quick(room.options) else CONNECTIONS
    raise_file_limit(max(counts))  # the generators inherit it
    for count in counts:
        on = room.stage(count)
        in_flight = shared_in_flight(count)
        job = on.job(Scenario.SESSION, count, in_flight)
        at = {"connections": count, "in_flight": in_flight}
        yield Point(on, job, Result(Part.GROWTH, "connections", at))


def _in_flight(room: _Room) -> Iterator[Point]:
    on = room.stage("all")
    for count in IN_FLIGHT[-1:] if is_quick(room.options) else IN_FLIGHT:
        job = on.job(Scenario.SESSION, 16, count)
        yield Point(on, job, Result(Part.GROWTH, "in flight", {"in_flight": count}))


def _stored(room: _Room) -> Iterator[Point]:
    options = room.options
    for count in _counts(options):
        if reason := room_for(count):
            print(reason, file=sys.stderr)
            continue
        on = room.stage(count)
        fill(on.store.socket, count, partial(_tell, room.progress, count))
        job = on.job(Scenario.CONSUME, options.connections, options.in_flight)
        yield Point(on, job, Result(Part.GROWTH, "stored tokens", {"stored_tokens": count}))


def _counts(options: Options) -> Sequence[int]:
    if is_quick(options):
        return QUICK_STORED
    return (*STORED, LARGE) if os.environ.get(LARGE_VARIABLE) == "1" else STORED


def _workers(room: _Room) -> Iterator[Point]:
    options = room.options
    for count in [1] if is_quick(options) else workers_of(len(os.sched_getaffinity(0))):
        on = room.stage(count, count)
        for scenario in (Scenario.SESSION, Scenario.CONSUME):
            # The kernel hands connections to workers as it likes: few of them would be uneven.
            job = on.job(scenario, max(options.connections, 8 * count), options.in_flight)
            at: dict[str, float | str] = {"workers": count, "scenario": str(scenario)}
            yield Point(on, job, Result(Part.GROWTH, "workers", at))


def _keys(options: Options, place: Path, progress: Progress) -> Iterator[Result]:
    """Say how many bytes of Redis each kind of key takes."""
    count = QUICK_KEYS if is_quick(options) else KEYS
    with stage(options, place) as on:
        made = kinds(on.agent.socket, on.store.socket)
        found = bytes_of(made, place, count, partial(_tell, progress, count))
        found["event of the audit"] = _audited(on, progress)
    for name, size in found.items():
        figures = Round({"redis_bytes": float(round(size))}, Counter())
        yield Result(Part.GROWTH, "stored in Redis", {"kind": name}, [figures])


def _audited(on: Stage, progress: Progress) -> float:
    progress("looking at the audit")
    job = on.job(Scenario.CONSUME, on.options.connections, on.options.in_flight)
    events = on.play(job).figures["requests"]
    return audit_event_bytes(on.store.socket, int(events))


def _tell(progress: Progress, of: int, count: int) -> None:
    progress(f"storing: {count:,} of {of:,}")
