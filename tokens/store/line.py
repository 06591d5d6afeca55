"""One greeted connection to the primary, for as long as the worker lives: watched, made anew.

Only one is written to. One that was silent, or whose server turned out to be another one, is
retired: nothing is written to it any more, but the replies it owes may still come.
"""

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from tokens.question import Fence, Question, Reply
from tokens.store.advice import NO_TLS, advise
from tokens.store.fence import Fences
from tokens.store.greeting import (
    WHO_ARE_YOU,
    begin_proof,
    connect,
    greet,
    load,
    read_server,
    see_proof,
)
from tokens.store.place import Place
from tokens.store.wire import STALL_S, Observer, StoreUnavailable, Wire

CONNECT_TIMEOUT_S = 2.0
"""For finding the server, connecting and the greeting together: what needs longer is not there."""

# Silence for so much of the deadline means a connection that is dead, or a Redis that sleeps; both
# look alike. The rest of the deadline must do for connecting, the greeting and the second asking:
# four round trips, 1 ms nearby, 40 far away. And replies take 0.1 to 2 ms: one that has not come
# in 32 ms of 80 would hardly have come in 80.
SILENCE = 0.4

REPLACE_INTERVAL_S = 1.0
"""A Redis that is merely slow looks silent again and again. It is not flooded with connections."""

# So often within a second a lost connection is made anew without a pause. Once is usual, a
# promotion may take two; more than some say that it is not the connection that is wrong.
AT_ONCE = 8
AT_ONCE_WINDOW_S = 1.0

# After these a new connection may well be in order, at once.
_PASSING = frozenset({"closed", "reply", "fence", "readonly"})

_WATCH_INTERVAL_S = 0.25
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0

Locate = Callable[[], Awaitable[Place]]
"""Says before each attempt to connect where the primary is. Raises StoreUnavailable."""

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """Who writes to the line, and has to know when that begins and ends to be possible."""

    def take_up(self, silent: Wire | None) -> None:
        """Hear of a new connection; `silent` is the one that it replaces, if that is not lost."""

    def give_up(self, fault: StoreUnavailable) -> None:
        """Hear that there is no connection, and will not be one soon."""


