"""What an operator hears: each fault once when it begins and once when it is over."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from haproxy.runtime.client import Stream

_log = logging.getLogger(__name__)

_STORE: Final = "Redis"
_SHOWN: Final = 3
_REMINDER_S: Final = 3600.0

# systemd takes datagrams of some KB, and drops longer ones without a word.
_MAX_STATUS_CHARS: Final = 1000


def _fields(**values: str | int) -> dict[str, object]:
    return {"fields": values}


class Report:
    """Remembers what is wrong, so that a fault of hours is not told each second."""

    def __init__(self) -> None:
        self._faults: dict[str, Mapping[str, str]] = {}
        self._kept: set[str] = set()
        self._unread_at_s: dict[str, float] = {}

    def store_is_away(self, sentence: str, *, has_spoken: bool) -> None:
        """Say that Redis cannot be asked; what it said last counts on."""
        meanwhile = (
            "what it said last counts, and ends of grants are honoured"
            if has_spoken
            else "until it has answered once, nothing is changed"
        )
        self._tell(_STORE, {"": f"{sentence}; {meanwhile}"})

    def store_is_back(self) -> None:
        self._tell(_STORE, {})

    def is_unread(self, unread: Mapping[str, Sequence[str]]) -> None:
        """Say which grants let nobody in: agents look for no such spelling, and so do we."""
        now_s = time.monotonic()
        for acl, members in unread.items():
            if members and now_s >= self._unread_at_s.get(acl, 0.0):
                facts = _fields(acl=acl, grants=len(members), some=", ".join(members[:_SHOWN]))
                _log.warning("grants that no agent would match are left out", extra=facts)
                self._unread_at_s[acl] = now_s + _REMINDER_S

    def is_away(self, name: str, sentence: str) -> None:
        """Say that a HAProxy cannot be asked; it will be, again and again."""
        self._kept.discard(name)
        self._tell(name, {"": sentence})

    def is_kept(self, name: str, faults: Mapping[str, str]) -> None:
        """Say that a HAProxy was gone through, and what could not be done there."""
        self._tell(name, faults)
        if not faults and name not in self._kept:
            self._kept.add(name)
            _log.info("ACLs are equal to what is granted", extra=_fields(haproxy=name))

    def has_changed(self, name: str, acl: str, *, added: int = 0, removed: int = 0) -> None:
        facts = _fields(haproxy=name, acl=acl, added=added, removed=removed)
        _log.info("entries changed", extra=facts)

    def has_ended(self, name: str, streams: Sequence[Stream]) -> None:
        for stream in streams:
            facts = _fields(haproxy=name, frontend=stream.frontend, src=str(stream.source))
            _log.info("connection ended", extra=facts)

    @property
    def status(self) -> str:
        """Say it in a line, for `systemctl status`."""
        ill = {name: faults for name, faults in self._faults.items() if faults}
        words = [f"{name}: {sentence}" for name, it in ill.items() for sentence in it.values()]
        status = " | ".join([f"{len(self._kept - ill.keys())} HAProxy kept", *words])
        return status[:_MAX_STATUS_CHARS]

    def _tell(self, name: str, faults: Mapping[str, str]) -> None:
        before = self._faults.get(name, {})
        self._faults[name] = dict(faults)
        for key, sentence in faults.items():
            if key not in before:
                _log.error("%s: %s", name, sentence)
        for key, sentence in before.items():
            if key not in faults:
                self._kept.discard(name)
                _log.info("over: %s: %s", name, sentence)
