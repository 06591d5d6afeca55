"""What to do to an ACL, so that it has the entries it ought to have. Pure."""

from collections.abc import Collection
from enum import StrEnum
from typing import Final, NamedTuple

from haproxy.allowlist.entry import is_own

LARGE: Final = 500
"""More entries than that are put in place at once, and not one by one."""


class Foreign(StrEnum):
    """What becomes of entries that others put into an ACL."""

    KEEP = "keep"
    REMOVE = "remove"


class Change(NamedTuple):
    """Entries to delete, and then to add."""

    add: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    is_whole: bool = False
    """`add` is all that the ACL is to have, in place of what it has."""

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


def change_of(present: Collection[str], wanted: frozenset[str], foreign: Foreign) -> Change:
    """Compare what an ACL has with what it ought to have.

    Only an ACL that is ours alone is ever put in place as a whole: what others add between our
    look and our commit would be lost, and they would never know.
    """
    ours = frozenset(filter(is_own, present))
    surplus = ours if foreign is Foreign.KEEP else frozenset(present)
    add, delete = wanted - ours, surplus - wanted
    is_whole = foreign is Foreign.REMOVE and len(add) > LARGE
    return Change(tuple(sorted(wanted if is_whole else add)), tuple(sorted(delete)), is_whole)
