"""The primaries of a cluster: who has which slot, a connection to each, and when that changes."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tokens.store.advice import advise
from tokens.store.clusterfence import ClusterFence, NodeFences
from tokens.store.discovery import Discovery
from tokens.store.place import Place
from tokens.store.primary import Primary
from tokens.store.settings import StoreSettings
from tokens.store.slots import SLOTS, Detour, SlotRange, missing
from tokens.store.tls import client_context
from tokens.store.url import ClusterUrl, Host
from tokens.store.wire import Observer, StoreUnavailable

# The nodes are asked who has which slots whenever something points to a change, but not again at
# once; and now and then, so that a primary without traffic is met, and dated, early.
_REFRESH_INTERVAL_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 0.5

# A primary that redirections lead to has no slots yet, or not by what another node knows.
_DETOUR_LASTS_S = 10.0

# After a primary refused a write, one is taken to refuse them for so long. Its greeting cannot
# find out: none of the keys that it writes need be there.
_REFUSAL_LASTS_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Node:
    """A primary that is in use, or about to be."""

    host: Host
    fences: NodeFences
    is_up: bool = False
    wanted_until: float = 0.0
    """For redirections; what has slots is wanted anyway."""
    primary: Primary = field(init=False)
    task: "asyncio.Task[None]" = field(init=False)


class Owner(Protocol):
    """Who asks them, and keeps what waits for one of them."""

    def came(self, node: Node) -> None:
        """Hear of one that can be asked now."""

    def left(self, node: Node, fault: StoreUnavailable) -> None:
        """Hear of one that is not in use any more, and why."""


class Primaries:
    """Knows at any moment whom to ask for a slot."""

    def __init__(
        self, url: ClusterUrl, settings: StoreSettings, observer: Observer, owner: Owner
    ) -> None:
        """Look at the TLS files now: raises ValueError when they cannot be used."""
        self._url = url
        self._settings = settings
        self._ssl = client_context(settings.tls) if url.is_tls else None
        self._discovery = Discovery(url, settings.tls)
        self._observer = observer
        self._owner = owner
        self._fence = ClusterFence(
            settings.fence_key,
            enter=self._enter,
            rise=self._rise,
            observer=observer,
            clock_skew_ms=settings.clock_skew_ms,
            is_fenced=settings.is_fenced,
        )
        self._nodes: dict[Host, Node] = {}
        self._missing = 0
        self._is_refusing = False
        self._refused_at = 0.0
        self._doubt = asyncio.Event()
        self.owners: list[Node | None] = [None] * SLOTS
        """Slot -> primary. Only right when somebody has been told so."""
        # Of a kind that no failure has, so that the first one is logged, whatever it is.
        self.fault = StoreUnavailable("start", "not connected yet")

    def all(self) -> list[Node]:
        return list(self._nodes.values())

    def any(self) -> Node | None:
        """Choose who is asked what every primary knows."""
        nodes = self.all()
        return next((node for node in nodes if node.is_up), nodes[0] if nodes else None)

    def doubt(self) -> None:
        """Hear that what we know may be wrong."""
        self._doubt.set()

    def follow(self, detour: Detour, slot: int) -> Node:
        """Return the primary that a redirection leads to."""
        self._doubt.set()
        node = self._node(detour.host, self.owners[slot])
        node.wanted_until = time.monotonic() + _DETOUR_LASTS_S
        if not detour.is_asking:
            self.owners[slot] = node
        return node

    async def run(self) -> None:
        """Keep all connections until cancelled."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                is_well = await self._refresh()
                pause_s = _FIRST_PAUSE_S if is_well else min(2 * pause_s, _LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                if is_well:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_REFRESH_INTERVAL_S):
                            await self._doubt.wait()
        finally:
            self.fault = StoreUnavailable("closed", "the worker is stopping")
            await self._leave(self.all())

    async def _refresh(self) -> bool:
        """Learn who has which slots, and connect to just those. Return whether all is well."""
        self._doubt.clear()
        try:
            ranges = await self._discovery.slots(node.host for node in self.all() if not node.is_up)
        except StoreUnavailable as fault:
            if fault.kind != self.fault.kind:
                _log.warning("store unavailable: %s", fault)
            self.fault = fault
            self._observer.store_error(fault.kind)
            return False
        self._learn(ranges)
        has, now = {one.primary for one in ranges}, time.monotonic()
        await self._leave(
            [node for node in self.all() if node.host not in has and now >= node.wanted_until]
        )
        self._tell()
        return not self._missing and all(node.is_up for node in self.all())

    def _learn(self, ranges: Sequence[SlotRange]) -> None:
        owners: list[Node | None] = [None] * SLOTS
        for one in ranges:
            node = self._node(one.primary, self.owners[one.start])
            owners[one.start : one.end + 1] = [node] * (one.end + 1 - one.start)
        self.owners = owners
        self.fault = StoreUnavailable("start", "not connected yet")
        if (count := missing(ranges)) != self._missing:
            _log.warning(
                "store unavailable in part: %d slots of %s have no primary", count, self._url
            )
            self._missing = count

    async def _leave(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            del self._nodes[node.host]
            node.task.cancel()
        await asyncio.gather(*(node.task for node in nodes), return_exceptions=True)
        for node in nodes:
            self._owner.left(node, StoreUnavailable("closed", f"{node.host} is not in use now"))

    def _node(self, host: Host, before: Node | None) -> Node:
        """Return the primary at this address; a new one takes over from `before`."""
        if node := self._nodes.get(host):
            return node
        fences = before.fences.heir(host) if before else self._fence.of(host)
        node = self._nodes[host] = Node(host, fences)
        observer = _NodeObserver(self, node, self._observer)
        settings, locate = self._settings, partial(self._locate, host)
        node.primary = Primary(
            locate, fences, settings.scripts, settings.deadline_s, observer, probe=settings.probe
        )
        node.task = asyncio.create_task(node.primary.run())
        return node

    async def _locate(self, host: Host) -> Place:
        return self._enter(host)

    def _enter(self, host: Host) -> Place:
        return self._url.place(host, self._ssl)

    def _rise(self, since_ms: int) -> None:
        for node in self.all():
            node.primary.raise_fence(since_ms)

    def turned(self, node: Node, *, is_up: bool) -> None:
        """Hear that a primary can be used, or not any more."""
        node.is_up = is_up
        if is_up:
            # Not now: it says so a moment before it is.
            asyncio.get_running_loop().call_soon(self._owner.came, node)
        else:
            self._doubt.set()
        self._tell()

    def refused(self, said: str) -> None:
        """Hear that a primary refuses all writes; which one, the script's answer does not say."""
        self._refused_at = time.monotonic()
        if self._is_refusing:
            return
        self._is_refusing = True
        hosts = ", ".join(str(node.host) for node in self.all())
        _log.warning("store unavailable in part: one of %s: %s", hosts, advise(said))
        self._tell()
        asyncio.get_running_loop().call_later(_REFUSAL_LASTS_S, self._forgive)

    def _forgive(self) -> None:
        left_s = self._refused_at + _REFUSAL_LASTS_S - time.monotonic()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._forgive)
            return
        self._is_refusing = False
        self._tell()

    def _tell(self) -> None:
        """Say whether any request can be decided: every slot has a primary that does its work.

        With one of three away the others go on, and a third of all requests fail, or all, if it is
        the one that has the revocations. Who operates it wants to hear of either.
        """
        is_whole = all(node is not None and node.is_up for node in set(self.owners))
        self._observer.store_up(is_up=is_whole and not self._is_refusing)


class _NodeObserver:
    """Tells the others how one primary fares, and everybody else the rest."""

    def __init__(self, primaries: Primaries, node: Node, observer: Observer) -> None:
        self._primaries = primaries
        self._node = node
        self.redis_round_trip = observer.redis_round_trip
        self.store_error = observer.store_error
        self.asked_again = observer.asked_again
        self.greeted = observer.greeted

    def store_up(self, is_up: bool) -> None:  # noqa: FBT001 - a gauge
        self._primaries.turned(self._node, is_up=is_up)
