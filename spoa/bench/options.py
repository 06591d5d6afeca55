"""What may be asked of `kat bench`, and what makes no sense."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Final, TypeVar

from spoa.bench.load.channel import Transport
from spoa.bench.load.corpus import MANY_USERS
from spoa.bench.scenario import Scenario

THIS: Final = "this"
"""The build that runs the benchmark, beside others."""

PLACED: Final = (Scenario.CONSUME, Scenario.SESSION, Scenario.OPEN, Scenario.OPEN_SESSION)
"""The scenarios of `placement`."""

MOST: Final = {
    "seconds": 3600,
    "rate": 1_000_000,
    "workers": 512,
    "connections": 4000,
    "in_flight": 1000,
    "users": MANY_USERS,
    "generators": 64,
    "rounds": 1000,
}
"""What is above is a slip of the finger: it would end in a full disk, or after days."""

_SHOWN_CHARS: Final = 60

Kind = TypeVar("Kind", bound=StrEnum)


class Part(StrEnum):
    """What is measured, in the order of the report."""

    CAPACITY = "capacity"
    LATENCY = "latency"
    PLACEMENT = "placement"
    HAPROXY = "haproxy"
    GROWTH = "growth"
    DISTURBED = "disturbed"


_BUILDS_IN: Final = (Part.CAPACITY, Part.LATENCY)
_SCENARIOS_IN: Final = (Part.CAPACITY, Part.LATENCY, Part.PLACEMENT)


class BadOption(ValueError):
    """The message is a sentence that names the option, its value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Options:
    """One run. The defaults are those of the tables in bench/README.md. Raises BadOption."""

    parts: tuple[Part, ...] = (Part.CAPACITY, Part.LATENCY)
    seconds: float = 0.8
    rounds: int = 5
    connections: int = 16
    in_flight: int = 20
    rates: tuple[float, ...] = (5_000.0, 20_000.0)
    users: int = MANY_USERS
    workers: int = 1
    generators: int = 1
    scenarios: tuple[Scenario, ...] = tuple(Scenario)
    pin: bool = False
    transport: Transport = Transport.UNIX
    redis: Transport = Transport.UNIX
    against: tuple[Path, ...] = ()
    json: Path | None = None
    html: Path | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "connections", "in_flight", "users", "workers", "generators"):
            if getattr(self, name) < 1:
                raise BadOption(f"{_flag(name)} {getattr(self, name)}: must be 1 or more")
            _check_most(name, getattr(self, name))
        for name, value in (("seconds", self.seconds), *(("rate", rate) for rate in self.rates)):
            if not 0 < value < inf:
                raise BadOption(f"{_flag(name)} {value:g}: must be a finite number above 0")
            if name == "rate" and value < 1:
                raise BadOption(f"--rate {value:g}: must be 1 or more")
            _check_most(name, value)
        if self.generators > self.connections:
            raise BadOption(
                f"--generators {self.generators}: each needs a connection, and --connections is "
                f"{self.connections}"
            )
        if self.pin and len(os.sched_getaffinity(0)) == 1:
            raise BadOption("--pin: needs a second core, and here is one")
        if self.scenarios != tuple(Scenario):
            self._check_scenarios()
        if self.against and not set(_BUILDS_IN).intersection(self.parts):
            raise BadOption(f"--against {self.against[0]}: {_only('compare builds', _BUILDS_IN)}")
        _check_builds(self.against)
        check_files(self.json, self.html)

    def _check_scenarios(self) -> None:
        """Refuse scenarios that none of the parts asks."""
        asking = [part for part in self.parts if part in _SCENARIOS_IN]
        if not asking:
            only = _only("have scenarios to choose", _SCENARIOS_IN)
            raise BadOption(f"--scenario {self.scenarios[0]}: {only}")
        if not any(self.scenarios_of(part) for part in asking):
            named = " and ".join(asking)
            raise BadOption(f"--scenario {self.scenarios[0]}: is no scenario of {named}")

    def scenarios_of(self, part: Part) -> tuple[Scenario, ...]:
        """Name what this part asks of the agent; a part that has its own way, everything."""
        return tuple(one for one in self.scenarios if _belongs(one, part))

    @property
    def builds(self) -> dict[str, Path | None]:
        """Whose agents are measured, by name. None: the packages that we run from."""
        return {THIS: None, **{path.resolve().name: path.resolve() for path in self.against}}


