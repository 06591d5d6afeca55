"""How `kat audit` writes an event: a line of a table for people, a line of JSON for programs."""

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spoa.cli.admin import moment

if TYPE_CHECKING:
    from tokens.admin.auditlog import Event

# With the time they fill a terminal of 80. Nothing is ever cut: who was refused, and why, is what
# somebody looks for; what is longer moves the rest of its line.
_COLUMNS = {"event": 8, "acl": 10, "user": 10, "src": 15, "kid": 12}
_TIME_CHARS = 20
_MOMENTS = ("first_at", "since", "until")
_LONG = "id"
"""A fact that few look at, and that pushes the others out of sight."""

_MAX_MS = 32_503_680_000_000
"""The year 3000: a number above is no moment."""


def header() -> str:
    names = [name.upper().ljust(width) for name, width in _COLUMNS.items()]
    return " ".join(("TIME".ljust(_TIME_CHARS), *names)).rstrip()


def row(event: "Event") -> str:
    """Write the usual facts in columns, and the others behind them with their names."""
    facts = dict(event.facts)
    cells = [_text(facts.pop(name, "")).ljust(width) for name, width in _COLUMNS.items()]
    names = sorted(facts, key=lambda name: name == _LONG)
    others = [f"{_text(name)}={_fact(name, facts[name])}" for name in names]
    return " ".join((moment(event.at_ms), *cells, *others)).rstrip()


def json_line(event: "Event") -> str:
    """Write when it was told, in UTC, and everything that was told."""
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    told = {"ts": at.replace("+00:00", "Z")}
    return json.dumps(told | dict(event.facts) | told)


def _fact(name: str, value: object) -> str:
    if name in _MOMENTS and isinstance(value, int) and 0 <= value < _MAX_MS:
        return moment(value)
    return _text(value)


def _text(value: object) -> str:
    """Write a fact so that it stays in its line and its colour, whoever has made it up."""
    text = value if isinstance(value, str) else json.dumps(value)
    shown = "".join([char if char.isprintable() else _escaped(char) for char in text]) or "-"
    if "  " in shown or "=" in shown:
        shown = json.dumps(shown, ensure_ascii=False)  # or it would pass for further columns
    # Not every terminal has every letter.
    encoding = sys.stdout.encoding
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
