"""Sessions to one HAProxy, which after a reload is several processes for a while.

One of them takes new connections; the others finish those that they have, and can be reached by
whoever had a session to them before.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from haproxy.runtime.client import Process, Runtime, Session, Stream
from haproxy.runtime.fault import RuntimeFault, Unreachable
from haproxy.runtime.place import TcpPlace

_OF_OURS: Final = "GLOBAL"
"""The frontend of all `stats socket` lines: what passes there is no visitor's."""


@dataclass(frozen=True, slots=True)
class Link:
    """A session, held open, and the process at its other end."""

    session: Session
    process: Process
    closing: AsyncExitStack


class Links:
    """Holds a session to each process that is of interest."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._current: Link | None = None
        self._departing: list[Link] = []

    async def current(self, *, is_new: bool) -> Link | None:
        """Give the process that takes new connections; None while it is just changing.

        `is_new`: ask at the door, even if we have one that does not say that it is stopping. A
        second HAProxy may have taken its place. Raises RuntimeFault.
        """
        held = self._current
        if held and not is_new and await self._still_takes(held):
            return held
        try:
            link = await self._open()
        except RuntimeFault:
            self._current = None
            await self._part(held)
            raise
        self._current = link
        if held and link.process == held.process:
            # One session to a process is enough, and the older one may be lost.
            await held.closing.aclose()
        else:
            await self._part(held)
        if link.process.is_stopping:
            self._current = None
            await link.closing.aclose()
            return None
        return link

    async def departing(self) -> list[tuple[Link, list[Stream]]]:
        """Give those that only finish what they have, and what that is.

        One that has nothing left is let go: while we hold a session it would not end.
        """
        busy = []
        for link in self._departing:
            try:
                streams = [it for it in await link.session.streams() if it.frontend != _OF_OURS]
            except RuntimeFault:
                streams = []
            if streams:
                busy.append((link, streams))
            else:
                await link.closing.aclose()
        self._departing = [link for link, _ in busy]
        return busy

    async def close(self) -> None:
        for link in (*self._departing, *((self._current,) if self._current else ())):
            await link.closing.aclose()
        self._departing, self._current = [], None

    async def _still_takes(self, link: Link) -> bool:
        try:
            return not (await link.session.process()).is_stopping
        except Unreachable:
            return False

    async def _open(self) -> Link:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._runtime.session())
            process = await session.process()
            return Link(session, process, stack.pop_all())

    async def _part(self, link: Link | None) -> None:
        """Keep what stops, as long as it is there.

        Not what is reached by a TCP frontend, as for TLS: there our own session is a visitor to it,
        and it would never end for our sake.
        """
        if link is None:
            return
        if isinstance(self._runtime.place, TcpPlace) and self._runtime.place.tls:
            await link.closing.aclose()
        else:
            self._departing.append(link)
