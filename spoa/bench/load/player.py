"""One generator process: prepares its share of a round, waits for the start, plays, verifies."""

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection

from spoa.bench.fault import Fault
from spoa.bench.load.channel import ask_once, connect
from spoa.bench.load.corpus import Issued, issue, mint, spoil
from spoa.bench.load.frames import encode_at, encode_ids
from spoa.bench.load.generator import Generator, Tally
from spoa.bench.load.holdings import IDLE_MS, grant_all, open_sessions
from spoa.bench.load.prepared import (
    Load,
    Template,
    build_load,
    encode_request,
    expected_ack,
    spread,
    template_of,
)
from spoa.bench.load.verdict import verify
from spoa.bench.scenario import Case, Proof, Scenario

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
    """Its address: the path of a unix socket, or host:port."""
    redis_socket: str
    """How we reach Redis, whatever the agent does."""
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
        tokens, kinds, load = _prepare(job)
        generator = _generator(job, load)
        control.send("ready")
        start: float = control.recv()
        cpu_s = time.process_time()
        tally = _run(generator, job, start)
        cpu_s = time.process_time() - cpu_s
        control.send("finished")
        _verify(job, tokens, kinds, tally)
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


def _prepare(job: Job) -> tuple[dict[Scenario, list[Issued]], list[Scenario], Load]:
    """Make ready what the round asks: (the tokens of each kind, the kind of each request, load)."""
    kinds = spread(job.scenario.shares, job.requests)
    shares = {kind: _share(job, kind, count) for kind, count in Counter(kinds).items()}
    tokens = {kind: share.tokens for kind, share in shares.items()}
    if len(job.scenario.shares) > 1:
        return tokens, kinds, _mix(shares, kinds)
    (share,) = shares.values()
    load = build_load(share.tokens, job.scenario.case, share.template)
    times = -(-job.requests // len(share.tokens))
    frames, acks = (load.frames * times)[: job.requests], (load.acks * times)[: job.requests]
    return tokens, kinds, Load(frames, acks, load.fresh)


@dataclass(frozen=True, slots=True)
class _Share:
    """The tokens that requests of one kind bring in turn, and how they are answered."""

    tokens: list[Issued]
    template: Template


def _share(job: Job, kind: Scenario, requests: int) -> _Share:
    case = kind.case
    count = min(requests, case.goes_round or requests)
    probe, *tokens = mint(1 + count, job.users)
    if case.is_granted:
        grant_all(job.redis_socket, case.acl)
    (probe,), tokens = (_prove(job, kind, part) for part in ([probe], tokens))
    if kind is Scenario.REPLAY:
        _consume(job, probe, tokens)
    return _Share(tokens, _template(job, probe, case))


def _mix(shares: Mapping[Scenario, _Share], kinds: Sequence[Scenario]) -> Load:
    """Encode requests of several kinds in this order, and the ACK of each."""
    turns = {kind: cycle(enumerate(share.tokens)) for kind, share in shares.items()}
    frames = []
    acks = []
    for number, kind in enumerate(kinds):
        ids = encode_ids(number)
        index, token = next(turns[kind])
        frames.append(encode_request(index, ids, token, kind.case))
        acks.append(expected_ack(ids, token, shares[kind].template))
    return Load(frames, acks, is_mixed=True)


def _prove(job: Job, kind: Scenario, tokens: Sequence[Issued]) -> list[Issued]:
    """Make these tokens, or what they have opened, known to Redis."""
    case = kind.case
    if case.proof is Proof.SESSION:
        return open_sessions(job.redis_socket, tokens, case.acl, IDLE_MS if case.is_idle else None)
    if kind is Scenario.MALFORMED:
        return list(map(spoil, tokens))
    if case.proof is Proof.TOKEN and case.is_issued:
        issue(job.redis_socket, tokens, case.issued_for or case.acl, is_bound=case.is_bound)
    return list(tokens)


def _consume(job: Job, probe: Issued, tokens: Sequence[Issued]) -> None:
    case = Scenario.CONSUME.case
    tally = _generator(job, build_load(tokens, case, _template(job, probe, case))).run_closed()
    if tally.wrong:
        raise Fault(f"while consuming what is to be replayed: {dict(tally.wrong)}")


def _verify(
    job: Job, tokens: Mapping[Scenario, list[Issued]], kinds: Sequence[Scenario], tally: Tally
) -> None:
    """Ask Redis about each kind by itself."""
    if len(job.scenario.shares) == 1:
        verify(job.scenario, job.redis_socket, tokens[job.scenario], tally)
        return
    right = Counter(kinds[index] for index in tally.settled)
    for kind, those in tokens.items():
        part = Tally(right=right[kind])
        verify(kind, job.redis_socket, those, part)
        tally.wrong.update({f"{kind}: {what}": number for what, number in part.wrong.items()})


def _template(job: Job, probe: Issued, case: Case) -> Template:
    frame = encode_request(0, encode_ids(0), probe, case) + encode_at(time.time())
    return template_of(ask_once(job.agent_socket, frame), probe, case)


def _generator(job: Job, load: Load) -> Generator:
    channels = [connect(job.agent_socket) for _ in range(job.connections)]
    return Generator(channels, load, job.in_flight)


def _run(generator: Generator, job: Job, start: float) -> Tally:
    if job.scenario.case.is_open_loop:
        sharpen_timer()
        return generator.run_open(job.rate, start)
    time.sleep(max(start - time.perf_counter(), 0))
    return generator.run_closed()


def sharpen_timer() -> None:
    """Wake up when asked: the default slack adds 50 us to every wait of the schedule."""
    with open("/proc/self/timerslack_ns", "wb", buffering=0) as slack:  # noqa: PTH123 - unbuffered
        slack.write(_TIMER_SLACK_NS)
