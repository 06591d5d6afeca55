"""What ought to be, as Redis said it last: one for all HAProxy that are kept."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Self

from haproxy.allowlist.admitted import admitted, blocked, next_end_ms
from tokens.admin.mirror import Snapshot

CURRENT_S: Final = 5.0
"""For so long what Redis said may be put in place: it is asked each second. What it said before
may be over by now, and another `kat allowlist` know it, whose work we would undo."""

MAX_SILENCE_S: Final = 60.0
"""For so long what is in place may stay: a failover, a restart. Then an address that was blocked
meanwhile, by somebody who still reaches Redis, might stand here without end."""


_NEVER_MS: Final = 1 << 62


class Picture(NamedTuple):
    """What ought to be, at one moment."""

    entries: Mapping[str, frozenset[str]]
    """ACL of the grants -> entries."""
    blocked: frozenset[str]
    is_current: bool
    """Whether it may be put in place; else only what is over is taken out."""


class Board:
    """Holds the last snapshot, and tells who waits when something in it changes or ends.

    For one event loop. `clock` tells monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._asked_s = 0.0
        self._since_ms = self._until_ms = 0
        """From then, until then, what was worked out holds, by Redis's clock, which may go back."""
        self._entries: dict[str, frozenset[str]] = {}
        self._blocked: frozenset[str] = frozenset()
        self._bells: list[asyncio.Event] = []

    @classmethod
    def of(cls, snapshot: Snapshot, asked_s: float) -> Self:
        """Make one of what was read once."""
        board = cls()
        board.post(snapshot, asked_s)
        return board

    def bell(self) -> asyncio.Event:
        """Give what is set whenever something changed. Whoever waits for it clears it."""
        bell = asyncio.Event()
        self._bells.append(bell)
        return bell

    def post(self, snapshot: Snapshot, asked_s: float) -> None:
        """Take what was read, and when it was asked for."""
        before = self._snapshot
        self._snapshot, self._asked_s = snapshot, asked_s
        if before and (before.grants, before.blocks) == (snapshot.grants, snapshot.blocks):
            return
        self._until_ms = 0
        for bell in self._bells:
            bell.set()

    @property
    def is_known(self) -> bool:
        """Whether Redis said anything yet."""
        return self._snapshot is not None

    @property
    def is_current(self) -> bool:
        """Whether what it said may be put in place."""
        return self.is_known and self._clock() - self._asked_s <= CURRENT_S

    @property
    def is_fresh(self) -> bool:
        """Whether what is in place may still be relied upon."""
        return self.is_known and self._clock() - self._asked_s <= MAX_SILENCE_S

    @property
    def snapshot(self) -> Snapshot:
        assert self._snapshot is not None  # ask is_known first
        return self._snapshot

    @property
    def now_ms(self) -> int:
        """Tell Redis's time. Not ours: a clock that is wrong here would admit too long."""
        return self.snapshot.now_ms + int((self._clock() - self._asked_s) * 1000)

    def entries(self, acl: str) -> frozenset[str]:
        """Spell what is to be in the ACLs for these grants, now."""
        self._work_out()
        return self._entries[acl]

    def picture(self, acls: Iterable[str]) -> Picture:
        """Say all of it for these grants, now."""
        self._work_out()
        entries = {acl: self._entries[acl] for acl in acls}
        return Picture(entries, self._blocked, self.is_current)

    def left_s(self) -> float | None:
        """Say how long it takes until something ends by itself; None: nothing will."""
        self._work_out()
        return None if self._until_ms == _NEVER_MS else max(self._until_ms - self.now_ms, 0) / 1000

    def _work_out(self) -> None:
        """Do the work once for all HAProxy: 10 ms for 5,000 grants."""
        now_ms = self.now_ms
        if self._since_ms <= now_ms < self._until_ms:
            return
        snapshot = self.snapshot
        self._entries = {acl: admitted(snapshot, acl, now_ms) for acl in snapshot.grants}
        self._blocked = blocked(snapshot, now_ms)
        end_ms = next_end_ms(snapshot, now_ms)
        self._since_ms = now_ms
        self._until_ms = end_ms if end_ms is not None else _NEVER_MS