def read_options(
    *,
    parts: Sequence[str] = (),
    quick: bool = False,
    seconds: float | None = None,
    rounds: int | None = None,
    connections: int | None = None,
    in_flight: int | None = None,
    rates: Sequence[float] = (),
    users: int | None = None,
    workers: int | None = None,
    generators: int | None = None,
    scenarios: Sequence[str] = (),
    pin: bool = False,
    transport: str | None = None,
    redis: str | None = None,
    against: Sequence[Path | str] = (),
    json: Path | None = None,
    html: Path | None = None,
) -> Options:
    """Put what was given in place of the defaults, which `quick` shortens. Raises BadOption."""
    usual = Options()
    if quick:
        usual = replace(usual, seconds=0.3, rounds=1, rates=(2_000.0,))
    return Options(
        parts=_each(Part, "part", parts) or usual.parts,
        seconds=usual.seconds if seconds is None else seconds,
        rounds=usual.rounds if rounds is None else rounds,
        connections=usual.connections if connections is None else connections,
        in_flight=usual.in_flight if in_flight is None else in_flight,
        rates=tuple(dict.fromkeys(rates)) or usual.rates,
        users=usual.users if users is None else users,
        workers=usual.workers if workers is None else workers,
        generators=usual.generators if generators is None else generators,
        scenarios=_each(Scenario, "--scenario", scenarios) or usual.scenarios,
        pin=pin,
        transport=_read(Transport, "--transport", transport or usual.transport),
        redis=_read(Transport, "--redis", redis or usual.redis),
        against=tuple(map(build_path, against)),
        json=json,
        html=html,
    )


def build_path(given: Path | str) -> Path:
    """Read where another build lies. Raises BadOption for what would mean another place."""
    path = Path(given)
    if not str(given):
        raise BadOption("--against '': must be a directory")
    if os.pathsep in str(path.resolve()):
        raise BadOption(
            f"--against {path}: has a {os.pathsep} in its path, which PYTHONPATH cannot hold: "
            "rename or move it"
        )
    return path


def check_files(json: Path | None, html: Path | None) -> None:
    """Refuse before a minute has passed what could not be written after it. Raises BadOption."""
    _check_writable("json", json)
    _check_writable("html", html)
    if json and html and json.resolve() == html.resolve():
        raise BadOption(f"--html {html}: is the file of --json, too: name another")


def _each(kind: type[Kind], what: str, texts: Iterable[str]) -> tuple[Kind, ...]:
    """Read names, each once."""
    return tuple(dict.fromkeys(_read(kind, what, text) for text in texts))


def _read(kind: type[Kind], what: str, text: str) -> Kind:
    try:
        return kind(text)
    except ValueError:
        raise BadOption(
            f"{what} {ascii(text)[:_SHOWN_CHARS]}: must be one of {', '.join(kind)}"
        ) from None


def _belongs(scenario: Scenario, part: Part) -> bool:
    match part:
        case Part.CAPACITY:
            return not scenario.case.is_open_loop
        case Part.LATENCY:
            return scenario.case.is_open_loop
        case Part.PLACEMENT:
            return scenario in PLACED
        case _:
            return True


def _check_most(name: str, value: float) -> None:
    if value > MOST[name]:
        raise BadOption(f"{_flag(name)} {value:.12g}: must be at most {MOST[name]:,}")


def _only(do: str, parts: Sequence[Part]) -> str:
    return f"only {', '.join(parts[:-1])} and {parts[-1]} {do}: name one of them"


def _check_builds(builds: Sequence[Path]) -> None:
    names = {THIS}
    for path in builds:
        missing = [package for package in ("spoa", "tokens") if not (path / package).is_dir()]
        if missing:
            raise BadOption(f"--against {path}: holds no package {missing[0]}")
        name = path.resolve().name
        if name in names:
            raise BadOption(f"--against {path}: a build named {name} is measured already")
        names.add(name)


def _check_writable(option: str, path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise BadOption(f"--{option} {path}: {reason}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadOption(f"--{option} {path}: may not be written")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
