"""What a revocation came to: what was cut, what was deleted, and what Redis did not let be done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import redis

from tokens.admin.admin import Admin, Kept
from tokens.admin.fault import plain
from tokens.admin.granter import Grant

T = TypeVar("T")


class Undone(NamedTuple):
    """What Redis did not let an admin do, though the rest was done."""

    what: str
    """`cut`, `tokens`, `sessions` or `grants`."""
    why: str
    """In part of a sentence."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation came to, as far as it can be counted."""

    cut_ms: int | None = None
    """Whatever was issued until then is refused. None: what was named is gone, nothing else."""
    tokens: int = 0
    """Deleted before they were consumed."""
    consumed: int = 0
    """Found consumed already: nothing to take back but what they opened."""
    sessions: int = 0
    grants: int = 0
    still: tuple[Grant, ...] = ()
    """What others claim of the addresses whose grants ended."""
    undone: tuple[Undone, ...] = ()
    kept: Kept = field(default_factory=Kept)

    @property
    def total(self) -> int:
        return self.tokens + self.sessions + self.grants


class Act:
    """One revocation: the cut, and what is done after it. Each step is tried, whatever the last."""

    def __init__(
        self, admin: Admin, cut_ms: int | None, at_ms: int, facts: Mapping[str, str]
    ) -> None:
        self._admin = admin
        self._written_ms = cut_ms
        self.cut_ms = at_ms
        """What was issued until then is meant."""
        self._is_audited = admin.tell("revoked", **facts)
        self.undone: list[Undone] = []

    def do(self, what: str, step: Callable[[], T], otherwise: T) -> T:
        try:
            return step()
        except redis.RedisError as error:
            self.undone.append(Undone(what, plain(error)))
            return otherwise

    def done(
        self,
        *,
        tokens: int = 0,
        consumed: int = 0,
        sessions: int = 0,
        grants: int = 0,
        still: tuple[Grant, ...] = (),
    ) -> Revoked:
        return Revoked(
            self._written_ms,
            tokens,
            consumed,
            sessions,
            grants,
            still,
            tuple(self.undone),
            self._admin.secure(is_audited=self._is_audited),
        )
