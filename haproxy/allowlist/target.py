"""One HAProxy whose ACLs are kept equal to what is granted."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from haproxy.allowlist.board import MAX_SILENCE_S, Board
from haproxy.allowlist.change import Change, Foreign, change_of
from haproxy.allowlist.ending import Ending
from haproxy.allowlist.entry import is_own
from haproxy.allowlist.links import Link, Links
from haproxy.allowlist.report import Report
from haproxy.runtime.client import Process, Runtime, Session, Stream
from haproxy.runtime.fault import Refused, RuntimeFault
from haproxy.runtime.place import RuntimePlace

BEAT_S: Final = 1.0
"""How often HAProxy is told that we live, and asked whether it is still the same process."""

VERIFY_S: Final = 10.0
"""How often all entries are read again: somebody else may have written there, too."""

# Grants may end one right after another, thousands of them.
_GAP_S: Final = 0.02

# After a reload the old process may answer once more.
_AGAIN_S: Final = 0.1

# What was ended is looked for again: HAProxy 2.6 does not end who it waits for a body of.
_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be kept in one HAProxy, as the operator says it."""

    name: str
    runtime: RuntimePlace
    acls: Mapping[str, tuple[str, ...]]
    """ACL of the grants -> those in HAProxy that are to hold them: `#500`, a file, `virt@...`."""
    heartbeat: str = ""
    """The stick-table that is told of each ACL that is right; empty: none."""
    foreign: Foreign = Foreign.KEEP
    shut: Mapping[str, tuple[str, ...]] | None = None
    """ACL of the grants -> frontends whose connections end with the grant of their address."""

    @property
    def grants(self) -> frozenset[str]:
        """The ACLs whose grants it takes to know what to do."""
        return frozenset(self.acls) | frozenset(self.shut or ())


