"""Which connections are to end: those of blocked addresses, and, if wanted, of ended grants."""

from collections.abc import Iterable, Mapping
from typing import Final

from haproxy.allowlist.entry import Networks
from haproxy.runtime.client import Stream

_NOTHING: Final[frozenset[str]] = frozenset()


class Ending:
    """Compares what may be with what could be before.

    `frontends`: per ACL of the grants those whose connections end with the grant. A block ends all
    connections of its address, whatever the frontend.
    """

    def __init__(self, frontends: Mapping[str, Iterable[str]]) -> None:
        self._frontends = {acl: frozenset(names) for acl, names in frontends.items()}
        self._blocked = _NOTHING
        self._entries: dict[str, frozenset[str]] = {}

    def remember(self, acl: str, entries: Iterable[str]) -> None:
        """Take these for admitted before: they were found in HAProxy, from a life before this."""
        if acl in self._frontends:
            self._entries[acl] = self._entries.get(acl, _NOTHING) | frozenset(entries)

    def is_due(self, blocked: frozenset[str], entries: Mapping[str, frozenset[str]]) -> bool:
        """Tell whether anything is over that was not when `settle` was called last."""
        return not blocked <= self._blocked or any(
            not self._entries.get(acl, _NOTHING) <= entries[acl] for acl in self._frontends
        )

    def doomed(
        self,
        streams: Iterable[Stream],
        blocked: frozenset[str],
        entries: Mapping[str, frozenset[str]],
    ) -> list[Stream]:
        """Choose the connections that are to end."""
        cut_off = Networks(blocked - self._blocked)
        over = [
            (
                names,
                Networks(self._entries.get(acl, _NOTHING) - entries[acl]),
                Networks(entries[acl]),
            )
            for acl, names in self._frontends.items()
        ]
        return [
            stream
            for stream in streams
            if stream.source is not None
            and (
                stream.source in cut_off
                or any(
                    stream.frontend in names and stream.source in gone and stream.source not in kept
                    for names, gone, kept in over
                )
            )
        ]

    def settle(self, blocked: frozenset[str], entries: Mapping[str, frozenset[str]]) -> None:
        """Take this for done."""
        self._blocked = blocked
        self._entries = {acl: entries[acl] for acl in self._frontends}
