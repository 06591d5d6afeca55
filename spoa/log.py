"""How the program speaks to its operator: one line per event on stderr, logfmt or JSON.

log.info("worker started", extra=fields(worker=0, pid=4711))
"""

import json
import logging
from collections.abc import Mapping
from time import gmtime, strftime

from spoa.config.sections import Log, LogFormat

log = logging.getLogger("kat")

# Whose lines are written: ours, and those of the packages that speak through their own names.
_SPEAKERS = ("kat", "tokens", "haproxy", "asyncio")

_Fields = Mapping[str, str | int | float | bool | None]


def fields(**values: str | float | bool | None) -> dict[str, object]:
    """Name the facts of a line. Never a token, a cookie or a whole digest."""
    return {"fields": values}


def configure(settings: Log) -> None:
    """Write the lines that `settings` ask for, in their format, once."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings))
    for name in _SPEAKERS:
        speaker = logging.getLogger(name)
        speaker.handlers = [handler]
        speaker.propagate = False
        speaker.setLevel(settings.level.upper())


def formatter(settings: Log) -> logging.Formatter:
    """Return what writes a line in the format that `settings` ask for."""
    return _Json() if settings.format is LogFormat.JSON else _Logfmt()


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={_quoted(value)}" for name, value in _facts(record).items())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_facts(record))


def _facts(record: logging.LogRecord) -> dict[str, str | int | float | bool | None]:
    given: _Fields = getattr(record, "fields", {})
    facts = {
        "ts": f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(record.created))}.{record.msecs:03.0f}Z",
        "level": record.levelname.lower(),
        "msg": record.getMessage(),
        **given,
    }
    if record.exc_info and record.exc_info[1]:
        facts["error"] = logging.Formatter().formatException(record.exc_info)
    return facts


def _quoted(value: str | float | bool | None) -> str:  # noqa: FBT001 - any value of a line
    """Write a value so that one event stays one line, whatever a peer has put into it."""
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    is_plain = text.isascii() and text.isprintable() and text and not set(text) & set(' ="\\')
    return text if is_plain else json.dumps(text)
