"""Waiting for what another process does: look often, give up late, never just sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 15.0
LOOK_AGAIN_S = 0.01

T = TypeVar("T")


def eventually(look: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Return the first true value that `look` gives; fail, naming `what`, if none comes."""
    deadline = time.monotonic() + deadline_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {deadline_s} s"
        time.sleep(LOOK_AGAIN_S)
    return found
