"""The worker's way to Redis: one pipelined connection, greeted, watched and made anew.

Not a client library, on purpose. A library's retry is wrong here: if a consume ran and only its
reply was lost, a second try would meet the tombstone and refuse an honest visitor. Here nothing
is ever sent twice, but for one case that is known not to have run: NOSCRIPT.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from redis.asyncio.connection import ConnectKwargs, parse_url

from tokens.gate import Command, Fence, Reply
from tokens.wire import Observer, Settle, StoreUnavailable, Wire, error_kind

CONNECT_TIMEOUT_S = 2.0
"""For connecting and the greeting together: a Redis that needs longer is not there."""

_WATCH_INTERVAL_S = 0.25
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_MAX_DIGITS = 16  # of a time in ms or us; int() itself raises above 4300

# The connection itself is in order, but what was found when it was greeted holds no more: the
# server was promoted or demoted, is out of memory or disk, or its users were changed. Until a
# greeting finds it well again the store is down: operators see that, and nobody loses a token.
_GREET_AGAIN = frozenset({"fence", "readonly", "auth", "oom", "misconf", "reply"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where Redis is and how it is used. `url` may hold a password and is never shown."""

    url: str = field(repr=False)
    fence_key: bytes
    is_fenced: bool
    clock_skew_ms: int
    script: bytes
    script_sha: bytes
    deadline_s: float


