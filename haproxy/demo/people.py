"""Who there is in the demo, and which applications they may open."""

from dataclasses import dataclass
from typing import Final

ADMINS: Final = "admin"
"""Whose members see who is in, and end it."""


@dataclass(frozen=True, slots=True)
class User:
    """One who can log in. A real portal asks who it is; this one takes everybody's word."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_admin(self) -> bool:
        return ADMINS in self.groups


@dataclass(frozen=True, slots=True)
class Application:
    """One application behind a gate. `acl` is the gate's name for it, `url` ends in a slash."""

    acl: str
    title: str
    url: str
    groups: frozenset[str]

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/")

    def is_open_to(self, user: User) -> bool:
        return not self.groups.isdisjoint(user.groups)


USERS: Final = (
    User("alice", ("staff",)),
    User("bob", ("staff", ADMINS)),
    User("carol", ("guests",)),
)
