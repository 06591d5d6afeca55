"""One round against one subject, in this very process: nothing else happens here meanwhile."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from bench.peers.task import Task
from spoa.bench.fault import Fault
from spoa.bench.latency import summarise
from spoa.bench.load.channel import Channel, ask_once, connect
from spoa.bench.load.corpus import Issued
from spoa.bench.load.frames import encode_at, encode_ids
from spoa.bench.load.generator import Generator, Tally
from spoa.bench.load.prepared import Load, build_load, encode_request
from spoa.bench.result import Figures, Round
from spoa.bench.servers import Server

_TIMER_SLACK_NS = b"1000"


class Shape(NamedTuple):
    """How many connections, and how many requests are in flight on each."""

    connections: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.connections} x {self.in_flight}"


@dataclass(frozen=True, slots=True)
class Duel:
    """Who is asked what, with which Redis behind."""

    agent: Server
    store: Server
    task: Task

    def play(self, requests: int, shape: Shape, rate: float | None = None) -> Round:
        """Ask so often, verify every answer, then Redis. A rate means the open loop.

        An agent that is not there any more, or answers something else, is a result, too.
        """
        try:
            return self._play(requests, shape, rate)
        except (OSError, Fault) as error:
            return Round({"requests": 0, "wrong": requests}, Counter({str(error): requests}))

    def _play(self, requests: int, shape: Shape, rate: float | None) -> Round:
        count = min(requests, self.task.case.goes_round or requests)
        probe, *tokens = self.task.prepare(self.store.socket, 1 + count)
        load = self._load(probe, tokens, requests)
        with ExitStack() as opened:
            generator = Generator(
                _channels(self.agent.socket, shape, opened), load, shape.in_flight
            )
            before = self._cpu_s()
            start = time.perf_counter()
            tally = _run(generator, rate, start)
            spent_s = {name: now - before[name] for name, now in self._cpu_s().items()}
        self.task.verify(self.store.socket, tokens, tally)
        return Round(_figures(tally, tally.finished - start, spent_s), tally.wrong)

    def _load(self, probe: Issued, tokens: list[Issued], requests: int) -> Load:
        ask = encode_request(0, encode_ids(0), probe, self.task.case) + encode_at(time.time())
        template = self.task.template(ask_once(self.agent.socket, ask), probe)
        load = build_load(tokens, self.task.case, template)
        times = -(-requests // len(tokens))
        return Load((load.frames * times)[:requests], (load.acks * times)[:requests], load.fresh)

    def _cpu_s(self) -> dict[str, float]:
        servers = {"agent": self.agent.cpu_s(), "redis": self.store.cpu_s()}
        return {**servers, "generator": time.process_time()}


def _channels(path: str, shape: Shape, opened: ExitStack) -> list[Channel]:
    channels = []
    for _ in range(shape.connections):
        channels.append(connect(path))
        opened.enter_context(channels[-1].sock)
    return channels


def _run(generator: Generator, rate: float | None, start: float) -> Tally:
    if rate is None:
        return generator.run_closed()
    # Wake up when asked: the default slack adds 50 us to every wait of the schedule.
    with open("/proc/self/timerslack_ns", "wb", buffering=0) as slack:  # noqa: PTH123 - unbuffered
        slack.write(_TIMER_SLACK_NS)
    return generator.run_open(rate, start)


def _figures(tally: Tally, elapsed_s: float, spent_s: Mapping[str, float]) -> Figures:
    figures: Figures = {"requests": tally.right, "wrong": tally.wrong.total()}
    if tally.right and elapsed_s > 0:
        figures["requests_per_s"] = tally.right / elapsed_s
        figures |= {f"{name}_us": 1e6 * spent / tally.right for name, spent in spent_s.items()}
        figures |= {f"{name}_ms": value for name, value in summarise([tally.latencies]).items()}
        figures |= {f"late_{name}_ms": value for name, value in summarise([tally.late]).items()}
    return figures
