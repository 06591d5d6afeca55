"""One generator process: prepares its share of a round, waits for the start, plays, verifies."""

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from spoa.bench.channel import ask_once, connect
from spoa.bench.corpus import Issued, issue, mint, spoil
from spoa.bench.frames import encode_at, encode_ids
from spoa.bench.generator import Generator, Tally
from spoa.bench.holdings import IDLE_MS, grant_all, open_sessions
from spoa.bench.load import Load, Template, build_load, encode_request, template_of
from spoa.bench.scenario import Case, Proof, Scenario
from spoa.bench.verdict import verify

_TIMER_SLACK_NS = b"1000"


@dataclass(frozen=True, slots=True)
class Job:
    """One process's share of a round. `rate` is used by the open loop alone."""

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
        verify(job.scenario, job.redis_socket, tokens, tally)
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
    case = job.scenario.case
    count = min(job.requests, case.goes_round or job.requests)
    probe, *tokens = mint(1 + count, job.users)
    if case.is_granted:
        grant_all(job.redis_socket, case.acl)
    (probe,), tokens = (_prove(job, part) for part in ([probe], tokens))
    if job.scenario is Scenario.REPLAY:
        _consume(job, probe, tokens)
    load = build_load(tokens, case, _template(job, probe, case))
    times = -(-job.requests // count)
    frames, acks = (load.frames * times)[: job.requests], (load.acks * times)[: job.requests]
    return tokens, Load(frames, acks, load.fresh)


def _prove(job: Job, tokens: Sequence[Issued]) -> list[Issued]:
    """Make these tokens, or what they have opened, known to Redis."""
    case = job.scenario.case
    if case.proof is Proof.SESSION:
        return open_sessions(job.redis_socket, tokens, case.acl, IDLE_MS if case.is_idle else None)
    if job.scenario is Scenario.MALFORMED:
        return list(map(spoil, tokens))
    if case.proof is Proof.TOKEN and job.redis_socket:
        issue(job.redis_socket, tokens, case.acl, is_bound=case.is_bound)
    return list(tokens)


def _consume(job: Job, probe: Issued, tokens: Sequence[Issued]) -> None:
    case = Scenario.CONSUME.case
    tally = _generator(job, build_load(tokens, case, _template(job, probe, case))).run_closed()
    if tally.wrong:
        raise RuntimeError(f"while consuming what is to be replayed: {dict(tally.wrong)}")


def _template(job: Job, probe: Issued, case: Case) -> Template:
    frame = encode_request(0, encode_ids(0), probe, case) + encode_at(time.time())
    return template_of(ask_once(job.agent_socket, frame), probe, case)


def _generator(job: Job, load: Load) -> Generator:
    channels = [connect(job.agent_socket) for _ in range(job.connections)]
    return Generator(channels, load, job.in_flight)


def _run(generator: Generator, job: Job, start: float) -> Tally:
    if job.scenario.case.is_open_loop:
        _sharpen_timer()
        return generator.run_open(job.rate, start)
    time.sleep(max(start - time.perf_counter(), 0))
    return generator.run_closed()


def _sharpen_timer() -> None:
    """Wake up when asked: the default slack adds 50 us to every wait of the schedule."""
    with open("/proc/self/timerslack_ns", "wb", buffering=0) as slack:  # noqa: PTH123 - unbuffered
        slack.write(_TIMER_SLACK_NS)
