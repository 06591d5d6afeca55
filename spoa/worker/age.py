"""How long HAProxy has been waiting for an answer, by its own time stamp.

A stalled agent (SIGSTOP, swapped out) cannot know when bytes arrived: the kernel kept them. So
each message carries `at`, HAProxy's clock when it asked. The two clocks need not agree: the
smallest difference seen between them lately is no age at all, and what exceeds it is age.

Blind to two things: a freeze right after the very first HELLO of a HAProxy process, and a second
freeze of more than 30 s with no punctual message since the first.
"""

import math

# One window alone would forget the honest differences at its end, so the one before it counts
# as well: 30 to 60 s of memory. Setting back the clock of one of two hosts costs as long of
# `deadline` on every request; on one host, the usual case, both sides read the same clock.
WINDOW_S = 30.0


class AgeGauge:
    """Tells the ages of the messages of one SPOP engine: one HAProxy process, one clock."""

    __slots__ = ("_before", "_began_at", "_now")

    def __init__(self) -> None:
        self._before = math.inf
        self._now = math.inf
        self._began_at = -math.inf

    def age_s(self, at_ms: int, now_s: float) -> float:
        """Return how old a message of `at_ms` is. Both are Unix time, each by its own clock."""
        difference = now_s - at_ms / 1000
        if not 0 <= now_s - self._began_at < WINDOW_S:
            self._began_at = now_s
            self._before, self._now = self._now, difference
        elif difference < self._now:
            self._now = difference
        return difference - min(self._before, self._now)
