"""What may be asked of `python -m bench`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """One run."""

    rounds: int
    seconds: float
    rate: float
    only: tuple[str, ...]
    against: Path | None
    json: Path | None
    html: Path | None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line. Ends the program with a sentence when it makes no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    against = given.against.resolve() if given.against else None
    if against and not (against / "spoa").is_dir():
        parser.error(f"{given.against} holds no folder `spoa`: --against wants a build's root")
    return Options(
        rounds=given.rounds,
        seconds=given.seconds,
        rate=given.rate,
        only=tuple(dict.fromkeys(given.only)),
        against=against,
        json=given.json,
        html=given.html,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Our agent and everything else a Python user could pick, in alternated rounds "
        "on this machine; every answer is verified.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=_count, default=3, help="rounds of each kind; the tables have medians")
    add("--seconds", type=_positive, default=1.0, help="length of a round, about")
    add("--rate", type=_positive, default=2000.0, help="requests/s of the open loop")
    add("--only", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    add("--against", type=Path, metavar="DIR", help="another build of ours, too: its root")
    add("--json", type=Path, metavar="FILE", help="write all figures of all rounds there, too")
    add("--html", type=Path, metavar="FILE", help="write the tables there, too")
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
