"""What may be asked of `python -m bench`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from spoa.bench.options import MOST, BadOption, build_path, check_files

_QUICK: Final = {"rounds": 1, "seconds": 0.3}


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


def parse_options(arguments: Sequence[str], names: Sequence[str] = ()) -> Options:
    """Read the command line. Ends the program with a sentence when it makes no sense.

    `names` are those that --only may have; without any, whoever measures must refuse them.
    """
    parser = _parser(names)
    if parser.parse_known_args(arguments)[0].quick:
        parser.set_defaults(**_QUICK)
    given = parser.parse_args(arguments)
    try:
        against = None if given.against is None else build_path(given.against).resolve()
        check_files(given.json, given.html)
    except BadOption as error:
        parser.error(str(error))
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


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Our agent and everything else a Python user could pick, in alternated rounds "
        "on this machine; every answer is verified.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="short rounds: shows that it works, no more")
    add("--rounds", type=_count, default=3, help="rounds of each kind; the tables have medians")
    add("--seconds", type=_seconds, default=1.0, help="length of a round, about")
    add("--rate", type=_rate, default=2000.0, help="requests/s of the open loop")
    only = f"only this one; repeatable: {', '.join(names)}"
    add("--only", action="append", default=[], choices=names or None, metavar="NAME", help=only)
    add("--against", metavar="DIR", help="another build of ours, too: its root")
    add("--json", type=Path, metavar="FILE", help="write all figures of all rounds there, too")
    add("--html", type=Path, metavar="FILE", help="write the tables there, too")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return int(_at_most("rounds", number))


def _seconds(text: str) -> float:
    return _at_most("seconds", _positive(text))


def _rate(text: str) -> float:
    number = _positive(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return _at_most("rate", number)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return number


def _at_most(name: str, number: float) -> float:
    if number > MOST[name]:
        raise argparse.ArgumentTypeError(f"{number:.12g} is above {MOST[name]:,}")
    return number