class Store:
    """Runs forever; heals by itself; never makes anybody wait.

    While there is no connection, or one whose oldest batch is past the deadline, `execute`
    settles at once with StoreUnavailable: what were sent then could only consume tokens of
    visitors who have been refused already.
    """

    def __init__(self, settings: StoreSettings, observer: Observer) -> None:
        self._settings = settings
        self._observer = observer
        self._wire: Wire | None = None
        # Of a kind that no failure has, so that the first one is logged, whatever it is.
        self._fault = StoreUnavailable("start", "not connected yet")
        self.fence = Fence(b"", 0)

    def execute(self, commands: Sequence[Command], settle: Settle) -> None:
        """Send a batch in one write. `settle` is called exactly once, now or later."""
        wire = self._wire
        if wire is None:
            settle(self._fault)
        elif wire.waits_longer_than(self._settings.deadline_s):
            settle(StoreUnavailable("timeout", "Redis is past the deadline with an earlier batch"))
        else:
            give_up_at = wire.now() + self._settings.deadline_s
            wire.send(commands, partial(self._receive, wire, commands, give_up_at, settle))

    def distrust(self, kind: str, message: str) -> None:
        """Hear of an error reply, or of one that fits no question; start anew if that helps."""
        self._observer.store_error(kind)
        if self._wire and kind in _GREET_AGAIN:
            self._wire.abandon(StoreUnavailable(kind, message))

    async def run(self) -> None:
        """Keep a greeted connection for as long as the worker lives."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    wire = await self._connect()
            except StoreUnavailable as fault:
                self._lose(fault)
            except TimeoutError:
                self._lose(StoreUnavailable("timeout", f"no greeting in {CONNECT_TIMEOUT_S} s"))
            else:
                began_at = wire.now()
                self._lose(await self._serve(wire))
                # One that is given up as soon as it is used (no permission, say) is no success.
                if wire.now() - began_at > _LONGEST_PAUSE_S:
                    pause_s = _FIRST_PAUSE_S
            # Jitter, so that a fleet of workers does not return to a restarted Redis as one.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _connect(self) -> Wire:
        """Open and greet a connection. Raises StoreUnavailable; leaves nothing half open."""
        loop = asyncio.get_running_loop()
        wire = Wire(self._observer)
        address = parse_url(self._settings.url)
        try:
            if "path" in address:
                await loop.create_unix_connection(lambda: wire, address["path"])
            else:
                host, port = address.get("host", "localhost"), address.get("port", 6379)
                await loop.create_connection(lambda: wire, host, port)
        except OSError as error:
            raise StoreUnavailable("connect", f"cannot connect to Redis: {error}") from None
        try:
            await self._greet(wire, address)
        except BaseException:
            wire.abandon(StoreUnavailable("connect", "the greeting failed"))
            raise
        return wire

    async def _greet(self, wire: Wire, address: ConnectKwargs) -> None:
        """Say who we are, load the script, and learn since when this server forgot nothing."""
        settings = self._settings
        if password := address.get("password"):
            user = address.get("username") or "default"
            await wire.ask((b"AUTH", user.encode(), password.encode()))
        if database := address.get("db"):
            await wire.ask((b"SELECT", database))
        _, info, time = await wire.ask(
            (b"SCRIPT", b"LOAD", settings.script), (b"INFO", b"replication"), (b"TIME",)
        )
        replication = _parse_info(info)
        role, replid = replication.get(b"role"), replication.get(b"master_replid", b"")
        if role != b"master":
            raise StoreUnavailable("readonly", "this Redis is a replica, not a primary")
        # A promoted replica expired keys by the old primary's clock until now.
        skew_ms = settings.clock_skew_ms if _was_promoted(replication) else 0
        # HSETNX: whoever meets a server first dates its fence, everybody else reads it. It is a
        # write, also without the fence: a server that refuses it could consume nothing.
        _, since = await wire.ask(
            (b"HSETNX", settings.fence_key, replid, _to_ms(time) + skew_ms),
            (b"HGET", settings.fence_key, replid),
        )
        since_ms = _to_int(since) if settings.is_fenced else 0
        self.fence = Fence(replid, since_ms)

    async def _serve(self, wire: Wire) -> StoreUnavailable:
        """Use a greeted connection until it is lost; return why it was."""
        self._wire = wire
        self._observer.store_up(is_up=True)
        _log.info("store ready")
        try:
            while not wire.lost.done():
                await asyncio.wait((wire.lost,), timeout=_WATCH_INTERVAL_S)
                wire.watch()
        finally:  # when this task is cancelled: nobody else would tell who is in flight
            wire.abandon(StoreUnavailable("closed", "the worker is stopping"))
        return wire.lost.result()

    def _lose(self, fault: StoreUnavailable) -> None:
        """Be without Redis. Logged when it begins and when its cause changes, not each try."""
        if self._wire or fault.kind != self._fault.kind:
            _log.warning("store unavailable: %s", fault)
        self._wire = None
        self._fault = fault
        self._observer.store_up(is_up=False)
        self._observer.store_error(fault.kind)

    def _receive(
        self,
        wire: Wire,
        commands: Sequence[Command],
        give_up_at: float,
        settle: Settle,
        result: list[Reply] | StoreUnavailable,
    ) -> None:
        """Hand the replies on; or, where Redis has lost the script, ask those once more.

        NOSCRIPT says that nothing ran, so asking again is safe. EVAL brings the script along.
        """
        if isinstance(result, StoreUnavailable):
            settle(result)
            return
        lost = _without_script(result)
        if not lost or wire.now() > give_up_at:
            settle(result)
            return

        def merge(second: list[Reply] | StoreUnavailable) -> None:
            if isinstance(second, StoreUnavailable):
                settle(second)
                return
            for index, reply in zip(lost, second, strict=True):
                result[index] = reply
            settle(result)

        script = self._settings.script
        wire.send([(b"EVAL", script, *commands[index][2:]) for index in lost], merge)


def _without_script(replies: Sequence[Reply]) -> list[int]:
    return [
        index
        for index, reply in enumerate(replies)
        if isinstance(reply, Exception) and error_kind(str(reply)) == "script"
    ]


def _parse_info(info: Reply) -> dict[bytes, bytes]:
    lines = info.splitlines() if isinstance(info, bytes) else []
    return {name: value for name, _, value in (line.partition(b":") for line in lines)}


def _was_promoted(replication: dict[bytes, bytes]) -> bool:
    """Tell whether this primary was a replica: it then remembers the replid it followed."""
    return replication.get(b"master_replid2", b"").strip(b"0") != b""


def _to_ms(time: Reply) -> int:
    """Read the answer to TIME: seconds and microseconds, as text."""
    if not isinstance(time, list) or len(time) != 2:  # noqa: PLR2004 - seconds, microseconds
        raise StoreUnavailable("reply", "Redis does not answer TIME with two numbers")
    return _to_int(time[0]) * 1000 + _to_int(time[1]) // 1000


def _to_int(number: Reply) -> int:
    if not isinstance(number, bytes) or not number.isdigit() or len(number) > _MAX_DIGITS:
        raise StoreUnavailable("reply", "Redis answers something else where a number belongs")
    return int(number)