class Target:
    """Keeps one HAProxy: looks, changes what differs, beats; at each change, and each second."""

    def __init__(self, order: Order, board: Board, report: Report) -> None:
        self._order = order
        self._board = board
        self._report = report
        self._bell = board.bell()
        self._links = Links(Runtime(order.runtime))
        self._ending = Ending(order.shut or {})
        self._process: Process | None = None
        self._looks = 0
        self._verify_at_s = 0.0
        self._beat_at_s = 0.0
        self._silent: dict[str, str] = {}
        """Why the last heartbeat was none, if so."""
        self._present: dict[str, frozenset[str]] = {}
        self._refused: dict[str, dict[str, str]] = {}

    async def keep(self) -> None:
        """Keep it equal, until cancelled. What goes wrong is reported, and tried again."""
        try:
            while True:
                pause_s = BEAT_S
                if self._board.is_known:
                    try:
                        pause_s = await self._turn()
                    except RuntimeFault as fault:
                        self._report.is_away(self._order.name, str(fault))
                await self._rung(pause_s)
        finally:
            await self._links.close()

    async def _rung(self, pause_s: float) -> None:
        """Wait until something changes, or a grant ends, or it is time."""
        if self._board.is_known and (left_s := self._board.left_s()) is not None:
            pause_s = min(pause_s, max(left_s, _GAP_S))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._bell.wait()
        self._bell.clear()

    async def _turn(self) -> float:
        """Do once what is to be done; return when to come again. Raises RuntimeFault."""
        is_due = time.monotonic() >= self._verify_at_s
        link = await self._links.current(is_new=is_due)
        if link is None:
            return _AGAIN_S
        if link.process != self._process:
            await self._meet(link)
        faults: dict[str, str] = {}
        sound = await self._keep_acls(link.session, faults)
        await self._end_connections(link.session, faults)
        await self._beat(link.session, sound, faults)
        self._report.is_kept(self._order.name, faults)
        return BEAT_S

    async def _meet(self, link: Link) -> None:
        """Begin anew: it holds what its files say, and nothing of ours. Raises NoAdmin."""
        await link.session.need_admin()
        self._process = link.process
        self._verify_at_s = self._beat_at_s = 0.0

    async def _keep_acls(self, session: Session, faults: dict[str, str]) -> list[str]:
        """Make all ACLs equal; return those of the grants for which that holds."""
        is_due = time.monotonic() >= self._verify_at_s
        if is_due:
            self._present.clear()
            self._refused.clear()
        sound = []
        for acl, names in self._order.acls.items():
            held = [await self._keep_acl(session, acl, name, faults) for name in names]
            sound += [acl] if all(held) else []
        if is_due:
            self._verify_at_s = time.monotonic() + VERIFY_S
        return sound

    async def _keep_acl(
        self, session: Session, acl: str, name: str, faults: dict[str, str]
    ) -> bool:
        """Make one ACL equal. False: it may hold what is not granted."""
        try:
            if name not in self._present:
                # An ACL of words would take addresses, and never match one.
                await session.need_addresses(name)
                self._present[name] = frozenset(await session.entries(name))
                self._ending.remember(acl, filter(is_own, self._present[name]))
            # Looked up last: what was ended while HAProxy answered is not put in place any more.
            wanted = self._board.entries(acl) - self._refused.get(name, {}).keys()
            change = change_of(self._present[name], wanted, self._order.foreign)
            if change:
                await self._apply(session, name, change)
        except Refused as fault:
            self._present.pop(name, None)
            faults[name] = str(fault)
            return False
        for entry, words in self._refused.get(name, {}).items():
            faults[f"{name} {entry}"] = f"{name}: HAProxy refuses {entry}: {words}"
        return True

    async def _apply(self, session: Session, name: str, change: Change) -> None:
        """Change one ACL. Whatever ends this in the middle, it is read again the next time."""
        present = self._present.pop(name)
        if change.is_whole:
            refused = await session.replace(name, change.add)
            present = frozenset(change.add)
        else:
            # What is over goes first: to be late with a no is worse than with a yes.
            await session.delete(name, change.delete)
            refused = await session.add(name, change.add)
            present = (present - frozenset(change.delete)) | frozenset(change.add)
        self._present[name] = present - refused.keys()
        self._refused.setdefault(name, {}).update(refused)
        self._report.has_changed(self._order.name, name, change)

    async def _end_connections(self, session: Session, faults: dict[str, str]) -> None:
        """End the connections of who may no longer have one."""
        departing = await self._links.departing()
        blocked = self._board.blocked()
        entries = {acl: self._board.entries(acl) for acl in self._order.shut or {}}
        if self._ending.is_due(blocked, entries):
            ended: list[Stream] = []
            try:
                ended += await self._end(session, await session.streams(), blocked, entries)
            except Refused as fault:
                faults["connections"] = str(fault)
                return
            for link, streams in departing:
                with suppress(RuntimeFault):  # it was about to end
                    ended += await self._end(link.session, streams, blocked, entries)
            self._report.has_ended(self._order.name, ended)
            self._looks += 1
            if ended and self._looks < _LOOKS:
                return
        self._looks = 0
        self._ending.settle(blocked, entries)

    async def _end(
        self,
        session: Session,
        streams: list[Stream],
        blocked: frozenset[str],
        entries: Mapping[str, frozenset[str]],
    ) -> list[Stream]:
        """End those of a process; its ids are soon another's, so at once, and in this session."""
        doomed = self._ending.doomed(streams, blocked, entries)
        return [stream for stream in doomed if await session.shut(stream.id)]

    async def _beat(self, session: Session, sound: list[str], faults: dict[str, str]) -> None:
        """Tell HAProxy which ACLs are right. Rules that hear nothing for long refuse."""
        if self._order.heartbeat and time.monotonic() >= self._beat_at_s:
            self._silent = await self._beat_once(session, sound)
            # A little less than a pause is long, or every second one would come too early.
            self._beat_at_s = time.monotonic() + BEAT_S / 2
        faults.update(self._silent)

    async def _beat_once(self, session: Session, sound: list[str]) -> dict[str, str]:
        if not self._board.is_fresh:
            sentence = (
                f"Redis has said nothing for {MAX_SILENCE_S:.0f} s: no heartbeat any more, and "
                "rules that ask for it refuse"
            )
            return {"silence": sentence}
        try:
            for acl in sound:
                await session.beat(self._order.heartbeat, acl)
        except Refused as fault:
            return {"heartbeat": str(fault)}
        return {}
