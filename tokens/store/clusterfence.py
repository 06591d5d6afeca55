"""The fences of a cluster: one hash for all primaries, and the highest date counts for each.

The hash lives where its slot does. A slot may move from a primary that forgot something to one that
did not: so each is believed only from when on all are.
"""

from collections.abc import Callable
from copy import copy
from functools import partial

from tokens.question import Command, Fence, Reply
from tokens.store.fence import Ask, OldClock, date_field
from tokens.store.greeting import Server, connect, greet, to_int
from tokens.store.place import Place
from tokens.store.slots import Detour, read_detour
from tokens.store.url import Host
from tokens.store.wire import Observer, StoreUnavailable, Wire, raise_refusal

# From a node that was asked to the one that has the hash it is one step; two while it moves.
_MAX_STEPS = 4

Enter = Callable[[Host], Place]
"""Says how to get into a node of the cluster."""


class ClusterFence:
    """The highest fence of all primaries that we know of. It only ever rises."""

    def __init__(
        self,
        key: bytes,
        *,
        enter: Enter,
        rise: Callable[[int], None],
        observer: Observer,
        clock_skew_ms: int,
        is_fenced: bool,
    ) -> None:
        """Take `rise`, which tells all primaries in use a later date."""
        self._key = key
        self._clock_skew_ms = clock_skew_ms
        self._enter = enter
        self._rise = rise
        self._observer = observer
        self._is_fenced = is_fenced
        self._since_ms = 0
        self._dated: set[bytes] = set()

    def of(self, host: Host) -> "NodeFences":
        """Make what one primary needs of it."""
        return NodeFences(self, host, OldClock(self._clock_skew_ms))

    async def date(self, wire: Wire, host: Host, server: Server, clock: OldClock) -> Fence:
        """Date a primary that was greeted just now. Raises StoreUnavailable."""
        if not self._is_fenced:
            return Fence(server.replid, 0)
        try:
            await self._date(partial(self._ask, wire, host), server, clock)
        except StoreUnavailable:
            # Whoever has the hash is away. This server has forgotten nothing since it was dated.
            if server.replid not in self._dated:
                raise
        return Fence(server.replid, self._since_ms)

    async def _date(self, ask: Ask, server: Server, clock: OldClock) -> None:
        await date_field(ask, self._key, server, *clock.since_ms(server))
        (dates,) = await ask((b"HVALS", self._key))
        if not isinstance(dates, list):
            raise StoreUnavailable("reply", "Redis does not answer HVALS with a list")
        self._dated.add(server.replid)
        since_ms = max(map(to_int, dates), default=0)
        if since_ms > self._since_ms:
            self._since_ms = since_ms
            self._rise(since_ms)

    async def _ask(self, wire: Wire, host: Host, *commands: Command) -> list[Reply]:
        """Ask the node that has the hash: first the one at hand, then the one that it names."""
        replies = await wire.hear(*commands)
        for _ in range(_MAX_STEPS):
            detour = _detour(replies, host)
            if detour is None:
                break
            host = detour.host
            replies = await self._ask_elsewhere(detour, commands)
        raise_refusal(replies)
        return replies

    async def _ask_elsewhere(self, detour: Detour, commands: tuple[Command, ...]) -> list[Reply]:
        place = self._enter(detour.host)
        wire = await connect(place, self._observer)
        try:
            await greet(wire, place, ())
            if not detour.is_asking:
                return await wire.hear(*commands)
            asking = [part for command in commands for part in ((b"ASKING",), command)]
            return (await wire.hear(*asking))[1::2]
        finally:
            wire.abandon(StoreUnavailable("closed", "the fence is dated"))


class NodeFences:
    """What one primary needs of it, and the clock of the one whose slots it took over."""

    def __init__(self, fence: ClusterFence, host: Host, clock: OldClock) -> None:
        self._fence = fence
        self._host = host
        self._clock = clock

    def heir(self, host: Host) -> "NodeFences":
        """Make that of a primary which tokens of this one move to."""
        return NodeFences(self._fence, host, copy(self._clock))

    def hear(self, server: Server) -> None:
        self._clock.hear(server)

    async def date(self, wire: Wire, server: Server) -> Fence:
        fence = await self._fence.date(wire, self._host, server, self._clock)
        self._clock.hear(server)
        return fence


def _detour(replies: list[Reply], host: Host) -> Detour | None:
    """Find where all of these commands, which name one key, have to go instead."""
    for reply in replies:
        if isinstance(reply, Exception) and (detour := read_detour(reply, host)):
            return detour
    return None
