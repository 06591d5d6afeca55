"""The run: everybody stands up, then rounds in alternated order."""

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.peers.options import Options
from bench.peers.standing import Fallen, Standing, stand
from bench.peers.subjects import Subject, subjects
from spoa.bench.fault import Fault
from spoa.bench.result import Result
from spoa.bench.rounds import in_turn
from spoa.bench.servers import Server, private_redis

Say = Callable[[str], None]

PART: Final = "peers"
_LEAST_REQUESTS: Final = 500


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a run."""

    results: list[Result] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """By subject: its version, what it cannot do, or why it was left out."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the table while it is measured. A rate means the open loop."""

    subject: Subject
    standing: Standing
    rate: float | None
    seconds: float
    result: Result

    def play(self) -> None:
        rate = self.rate or self.standing.requests_per_s
        requests = max(int(rate * self.seconds), _LEAST_REQUESTS)
        played = self.standing.duel.play(requests, self.standing.shape, self.rate)
        self.result.rounds.append(played)

    def __str__(self) -> str:
        load = f"{self.rate:g}/s" if self.rate else str(self.standing.shape)
        return f"{self.subject}, {load}"


def chosen(options: Options) -> list[Subject]:
    """Name those who are to be measured. Raises Fault."""
    everybody = subjects(options.against)
    names = dict.fromkeys(subject.name for subject in everybody)
    for name in options.only:
        if name not in names:
            raise Fault(f"--only {name!r}: nobody is called so; there are {', '.join(names)}")
    return [one for one in everybody if one.name in (options.only or names)]


def run(options: Options, directory: Path, say: Say) -> Measured:
    """Measure everybody who was asked for, at full load and at a fixed rate. Raises Fault.

    First the first round of all, then the second one backwards, and so on: a machine that becomes
    slower, or faster, does so for all of them, and their ratios hold.
    """
    measured = Measured()
    wanted = chosen(options)
    with ExitStack() as stack:
        store = stack.enter_context(private_redis(directory))
        lines: list[_Line] = []
        for number, subject in enumerate(wanted):
            say(f"{subject}: starting, warming up")
            home = directory / str(number)  # short: the path of a unix socket has 107 bytes
            home.mkdir()
            lines += _lines(options, subject, home, store, stack, measured)
        for number in range(options.rounds):
            for line in in_turn(lines, number):
                say(f"{line}: round {number + 1} of {options.rounds}")
                line.play()
    return measured


def _lines(  # noqa: PLR0917 - who is to stand up, and where it is told what came of it
    options: Options,
    subject: Subject,
    home: Path,
    store: Server,
    stack: ExitStack,
    measured: Measured,
) -> Iterator[_Line]:
    """Let a subject stand up; if it does, there are lines of it."""
    if subject.version is None:
        measured.notes[str(subject)] = (
            f"left out: {subject.package} is not installed for Python {platform.python_version()}"
        )
        return
    try:
        standing = stand(subject, home, store, stack)
    except Fallen as fallen:
        measured.notes[str(subject)] = f"left out: falls under {fallen}"
        return
    measured.notes[str(subject)] = _note(subject, standing)
    build = {"build": subject.build} if subject.build else {}
    for rate in (None, options.rate):
        at: dict[str, float | str] = {"rate": rate} if rate else {**standing.shape._asdict()}
        result = Result(PART, subject.name, build | at)
        measured.results.append(result)
        yield _Line(subject, standing, rate, options.seconds, result)


def _note(subject: Subject, standing: Standing) -> str:
    return "; ".join(
        filter(
            None,
            [
                subject.version,
                "" if standing.is_pipelined else "announces no pipelining",
                subject.remark,
                *(f"falls under {fall}" for fall in standing.falls),
            ],
        )
    )
