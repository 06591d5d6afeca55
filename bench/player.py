"""One generator process: prepares its share of a round, waits for the start, plays, verifies."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection

from bench.channel import ask_once, connect
from bench.corpus import Issued, issue, mint, reap, spoil
from bench.frames import encode_at, encode_ids
from bench.generator import Generator, Tally
from bench.load import (
    CONSUMED,
    MALFORMED,
    REPLAYED,
    Expectation,
    Load,
    build_load,
    encode_request,
    template_of,
)

REPEATED_TOKENS = 20_000
"""Where a token may come twice, so many go round: more than can be in flight at once."""

_TIMER_SLACK_NS = b"1000"


class Scenario(StrEnum):
    """What is asked of the agent."""

    CEILING = "ceiling"  # whatever: it is the echo agent that answers
    CONSUME = "consume"
    OPEN = "open"  # consume, too, but at a fixed rate
    REPLAY = "replay"
    MALFORMED = "malformed"

    @property
    def consumes(self) -> bool:
        return self in (Scenario.CONSUME, Scenario.OPEN)


ECHOED = Expectation(b"denied", b"echo")
_EXPECTED = {
    Scenario.CEILING: ECHOED,
    Scenario.CONSUME: CONSUMED,
    Scenario.OPEN: CONSUMED,
    Scenario.REPLAY: REPLAYED,
    Scenario.MALFORMED: MALFORMED,
}


@dataclass(frozen=True, slots=True)
class Job:
    """One process's share of a round. `rate` is used by Scenario.OPEN alone."""

    scenario: Scenario
    requests: int
    connections: int
    in_flight: int
    rate: float
    users: int
    agent_socket: str
    redis_socket: str
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """What one process has seen."""

    right: int
    wrong: Counter[str]
    latencies: list[float]
    late: list[float]
    started: float
    finished: float
    cpu_s: float


def play(job: Job, control: Connection) -> None:
    """Say `ready`, receive the start, say `finished`, say Played; or say the exception."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, it ends us
    os.sched_setaffinity(0, job.cores)
    try:
        tokens, load = _prepare(job)
        generator = _generator(job, load)
        control.send("ready")
        start: float = control.recv()
        cpu_s = time.process_time()
        tally = _run(generator, job, start)
        cpu_s = time.process_time() - cpu_s
        control.send("finished")
        verify(job, tokens, tally)
        control.send(
            Played(
                tally.right,
                tally.wrong,
                tally.latencies,
                tally.late,
                start,
                tally.finished,
                cpu_s,
            )
        )
    except Exception as error:  # noqa: BLE001 - a process of its own: the parent raises it
        control.send(error)


def _prepare(job: Job) -> tuple[list[Issued], Load]:
    repeats = not job.scenario.consumes
    count = min(job.requests, REPEATED_TOKENS) if repeats else job.requests
    probe, *tokens = mint(1 + count, job.users)
    if job.scenario is Scenario.MALFORMED:
        probe, *tokens = map(spoil, (probe, *tokens))
    elif job.scenario is not Scenario.CEILING:
        issue(job.redis_socket, (probe, *tokens))
    if job.scenario is Scenario.REPLAY:
        _consume(job, probe, tokens)
    load = build_load(tokens, _template(job, probe, _EXPECTED[job.scenario]))
    if repeats:
        times = -(-job.requests // len(tokens))
        load = Load((load.frames * times)[: job.requests], (load.acks * times)[: job.requests])
    return tokens, load


def _consume(job: Job, probe: Issued, tokens: Iterable[Issued]) -> None:
    load = build_load(tokens, _template(job, probe, CONSUMED))
    tally = _generator(job, load).run_closed()
    if tally.wrong:
        raise RuntimeError(f"while consuming what is to be replayed: {dict(tally.wrong)}")


def _template(job: Job, probe: Issued, expected: Expectation) -> bytes:
    frame = encode_request(0, encode_ids(0), probe) + encode_at(time.time())
    return template_of(ask_once(job.agent_socket, frame), probe, expected)


def _generator(job: Job, load: Load) -> Generator:
    channels = [connect(job.agent_socket) for _ in range(job.connections)]
    return Generator(channels, load, job.in_flight)


def _run(generator: Generator, job: Job, start: float) -> Tally:
    if job.scenario is Scenario.OPEN:
        _sharpen_timer()
        return generator.run_open(job.rate, start)
    time.sleep(max(start - time.perf_counter(), 0))
    return generator.run_closed()


def _sharpen_timer() -> None:
    """Wake up when asked: the default slack adds 50 us to every wait of the schedule."""
    with open("/proc/self/timerslack_ns", "wb", buffering=0) as slack:  # noqa: PTH123 - unbuffered
        slack.write(_TIMER_SLACK_NS)


def verify(job: Job, tokens: Iterable[Issued], tally: Tally) -> None:
    """Ask Redis itself: exactly the requests answered `ok` are the tokens consumed."""
    if job.scenario in (Scenario.CEILING, Scenario.MALFORMED):
        return
    consumed = reap(job.redis_socket, tokens)
    if job.scenario.consumes and consumed != tally.right:
        fault = f"{consumed} consumed in Redis, {tally.right} answered ok"
        tally.wrong[fault] += abs(consumed - tally.right)
