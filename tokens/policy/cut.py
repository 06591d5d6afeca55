"""Revocation and blocks: a worker's copy of `kat:cut`, and what it says about a request. Pure.

`kat:cut` is a hash that says what no longer counts: whatever was issued before a moment, by user,
group, ACL, token or altogether; and which addresses are blocked until when. Every batch asks
whether it has changed (cut.lua), so a revocation holds on the very next request, and nobody keeps
a list of what a user has.
"""

import math
from collections.abc import Sequence
from typing import Final

from tokens.policy.redeem import ReplyMismatch
from tokens.policy.script import load_script
from tokens.question import Question, Reply

SCRIPT, SHA = load_script("cut.lua")

CLOCK_GRAIN_MS: Final = 1
"""How much too late a token's moment of issue may be computed: TTLs are whole milliseconds."""

VERSION: Final = b"v"
NEVER_READ: Final = b"-"
"""The version of no copy; of one it is the server's master_replid and `v`, see cut.lua."""


class Cut:
    """One reading of the hash. Never changed: a newer one takes its place."""

    __slots__ = ("_addresses", "_cuts", "has_blocks", "is_empty", "version")

    def __init__(self, version: bytes = NEVER_READ, fields: Sequence[Reply] = ()) -> None:
        """Take the fields as HGETALL gives them: name, value, name, value ..."""
        self.version = version
        self._cuts: dict[bytes, float] = {}
        self._addresses: dict[bytes, float] = {}
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            if not isinstance(name, bytes) or name == VERSION:
                continue
            if name.startswith(b"addr:"):
                self._addresses[name[len(b"addr:") :]] = _moment(value)
            else:
                self._cuts[name] = _moment(value)
        self.is_empty = not self._cuts
        self.has_blocks = bool(self._addresses)

    def is_revoked(
        self, acl: bytes, kid: bytes, user: bytes, groups: bytes, issued_ms: int
    ) -> bool:
        """Tell whether what was issued then no longer counts. `groups` are joined by commas."""
        if self.is_empty:
            return False
        names = [b"all", b"acl:" + acl, b"kid:" + kid, b"sub:" + user]
        if groups:
            names += [b"group:" + group for group in groups.split(b",")]
        cut_ms = max(self._cuts.get(name, -math.inf) for name in names)
        return issued_ms <= cut_ms + CLOCK_GRAIN_MS

    def names_token(self, kid: bytes) -> bool:
        """Tell whether this very token was revoked: its key is gone, and nobody else knows why."""
        return b"kid:" + kid in self._cuts

    def blocked_until(self, candidates: bytes) -> float:
        """Return the ms until which a client is blocked; `candidates` are its names, by spaces.

        0 for a client that never was.
        """
        return max(self._addresses.get(name, 0) for name in (candidates or b" ").split(b" "))


def ask(key: bytes, copy: Cut) -> Question:
    """Ask what time it is, and for the fields, if they are not those of this copy."""
    return Question(key, (b"EVALSHA", SHA, b"1", key), (copy.version,))


def read(reply: Reply, copy: Cut) -> tuple[int, Cut]:
    """Return now, in ms by Redis's clock, and the copy that holds now. Raises ReplyMismatch."""
    match reply:
        case [int(now_ms), bytes(version)] if version == copy.version:
            return now_ms, copy
        case [int(now_ms), bytes(version), [*fields]] if len(fields) % 2 == 0:
            return now_ms, Cut(version, fields)
        case _:
            raise ReplyMismatch("no time and no cuts")


def _moment(value: Reply) -> float:
    """Read a time in ms. One that cannot be read is the end of time: in doubt it is a no."""
    text = value if isinstance(value, bytes) else b""
    return int(text) if text.isdigit() and len(text) <= 16 else math.inf  # noqa: PLR2004 - of 2^53
