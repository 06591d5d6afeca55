"""Who changes things by hand: with which store, under which names, and in whose name."""

from importlib.resources import files
from typing import Final, NamedTuple

import redis

from tokens.admin.fault import plain
from tokens.admin.nodes import Confirmed, Nodes, Progress
from tokens.audit import MAX_ENTRIES, entry
from tokens.record import MAX_GRANT_TTL_S, MAX_SESSION_TTL_S, Keys
from tokens.spelling import RULES, shown
from tokens.store.client import Client

WAIT_MS: Final = 1000
"""For replicas: far more than they need, and no time for an admin."""

_SCRIPT: Final = files(__package__).joinpath("revoke.lua").read_bytes()

# A cut that is older than all that can live hits nothing. A day more, for clocks that differ.
_MAX_CUT_AGE_MS: Final = (max(MAX_SESSION_TTL_S, MAX_GRANT_TTL_S) + 86_400) * 1000


class Kept(NamedTuple):
    """How safe a change is: on how many replicas, and whether the audit tells of it."""

    confirmed: Confirmed = Confirmed()
    is_audited: bool = True
    unasked: str = ""
    """Why replicas could not be asked, if so."""
    silent: tuple[str, ...] = ()
    """Primaries of a cluster that do not answer."""


def in_silence(looked: int, total: int) -> None:
    """Tell nobody how far a search is."""


class Admin:
    """An admin at work, for `Revoker`, `Blocker` and `Granter`.

    `by` is told in the audit, of which the stream keeps so many entries (0: nothing is told).
    `replicas` are waited for; None: one, where there are any. `progress` hears how far a search is.
    """

    def __init__(
        self,
        client: Client,
        prefix: str = "kat:",
        *,
        by: str,
        replicas: int | None = None,
        wait_ms: int = WAIT_MS,
        max_audit_entries: int = MAX_ENTRIES,
        progress: Progress = in_silence,
    ) -> None:
        self.nodes = Nodes(client)
        self.keys = Keys(prefix)
        self.patterns = Keys(_escaped(prefix))
        """The same names for SCAN: what is added may hold a *."""
        self.by = by
        self.progress = progress
        self._replicas = replicas
        self._wait_ms = wait_ms
        self._max_audit_entries = max_audit_entries

    def cut(self, field: str) -> int:
        """Revoke what a field of `kat:cut` names; return the ms until which it was issued."""
        return self.change("cut", field)

    def change(self, verb: str, field: str, ms: int = 0) -> int:
        """Change a field of `kat:cut`, as revoke.lua says; return its reply."""
        words = (verb, field, ms, self.nodes.now_ms(), _MAX_CUT_AGE_MS)
        return int(self.nodes.write(self.keys.cut, "EVAL", _SCRIPT, 1, self.keys.cut, *words))

    def keep(self, event: str, **facts: str | int) -> Kept:
        """Tell the audit what was done, and wait until replicas have it."""
        return self.secure(is_audited=self.tell(event, **facts))

    def secure(self, *, is_audited: bool) -> Kept:
        """Wait until replicas have what was done. Never raises: it is done."""
        confirmed, unasked = Confirmed(), ""
        try:
            confirmed = self.nodes.wait(self._replicas, self._wait_ms)
        except redis.RedisError as error:
            unasked = plain(error)
        return Kept(confirmed, is_audited, unasked, tuple(sorted(self.nodes.silent)))

    def tell(self, event: str, **facts: str | int) -> bool:
        """Audit what was done. False if Redis does not take it: what was done stays done."""
        if not self._max_audit_entries:
            return True
        told = {"event": event, **facts, "by": self.by}
        try:
            self.nodes.run(
                self.keys.audit, *entry(self.keys.audit, [told], self._max_audit_entries)
            )
        except redis.RedisError:
            return False
        return True

    def is_met(self) -> bool:
        """Tell whether an agent was ever here: each leaves the fence of what it met."""
        try:
            return bool(self.nodes.run(self.keys.fence, "EXISTS", self.keys.fence))
        except redis.RedisError:
            return True  # not known, and what is to be done will tell


def check_name(field: str, text: str) -> None:
    """Refuse what no record could hold. Raises ValueError with a sentence."""
    is_right, rule = RULES[field]
    if not is_right(text):
        raise ValueError(f"{_SPOKEN[field]}: {shown(text)} is not {rule}")


_SPOKEN: Final = {"sub": "user", "groups": "group", "acl": "acl"}


def _escaped(text: str) -> str:
    """Let SCAN take a text for itself: a prefix of a caller's may hold anything."""
    return "".join(f"\\{char}" if char in "*?[]^\\" else char for char in text)
