"""A round: generator processes side by side, the CPU of everybody, one row of figures."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Protocol, TypeVar

from spoa.bench.fault import Fault
from spoa.bench.latency import summarise
from spoa.bench.load.player import Job, Played, play
from spoa.bench.result import Figures, Round

HEAD_START_S = 0.05
"""From the word go to the first request: all processes have heard it by then."""

REPLY_TIMEOUT_S = 300.0
"""No round may hang the benchmark, whatever its size."""


class Measured(Protocol):
    """Whose CPU time is counted."""

    def cpu_s(self) -> float: ...


T = TypeVar("T")


def in_turn(many: Sequence[T], number: int) -> Iterable[T]:
    """Give them in order in the first round (0), backwards in the next one, and so on.

    A machine that becomes slower, or faster, does so for all of them, and their ratios hold.
    """
    return many if number % 2 == 0 else reversed(many)


def play_round(job: Job, generators: int, measured: Mapping[str, Measured]) -> Round:
    """Play a job with several processes that share its requests, connections and rate."""
    with _players(_shares(job, generators)) as players:
        for player in players:
            _hear(player)
        before = {name: server.cpu_s() for name, server in measured.items()}
        start = time.perf_counter() + HEAD_START_S
        for turn, player in enumerate(players):
            player.send(start + turn / job.rate)
        for player in players:
            _hear(player)
        cpu_s = {name: server.cpu_s() - before[name] for name, server in measured.items()}
        return _round_of([_hear_result(player) for player in players], cpu_s)


def _shares(job: Job, generators: int) -> Iterator[Job]:
    for turn in range(generators):
        yield replace(
            job,
            requests=_share(job.requests, turn, generators),
            connections=_share(job.connections, turn, generators),
            rate=job.rate / generators,
        )


def _share(whole: int, turn: int, parts: int) -> int:
    return whole // parts + (turn < whole % parts)


@contextmanager
def _players(jobs: Iterator[Job]) -> Iterator[Sequence[Connection]]:
    """Start one process per job; none is left when the round ends, however it ends."""
    # Nothing of ours inherited, memory given back; and loaded once, not once for each round.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([play.__module__])
    processes = []
    controls = []
    try:
        for job in jobs:
            ours, theirs = context.Pipe()
            process = context.Process(target=play, args=(job, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            controls.append(ours)
        yield controls
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _hear(player: Connection) -> object:
    if not player.poll(REPLY_TIMEOUT_S):
        raise Fault(f"a generator process said nothing for {REPLY_TIMEOUT_S:g} s")
    try:
        said: object = player.recv()
    except EOFError:
        raise Fault("a generator process died") from None
    if isinstance(said, Exception):
        raise said
    return said


def _hear_result(player: Connection) -> Played:
    said = _hear(player)
    assert isinstance(said, Played)
    return said


def _round_of(played: Sequence[Played], cpu_s: Mapping[str, float]) -> Round:
    right = sum(one.right for one in played)
    elapsed_s = max(one.finished for one in played) - min(one.started for one in played)
    wrong = sum((one.wrong for one in played), Counter[str]())
    figures: Figures = {"requests": right, "wrong": wrong.total(), "elapsed_s": elapsed_s}
    if right and elapsed_s > 0:
        figures["requests_per_s"] = right / elapsed_s
        spent_s = {**cpu_s, "generator": sum(one.cpu_s for one in played)}
        figures |= {f"{name}_us": 1e6 * spent / right for name, spent in spent_s.items()}
        figures |= {f"{k}_ms": v for k, v in summarise(one.latencies for one in played).items()}
        figures |= {f"late_{k}_ms": v for k, v in summarise(one.late for one in played).items()}
    return Round(figures, wrong)
