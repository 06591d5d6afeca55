"""How long HAProxy has been waiting for an answer, by its own time stamp.

A stalled agent (SIGSTOP, swapped out) cannot know when bytes arrived: the kernel kept them. So
each message carries `at`, HAProxy's clock when it asked. The two clocks need not agree: the
smallest difference seen between them lately is no age at all, and what exceeds it is age.

Until a gauge has seen as many seconds as a backlog may hide, a peer on the same host is believed to
have our clock. That closes the one gap that matters: a freeze right after a start, when the first
message of each of HAProxy's threads would itself be the measure.

Blind to two things: that gap for peers on other hosts, whose clocks nobody vouches for; and a
second freeze of more than 30 s with no punctual message since the first.
"""

import math

# One window alone would forget the honest differences at its end, so the one before it counts
# as well: 30 to 60 s of memory. Setting back the clock of one of two hosts costs as long of
# `deadline` on every request; on one host, the usual case, both sides read the same clock.
WINDOW_S = 30.0

# A unix socket may be the end of a tunnel from another host. Then the peer's clock is what it is,
# and what a clock more than the deadline behind ours costs is this long of `deadline`.
PROBATION_S = 1.0


class AgeGauge:
    """Tells the ages of the messages of one SPOP engine: one HAProxy process, one clock."""

    __slots__ = ("_before", "_began_at", "_is_local", "_now", "_trusted_at")

    def __init__(self, *, is_local: bool = False) -> None:
        """Begin. `is_local`: the peer is on this host, as far as its socket tells."""
        self._before = math.inf
        self._now = math.inf
        self._began_at = -math.inf
        self._is_local = is_local
        self._trusted_at = math.inf

    def age_s(self, at_ms: int, now_s: float) -> float:
        """Return how old a message of `at_ms` is. Both are Unix time, each by its own clock."""
        difference = now_s - at_ms / 1000
        if not 0 <= now_s - self._began_at < WINDOW_S:
            self._began_at = now_s
            self._before, self._now = self._now, difference
        elif difference < self._now:
            self._now = difference
        measure = min(self._before, self._now)
        if self._is_local:
            measure = self._doubted(measure, now_s)
        return difference - measure

    def _doubted(self, measure: float, now_s: float) -> float:
        """Take no difference for that of the clocks while all there is may be a backlog."""
        if self._trusted_at == math.inf:
            self._trusted_at = now_s + PROBATION_S
        if now_s >= self._trusted_at:
            self._is_local = False
            return measure
        return min(measure, 0.0)