class Line:
    """Knows at any moment the one connection to write to, or why there is none."""

    def __init__(
        self,
        locate: Locate,
        fences: Fences,
        scripts: Sequence[bytes],
        deadline_s: float,
        observer: Observer,
        *,
        probe: Question | None = None,
    ) -> None:
        """Take a `probe` that a server must answer before it counts as up."""
        self._locate = locate
        self._at = ""
        self._hint = ""
        self._probe = probe
        self._fences = fences
        self._scripts = scripts
        self._deadline_s = deadline_s
        self._observer = observer
        self._wire: Wire | None = None
        self._retired: list[Wire] = []
        # Of a kind that no failure has, so that the first one is logged, whatever it is.
        self.fault = StoreUnavailable("start", "not connected yet")
        self.fence = Fence(b"", 0)
        self._hope_until = -math.inf
        self._hopes = deque([-math.inf] * AT_ONCE, AT_ONCE)
        self._in_use_since = math.inf
        self._replaced_at = -math.inf
        self._is_to_be_replaced = False
        self._pause_s = _FIRST_PAUSE_S
        self._woken = asyncio.Event()

    @property
    def wire(self) -> Wire | None:
        """The connection to write to."""
        wire = self._wire
        if wire is not None and wire.lost.done():
            self.part(wire, wire.lost.result())
            return None
        return wire

    @property
    def is_hopeful(self) -> bool:
        """Whether a connection was lost just now and another one is being made.

        For as long as a deadline: who came then would wait for longer than that.
        """
        return time.monotonic() < self._hope_until

    def part(self, wire: Wire, fault: StoreUnavailable) -> None:
        """Write no more to a connection; the replies it owes may still come."""
        if wire is not self._wire:
            return
        self._wire = None
        if not wire.lost.done():
            self._retired.append(wire)
        now = time.monotonic()
        # One that is given up as soon as it is used (no permission, say) was no success.
        if now - self._in_use_since > _LONGEST_PAUSE_S:
            self._pause_s = _FIRST_PAUSE_S
        if fault.kind in _PASSING and now - self._hopes[0] > AT_ONCE_WINDOW_S:
            self._hopes.append(now)
            self._hope_until = now + self._deadline_s
        self._be_without(fault, is_news=True)
        self._woken.set()

    def load_scripts(self) -> None:
        """Give Redis the scripts again. What is written from now on finds them."""
        if self._wire is not None:
            self._wire.send(load(self._scripts), lambda _: None)

    def look(self) -> bool:
        """Give up what has stalled, replace what is silent; tell whether there is more to see.

        To be called a few times within a silence, as long as anything waits.
        """
        stalled = StoreUnavailable("timeout", f"no reply from Redis for {STALL_S} s")
        for old in list(self._retired):
            if not old.is_waiting or old.waits_longer_than(STALL_S):
                old.abandon(stalled)
        self._retired = [old for old in self._retired if not old.lost.done()]
        wire = self.wire
        if wire is None:
            return bool(self._retired)
        if wire.waits_longer_than(STALL_S):
            wire.abandon(stalled)
        elif self._is_silent(wire):
            self._replace()
        return wire.is_waiting or bool(self._retired)

    async def run(self, owner: Owner) -> None:
        """Keep a greeted connection until cancelled."""
        try:
            while True:
                await self._renew(owner)
                self.look()
                await self._watch()
                if self._wire is None and not self.is_hopeful:
                    # Jitter, so that a fleet of workers does not return to a restarted Redis as
                    # one.
                    await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311
                    self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        finally:  # when this task is cancelled: nobody else would tell who is in flight
            self._stop(owner)

    async def _renew(self, owner: Owner) -> None:
        """Try to get a new connection; leave one that is still in use as it is."""
        self._is_to_be_replaced = False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                wire, fence = await self._open()
        except StoreUnavailable as fault:
            self._fail(fault, owner)
        except TimeoutError:
            why = f"no greeting in {CONNECT_TIMEOUT_S} s{self._hint}"
            self._fail(StoreUnavailable("timeout", why), owner)
        else:
            self._use(wire, fence, owner)

    async def _open(self) -> tuple[Wire, Fence]:
        """Open and greet a connection. Raises StoreUnavailable; leaves nothing half open."""
        place = await self._locate()
        self._at = f"{place}: "
        self._hint = NO_TLS if place.ssl else ""
        wire = await connect(place, self._observer)
        try:
            return wire, await self._greet(wire, place)
        except BaseException:
            wire.abandon(StoreUnavailable("connect", "the greeting failed"))
            raise

    async def _greet(self, wire: Wire, place: Place) -> Fence:
        server = await greet(wire, place, self._scripts)
        proof = begin_proof(wire, server, self._probe) if self._probe else None
        fence = await self._fences.date(wire, server)
        if proof:
            see_proof(place, await proof)
        return fence

    def _fail(self, fault: StoreUnavailable, owner: Owner) -> None:
        if self._wire is not None:  # silent, but it is all there is
            self._observer.store_error(fault.kind)
            return
        self._hope_until = -math.inf
        self._be_without(fault, is_news=fault.kind != self.fault.kind)
        owner.give_up(fault)

    def _use(self, wire: Wire, fence: Fence, owner: Owner) -> None:
        """Write to a new connection from now on."""
        old = self._wire
        if old is not None:
            if not self._is_silent(old):
                wire.abandon(StoreUnavailable("closed", "not needed: the other one answers again"))
                return
            self._retired.append(old)
        else:
            self._observer.store_up(is_up=True)
            _log.info("store ready: %s", self._at.removesuffix(": "))
        self._wire, self.fence = wire, fence
        self._observer.greeted(fence)
        self._in_use_since = time.monotonic()
        self._hope_until = -math.inf
        wire.lost.add_done_callback(lambda _: self._woken.set())
        owner.take_up(old)

    async def _watch(self) -> None:
        """Wait until another connection is needed; ask the one in use now and then who it is."""
        while (wire := self._wire) is not None and not self._is_to_be_replaced:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_INTERVAL_S):
                    await self._woken.wait()
            self.look()
            if wire is self.wire and not wire.waits_longer_than(_WATCH_INTERVAL_S):
                wire.send(WHO_ARE_YOU, lambda result: self._recognise(wire, result))

    def _recognise(self, wire: Wire, result: list[Reply] | StoreUnavailable) -> None:
        """See whether the server is still the one that was greeted, and note its time."""
        if isinstance(result, StoreUnavailable) or wire is not self._wire:
            return
        try:
            server = read_server(*result)
        except StoreUnavailable as fault:
            self.part(wire, fault)
            return
        if server.replid == self.fence.replid:
            self._fences.hear(server)
        else:
            self.part(wire, StoreUnavailable("fence", "this Redis is another primary than before"))

    def _is_silent(self, wire: Wire) -> bool:
        return wire.is_silent_for(SILENCE * self._deadline_s)

    def _replace(self) -> None:
        now = time.monotonic()
        if now - self._replaced_at > REPLACE_INTERVAL_S:
            self._replaced_at = now
            self._is_to_be_replaced = True
            self._woken.set()

    def _be_without(self, fault: StoreUnavailable, *, is_news: bool) -> None:
        """Tell operators. Logged when it begins and when its cause changes, not each try."""
        if is_news:
            _log.warning("store unavailable: %s%s", self._at, advise(str(fault)))
        self.fault = fault
        self._observer.store_up(is_up=False)
        self._observer.store_error(fault.kind)

    def _stop(self, owner: Owner) -> None:
        wires = [*self._retired, *([self._wire] if self._wire else [])]
        self._wire = None
        self._hope_until = -math.inf
        self.fault = StoreUnavailable("closed", "the worker is stopping")
        for wire in wires:
            wire.abandon(self.fault)
        owner.give_up(self.fault)
