"""One HAProxy whose ACLs are kept equal to what is granted."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from haproxy.allowlist.board import MAX_SILENCE_S, Board, Picture
from haproxy.allowlist.ending import Ending
from haproxy.allowlist.links import Link, Links
from haproxy.allowlist.lists import Lists
from haproxy.allowlist.order import Order
from haproxy.allowlist.report import Report
from haproxy.runtime.client import Process, Runtime, Session, Stream
from haproxy.runtime.fault import Refused, RuntimeFault

BEAT_S: Final = 1.0
"""How often HAProxy is told that we live, and asked whether it is still the same process."""

# Grants may end one right after another, thousands of them.
_GAP_S: Final = 0.02

# After a reload the old process may answer once more.
_AGAIN_S: Final = 0.1

# What was ended is looked for again: HAProxy 2.6 does not end who it waits for a body of.
_LOOKS: Final = 3


class Target:
    """Keeps one HAProxy: looks, changes what differs, beats; at each change, and each second."""

    def __init__(self, order: Order, board: Board, report: Report) -> None:
        self._order = order
        self._board = board
        self._report = report
        self._bell = board.bell()
        self._links = Links(Runtime(order.runtime))
        self._ending = Ending(order.shut)
        self._lists = Lists(order, report, self._ending.remember)
        self._process: Process | None = None
        self._looks = 0
        self._missing: dict[str, str] = {}
        self._beat_at_s = 0.0
        self._silent: dict[str, str] = {}
        """Why the last heartbeat was none, if so."""

    async def keep(self) -> None:
        """Keep it equal, until cancelled. What goes wrong is reported, and tried again."""
        try:
            while True:
                pause_s = BEAT_S
                if self._board.is_known:
                    try:
                        pause_s = await self._turn()
                    except RuntimeFault as fault:
                        self._lists.forget()
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
        link = await self._links.current(is_new=self._lists.is_due)
        if link is None:
            return _AGAIN_S
        if link.process != self._process:
            await self._meet(link)
        # One picture for all of it: whose connections end is who was taken out of the ACLs before.
        picture = self._board.picture(self._order.grants)
        sound, faults = await self._lists.keep(link.session, picture)
        await self._beat(link.session, sound, faults)
        await self._end_connections(link.session, picture, faults)
        self._report.is_kept(self._order.name, {**faults, **self._missing})
        return BEAT_S

    async def _meet(self, link: Link) -> None:
        """Begin anew: it holds what its files say, and nothing of ours. Raises NoAdmin."""
        await link.session.need_admin()
        self._missing = {}
        if wanted := {name for names in self._order.shut.values() for name in names}:
            for name in sorted(wanted.difference(await link.session.frontends())):
                self._missing[f"frontend {name}"] = (
                    f"no frontend {name} whose connections could end"
                )
        self._process = link.process
        self._lists.forget()
        self._beat_at_s = 0.0

    async def _end_connections(
        self, session: Session, picture: Picture, faults: dict[str, str]
    ) -> None:
        """End the connections of who may no longer have one."""
        departing = await self._links.departing()
        if self._ending.is_due(picture.blocked, picture.entries):
            ended: list[Stream] = []
            try:
                ended += await self._end(session, await session.streams(), picture)
            except Refused as fault:
                faults["connections"] = str(fault)
                return
            for link, streams in departing:
                with suppress(RuntimeFault):  # it was about to end
                    ended += await self._end(link.session, streams, picture)
            self._report.has_ended(self._order.name, ended)
            self._looks += 1
            if ended and self._looks < _LOOKS:
                return
        self._looks = 0
        self._ending.settle(picture.blocked, picture.entries)

    async def _end(self, session: Session, streams: list[Stream], picture: Picture) -> list[Stream]:
        """End those of a process; its ids are soon another's, so at once, and in this session."""
        doomed = self._ending.doomed(streams, picture.blocked, picture.entries)
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
