"""What admins see and do: who is in, what happened lately, and the end of it.

Blocking, as all of tokens.admin is: its callers run it in a thread. Raises StoreFault.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from tokens.admin.admin import Admin
from tokens.admin.auditlog import Event, Trail, Wanted
from tokens.admin.fault import speaking_plainly
from tokens.admin.revoke import Revoker
from tokens.admin.revoked import Revoked
from tokens.admin.sessions import standing_sessions
from tokens.policy.sessionrecord import Session
from tokens.store.client import Client, connect

_SHOWN_EVENTS: Final = 50
_SHOWN_SESSIONS: Final = 200


class View(NamedTuple):
    """One look at a store."""

    sessions: list[Session]
    events: list[Event]
    """The latest first."""

    @property
    def users(self) -> list[str]:
        """Who has a session."""
        return sorted({session.user.decode() for session in self.sessions})


@dataclass(frozen=True, slots=True)
class Oversight:
    """Looks at one store, and changes it. A connection lasts as long as one look."""

    store_url: str
    prefix: str

    def look(self, by: str) -> View:
        """See who is in. Looks at all keys: a busy store would want a page that asks for less."""
        with self._acting(by) as (client, admin):
            sessions = standing_sessions(admin, _SHOWN_SESSIONS)
            trail = Trail(admin.keys.audit, _unheard)
            return View(sessions, trail.latest(client, Wanted(), _SHOWN_EVENTS)[::-1])

    def revoke_user(self, user: str, by: str) -> str:
        """End whatever a user has, from the next request on; return what to tell."""
        return self._revoke(lambda revoker: revoker.revoke_user(user), user, by)

    def revoke_session(self, sid: str, by: str) -> str:
        """End one session; return what to tell."""
        return self._revoke(lambda revoker: revoker.revoke_sid(sid), f"Session {sid}", by)

    def _revoke(self, act: Callable[[Revoker], Revoked], what: str, by: str) -> str:
        """Revoke. Raises ValueError for what nobody and nothing can be called."""
        with self._acting(by) as (_, admin):
            return _told(what, act(Revoker(admin)))

    @contextmanager
    def _acting(self, by: str) -> Iterator[tuple[Client, Admin]]:
        # `by` is told in the audit: the person, not the portal's user in Redis.
        with connect(self.store_url) as client, speaking_plainly(self.store_url):
            yield client, Admin(client, self.prefix, by=by)


def _told(what: str, done: Revoked) -> str:
    if done.undone:
        missing = "; ".join(f"{part.what}: {part.why}" for part in done.undone)
        return f"{what}: not all of it was revoked ({missing})."
    count = f"{done.sessions} session{'' if done.sessions == 1 else 's'}"
    return f"{what} is revoked, {count} ended."


def _unheard(_: str) -> None:
    """Hear what is wrong with the stream: `kat audit` says so, to those who can mend it."""
