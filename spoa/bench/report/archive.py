"""All figures of all rounds as JSON, and back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from spoa.bench.options import Options
from spoa.bench.result import Result, numbers_of, with_cores

_PLACES: Final = ("json", "html", "against")


class NotAnArchive(Exception):
    """A file that was to be read holds no results; the message says which and why."""


@dataclass(frozen=True, slots=True)
class _Archive:
    environment: dict[str, str]
    results: list[Result]


_READER: Final = TypeAdapter(_Archive)


def encode(facts: Mapping[str, str], options: Options | None, results: Iterable[Result]) -> str:
    """Write facts, options and results as JSON, in ASCII.

    Where files are written is no fact of a measurement, and is left out.
    """
    chosen = asdict(options) if options else {}
    report = {
        "environment": dict(facts),
        "options": {name: chosen[name] for name in chosen if name not in _PLACES},
        "results": [
            {
                "part": one.part,
                "name": one.name,
                "at": dict(one.at),
                "median": with_cores(one.median),
                "wrong": one.wrong,
                "rounds": [
                    {"figures": numbers_of(round_.figures), "wrong": round_.wrong}
                    for round_ in one.rounds
                ],
            }
            for one in results
        ],
    }
    return json.dumps(report, indent=2) + "\n"


def read_all(paths: Iterable[Path]) -> tuple[dict[str, str], list[Result]]:
    """Read one or more files as one: (facts, results).

    Facts that differ are all told. What several files have measured has the rounds of all of them.
    Raises NotAnArchive.
    """
    facts: dict[str, dict[str, None]] = {}
    results: list[Result] = []
    for path in paths:
        archive = _read(path)
        for name, fact in archive.environment.items():
            facts.setdefault(name, {})[fact] = None
        for one in archive.results:
            known = next((r for r in results if _what(r) == _what(one)), None)
            if known:
                known.rounds.extend(one.rounds)
            else:
                results.append(one)
    return {name: "; ".join(different) for name, different in facts.items()}, results


def _read(path: Path) -> _Archive:
    try:
        return _READER.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise NotAnArchive(f"{path} holds no results: {where}: {first['msg']}") from None


def _what(one: Result) -> tuple[str, str, Mapping[str, float | str]]:
    return one.part, one.name, one.at
