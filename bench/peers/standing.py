"""The largest load under which a subject answers everything, and rightly."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.hello import announces_pipelining
from bench.peers.play import Duel, Shape
from bench.peers.subjects import Subject
from spoa.bench.result import Round
from spoa.bench.servers import Server

# 320 requests in flight: as many as `kat bench` has, 20 on a connection being HAProxy's own limit.
# To an agent that does not announce `pipelining`, HAProxy sends one at a time, and opens a
# connection for each that is in flight. The smaller ones are for those who fall under the first.
PIPELINED: Final = tuple(Shape(*each) for each in ((16, 20), (16, 8), (4, 16), (4, 4), (1, 1)))
ONE_BY_ONE: Final = tuple(Shape(connections, 1) for connections in (320, 128, 64, 16, 1))

_WARM_UP_REQUESTS = 3000
_TRIES = 2
"""Each with a new process. A busy machine alone must not take a load away from anybody."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A subject that runs, and under what it stands."""

    duel: Duel
    shape: Shape
    is_pipelined: bool
    requests_per_s: float
    falls: tuple[str, ...]
    """Under what it did not, and what was wrong then."""


class Fallen(Exception):
    """It does not stand under any load; the message says what was wrong."""


def stand(subject: Subject, home: Path, store: Server, stack: ExitStack) -> Standing:
    """Start a subject on the stack, and warm it up. Raises Fallen, NotStarted."""
    falls: list[str] = []
    for place in range(len(PIPELINED)):
        for attempt in range(_TRIES):
            with ExitStack() as trial:
                starting = subject.start(home / f"{place}{attempt}", store.socket)
                duel = Duel(trial.enter_context(starting), store, subject.task)
                is_pipelined = announces_pipelining(duel.agent.socket)
                shape = (PIPELINED if is_pipelined else ONE_BY_ONE)[place]
                warm_up = duel.play(_WARM_UP_REQUESTS, shape)
                if not warm_up.wrong:
                    stack.push(trial.pop_all())
                    rate = warm_up.figures["requests_per_s"]
                    return Standing(duel, shape, is_pipelined, rate, tuple(falls))
        falls.append(f"{shape}: {_worst(warm_up)}")
    raise Fallen("; ".join(falls))


def _worst(played: Round) -> str:
    return ", ".join(f"{count} x {what}" for what, count in played.wrong.most_common(2))
