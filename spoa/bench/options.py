"""What may be asked of `python -m spoa.bench`."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spoa.bench.corpus import MANY_USERS
from spoa.bench.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Options:
    """One run. The defaults are those of the table in README.md."""

    seconds: float
    rounds: int
    connections: int
    in_flight: int
    rates: tuple[float, ...]
    users: int
    workers: int
    generators: int
    scenarios: tuple[Scenario, ...]
    pin: bool
    json: Path | None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line. Ends the program with a sentence when it makes no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.quick:
        parser.set_defaults(seconds=0.3, rounds=1)
        given = parser.parse_args(arguments)
    if given.generators > given.connections:
        parser.error(f"{given.generators} generators need as many connections")
    if given.pin and len(os.sched_getaffinity(0)) == 1:
        parser.error("--pin needs a second core")
    return Options(
        seconds=given.seconds,
        rounds=given.rounds,
        connections=given.connections,
        in_flight=given.in_flight,
        rates=tuple(given.rate or ([2_000.0] if given.quick else [5_000.0, 20_000.0])),
        users=given.users,
        workers=given.workers,
        generators=given.generators,
        scenarios=tuple(dict.fromkeys(given.scenario or Scenario)),
        pin=given.pin,
        json=given.json,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS='...'",
        description="How fast the agent is on this machine: a private Redis, the real agent, and "
        "an SPOP load generator that verifies every answer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=_positive, default=0.8, help="length of a round, about")
    add("--rounds", type=_count, default=5, help="rounds of each kind; the table has medians")
    add("--connections", type=_count, default=16, help="SPOP connections")
    add("--in-flight", type=_count, default=20, help="requests in flight on each; HAProxy has 20")
    add("--rate", type=_positive, action="append", help="open loop: requests/s; may be repeated")
    add("--users", type=_count, default=MANY_USERS, help="who share the tokens")
    add("--workers", type=_count, default=1, help="worker processes of the agent")
    add("--generators", type=_count, default=1, help="processes of the load generator")
    add(
        "--scenario",
        type=Scenario,
        action="append",
        choices=list(Scenario),
        help="only this one; may be repeated",
    )
    add("--pin", action="store_true", help="the agent alone on the last core, all else elsewhere")
    add("--quick", action="store_true", help="a few seconds in all: shows that it works, no more")
    add("--json", type=Path, metavar="FILE", help="write all figures of all rounds there, too")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number
