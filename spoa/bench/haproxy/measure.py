"""The run: every HAProxy, as fast as it goes and paced, whoever says yes; alternated rounds."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spoa.bench.fault import Fault
from spoa.bench.haproxy import closed, echo, paced
from spoa.bench.haproxy.front import Front, Haproxy, find_haproxies, front
from spoa.bench.haproxy.gateway import Subject
from spoa.bench.haproxy.seen import Seen
from spoa.bench.haproxy.visitors import Visitors, invite
from spoa.bench.options import Options
from spoa.bench.result import Figures, Result, Round
from spoa.bench.rounds import Measured, in_turn
from spoa.bench.scenario import ACLS
from spoa.bench.servers import Server, child, private_redis, real_agent

CONNECTIONS: Final = 64
RATES: Final = (1_000.0, 5_000.0, 10_000.0, 20_000.0)
"""Of HAProxy with all threads, as it comes."""

_FIRST_GUESS: Final = 100_000
_RESERVE: Final = 1.5
"""A closed round ends after a time: so many times what it ever needed are invited to it."""
_LEAST_REQUESTS: Final = 100
_BACKLOG: Final = 1024

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Agent:
    """Who answers HAProxy."""

    address: str
    measured: Measured


@dataclass(frozen=True, slots=True)
class Cast:
    """Who stands behind HAProxy, whichever it is."""

    store: Server
    agents: Mapping[Subject, Agent]

    def address(self, subject: Subject) -> str:
        """Return where HAProxy finds its agent; somewhere, if it asks none."""
        return self.agents[subject].address if subject in self.agents else self.store.socket

    def behind(self, subject: Subject) -> dict[str, Measured]:
        """Name those whose CPU a request takes, besides HAProxy."""
        agent = {"agent": self.agents[subject].measured} if subject in self.agents else {}
        return {**agent, "redis": self.store}


@dataclass(slots=True)
class Row:
    """A line of the table while it is measured."""

    subject: Subject
    rate: float | None
    front: Front
    store: str
    measured: Mapping[str, Measured]
    result: Result
    needed: int = 0
    """So many requests a closed round had at most, so far."""

    def __str__(self) -> str:
        at = ", ".join(f"{name} {value}" for name, value in self.result.at.items())
        return f"{self.subject}: {at}"


def run(options: Options, directory: Path, say: Say) -> list[Result]:
    """Measure each HAProxy by itself. Raises Fault."""
    haproxies = find_haproxies()
    results = []
    say("starting Redis and the agents")
    with _cast(options, directory) as cast:
        for haproxy in haproxies:
            with ExitStack() as fronts:
                say(f"HAProxy {haproxy.version}: starting")
                rows = list(_rows(haproxy, directory / haproxy.version, cast, fronts))
                play(rows, options, say)
                results += [row.result for row in rows]
    return results


@contextmanager
def _cast(options: Options, directory: Path) -> Iterator[Cast]:
    with (
        private_redis(directory) as store,
        real_agent(directory / "agent", store.socket, options.workers, ACLS) as agent,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        listener.bind(str(directory / "echo.sock"))
        listener.listen(_BACKLOG)
        with child(listener, echo.serve) as thoughtless:
            kat = Agent(agent.socket, agent)
            echoing = Agent(thoughtless.address, thoughtless)
            agents = {Subject.ECHO: echoing, Subject.KAT: kat, Subject.KAT_SESSION: kat}
            yield Cast(store, agents)


def _rows(haproxy: Haproxy, directory: Path, cast: Cast, fronts: ExitStack) -> Iterator[Row]:
    """Start one HAProxy per subject and number of threads. Subjects stand beside each other."""
    every = len(os.sched_getaffinity(0))
    subjects = [one for one in Subject if haproxy.has_lua or one is not Subject.LUA]
    for threads in dict.fromkeys((1, every)):
        running = {}
        for one in subjects:
            place, agent = directory / f"{one}, {threads}", cast.address(one)
            starting = front(place, haproxy, one, threads, agent, cast.store.socket)
            running[one] = fronts.enter_context(starting)
        for rate in (None, *RATES) if threads == every else (None,):
            at: dict[str, float | str] = {"haproxy": haproxy.version, "threads": threads}
            at |= {"rate": rate} if rate else {}
            for one in subjects:
                measured = {"haproxy": running[one].server, **cast.behind(one)}
                result = Result("haproxy", str(one), at)
                yield Row(one, rate, running[one], cast.store.socket, measured, result)


def play(rows: Sequence[Row], options: Options, say: Say) -> None:
    """Play the first round of all rows in order, the next one backwards, and so on."""
    for row in rows:
        if not row.rate:
            say(f"{row}: warming up")
            play_round(row, options.seconds)
    for number in range(options.rounds):
        for row in in_turn(rows, number):
            say(f"{row}: round {number + 1} of {options.rounds}")
            row.result.rounds.append(play_round(row, options.seconds))
    compare([row.result for row in rows])


def play_round(row: Row, seconds: float) -> Round:
    """Invite visitors, let them come, and ask Redis what has happened. Raises Fault."""
    wanted = row.rate * seconds if row.rate else row.needed * _RESERVE or _FIRST_GUESS
    requests = max(int(wanted), _LEAST_REQUESTS)
    visitors = invite(row.subject, row.store, requests)
    play = _prepared(row, visitors, requests, seconds)
    before = {name: one.cpu_s() for name, one in row.measured.items()}
    seen = play()
    spent_s = {name: one.cpu_s() - before[name] for name, one in row.measured.items()}
    visitors.verify(seen.right, seen.unknown, seen.wrong)
    row.needed = max(row.needed, seen.right)
    if not row.rate and row.subject.consumes and seen.right >= requests:
        return play_round(row, seconds)  # with more tokens: these came to their end before it did
    figures: Figures = {"requests": seen.right, "wrong": seen.wrong.total(), **seen.figures}
    if seen.right:
        figures |= {f"{name}_us": 1e6 * spent / seen.right for name, spent in spent_s.items()}
    return Round(figures, seen.wrong)


def _prepared(row: Row, visitors: Visitors, requests: int, seconds: float) -> Callable[[], Seen]:
    try:
        if row.rate:
            return paced.prepare(row.front, visitors, CONNECTIONS, requests, row.rate)
        return closed.prepare(row.front, visitors, CONNECTIONS, seconds)
    except OSError as error:
        row.front.server.check()
        raise Fault(f"{row}: HAProxy is not to be asked: {error}") from None


def compare(results: Sequence[Result]) -> None:
    """Add to each round what it says beside those that were played under the same conditions.

    Paced: the milliseconds that the question adds. As fast as it goes: the part of what the echo
    agent allows, in requests/s and per core of HAProxy; where all share two cores, believe the
    latter.
    """
    for result in results:
        beside = {one.name: one.rounds for one in results if one.at == result.at}
        for number, played in enumerate(result.rounds):
            figures = played.figures
            if "rate" in result.at:
                figures.update(_added(figures, beside[Subject.NO_FILTER][number].figures))
            else:
                figures.update(_share(figures, beside[Subject.ECHO][number].figures))


def _added(own: Figures, bare: Figures) -> Figures:
    names = [name for name in ("p50_ms", "p99_ms") if name in own and name in bare]
    return {f"added_{name}": own[name] - bare[name] for name in names}


def _share(own: Figures, echo: Figures) -> Figures:
    if "requests_per_s" not in own or "requests_per_s" not in echo:
        return {}
    return {
        "of_echo": own["requests_per_s"] / echo["requests_per_s"],
        "of_echo_per_haproxy_core": echo["haproxy_us"] / own["haproxy_us"],
    }
