"""The ACLs of one HAProxy: what is in them, as far as we know, and how they get right."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from haproxy.allowlist.board import Picture
from haproxy.allowlist.change import Change, change_of
from haproxy.allowlist.entry import is_own
from haproxy.allowlist.order import Order
from haproxy.allowlist.report import Report
from haproxy.runtime.client import Session
from haproxy.runtime.fault import Refused

VERIFY_S: Final = 10.0
"""How often all entries are read again: somebody else may have written there, too."""

# What could not be put right is tried again.
_RETRY_S: Final = 1.0


class Lists:
    """Keeps the ACLs of one HAProxy. `found` hears what is ours in them, when they are read."""

    def __init__(
        self, order: Order, report: Report, found: Callable[[str, Iterable[str]], None]
    ) -> None:
        self._order = order
        self._report = report
        self._found = found
        self._look_at_s = 0.0
        self._present: dict[str, frozenset[str]] = {}
        self._unfit: dict[str, str] = {}
        """Those whose entries are not known, or cannot be put right, and why."""
        self._refused: dict[str, dict[str, str]] = {}
        """Entries that HAProxy does not take, and its words."""

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at everything again."""
        return time.monotonic() >= self._look_at_s

    def forget(self) -> None:
        """Look at everything the next time: this is another process, or the connection was lost."""
        self._look_at_s = 0.0

    async def keep(self, session: Session, picture: Picture) -> tuple[list[str], dict[str, str]]:
        """Make all of them equal to the picture, as far as that goes.

        Returns the ACLs of the grants for which HAProxy now admits nobody who is not granted and
        nothing is put off, and what is wrong. Raises Unreachable.
        """
        if self.is_due:
            await self._look(session)
        changes = {
            name: change_of(
                self._present[name],
                picture.entries[acl] - self._refused.get(name, {}).keys(),
                self._order.foreign,
            )
            for acl, names in self._order.acls.items()
            for name in names
            if name in self._present
        }
        # What is over goes first, everywhere: to be late with a no is worse than with a yes.
        for name, change in changes.items():
            await self._delete(session, name, change)
        late = {}
        for name, change in changes.items():
            if change.add and not picture.is_current:
                late[name] = f"{name}: Redis is silent: what is missing there is not put in place"
            else:
                await self._add(session, name, change)
        faults = {**self._unfit, **late}
        sound = [acl for acl, names in self._order.acls.items() if faults.keys().isdisjoint(names)]
        return sound, {**faults, **dict(map(_refusal, self._refused.items()))}

    async def _look(self, session: Session) -> None:
        """Read all entries again. An ACL that cannot be read has no heartbeat."""
        self._present.clear()
        self._refused.clear()
        self._unfit = await self._aliases(session)
        for acl, names in self._order.acls.items():
            for name in names:
                if name in self._unfit:
                    continue
                try:
                    # An ACL of words would take addresses, and never match one.
                    await session.need_addresses(name)
                    self._present[name] = frozenset(await session.entries(name))
                except Refused as fault:
                    self._unfit[name] = str(fault)
                else:
                    self._found(acl, filter(is_own, self._present[name]))
        self._look_at_s = time.monotonic() + VERIFY_S

    async def _aliases(self, session: Session) -> dict[str, str]:
        """Find names of one and the same ACL: what one puts there, the other would take out."""
        ids = {it.file: it.id for it in await session.acls() if it.file}
        first_of: dict[int, str] = {}
        faults: dict[str, str] = {}
        for name in self._order.names:
            number = int(name[1:]) if name.startswith("#") else ids.get(name)
            if number is None:
                continue
            first = first_of.setdefault(number, name)
            if first != name:
                sentence = f"{first} and {name} are one and the same ACL: name it once"
                faults[first] = faults[name] = sentence
        return faults

    async def _delete(self, session: Session, name: str, change: Change) -> None:
        if not change.delete:
            return
        try:
            await session.delete(name, change.delete)
        except (Refused, ValueError) as fault:  # the latter: others' entry that no command can name
            self._spoil(name, fault)
            return
        self._present[name] -= frozenset(change.delete)
        self._report.has_changed(self._order.name, name, removed=len(change.delete))

    async def _add(self, session: Session, name: str, change: Change) -> None:
        if not change.add or name not in self._present:
            return
        try:
            add = session.replace if change.is_whole else session.add
            refused = await add(name, change.add)
        except Refused as fault:
            self._spoil(name, fault)
            return
        self._present[name] |= frozenset(change.add)
        self._present[name] -= refused.keys()
        if refused:
            self._refused.setdefault(name, {}).update(refused)
        self._report.has_changed(self._order.name, name, added=len(change.add))

    def _spoil(self, name: str, fault: Exception) -> None:
        """Take an ACL for unknown, until it is looked at again."""
        self._present.pop(name, None)
        self._unfit[name] = f"{name}: {fault}"
        self._look_at_s = time.monotonic() + _RETRY_S


def _refusal(of: tuple[str, dict[str, str]]) -> tuple[str, str]:
    """Say which entries HAProxy does not take: the first of them, and how many."""
    name, refused = of
    entry, words = next(iter(refused.items()))
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    return f"{name} refused", f"{name}: HAProxy refuses {entry}: {words}{more}"
