"""Who is logged in at the portal: sessions of its own, which no gate knows. In memory."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from haproxy.demo.people import User

TTL_S: Final = 8 * 3600
MAX_VISITORS: Final = 1000
"""Anybody can log in, as often as he likes: the first ones go."""

_SECRET_BYTES: Final = 32


@dataclass(slots=True)
class Visitor:
    """One browser that is logged in."""

    user: User
    until_s: float
    notice: str = ""
    """What the next page tells."""

    def take_notice(self) -> str:
        notice, self.notice = self.notice, ""
        return notice


class Visitors:
    """Finds them by the secret in their cookie."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._visitors: dict[str, Visitor] = {}

    def welcome(self, user: User) -> str:
        """Begin a session; return its secret: a new one each time, which nobody knew before."""
        while len(self._visitors) >= MAX_VISITORS:
            del self._visitors[next(iter(self._visitors))]
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        self._visitors[secret] = Visitor(user, self._clock() + TTL_S)
        return secret

    def find(self, secret: str) -> Visitor | None:
        visitor = self._visitors.get(secret)
        if visitor and visitor.until_s <= self._clock():
            self.forget(secret)
            return None
        return visitor

    def forget(self, secret: str) -> None:
        self._visitors.pop(secret, None)

    def forget_user(self, name: str) -> None:
        """End all sessions of a user, in whatever browser."""
        for secret in [key for key, one in self._visitors.items() if one.user.name == name]:
            self.forget(secret)
