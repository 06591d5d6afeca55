"""How long something lasts, as people write it: `8h`, `30m`, `90s`, `1d`, or plain seconds."""

import re
from typing import Final

_RULE: Final = "must be a whole number with a unit: 90s, 30m, 8h or 1d; without a unit, seconds"

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
# 18 digits are 31 billion years; more would only make int() slow.
_DURATION: Final = re.compile(r"([0-9]{1,18})([smhd]?)")

# Largest first: 7200 is 2h and not 120m.
_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60))


def parse_duration(value: str | int) -> int:
    """Return whole seconds. Raises ValueError with a sentence that does not quote the value.

    Which durations are allowed is for the caller to say: 0 is one, too.
    """
    if isinstance(value, bool):
        raise ValueError(_RULE)  # noqa: TRY004 - to pydantic a TypeError is a fault of ours
    if isinstance(value, int):
        if value < 0:
            raise ValueError(_RULE)
        return value
    found = _DURATION.fullmatch(value.strip())
    if not found:
        raise ValueError(_RULE)
    return int(found[1]) * _SECONDS[found[2]]


def write_duration(seconds: int) -> str:
    """Write seconds in the largest unit that divides them: 5400 is `90m`."""
    for unit, size in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
