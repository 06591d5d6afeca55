r"""A proxy before a real Redis that does to its replies what a test says, step by step.

It knows which command a reply belongs to. So a test speaks of "the next reply to EVALSHA", and a
PING that the client sends on its own gets between nothing.

    with RedisProxy(server.socket, place) as proxy:
        proxy.plan(b"EVALSHA", Step.PASS, Step.DROP, b"-LOADING not yet\r\n")

Or a test leaves it to chance:

        proxy.disturb(seed=1, rates={Step.DROP: 0.01, Step.CUT: 0.001})
"""

import asyncio
import contextlib
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum, auto
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

_TURNS_TO_ACCEPT = 10
"""asyncio takes a few turns from accept() to the first line of what serves the connection."""

LATE_S = 0.05
"""How late a reply may be that is LATE. By the wall: no test waits for it, it only may come so."""


class Step(Enum):
    """What to do with one reply. Bytes in place of a Step are said in its place."""

    PASS = auto()
    DROP = auto()
    TWICE = auto()
    HALF = auto()  # one half of it, then the end of the connection
    HOLD = auto()  # this one and all behind it, until `release`
    CUT = auto()  # nothing of it, then the end of the connection
    SWAP = auto()  # it comes behind the next one, or never if there is none
    LATE = auto()  # this one and all behind it, a moment later


class RedisProxy:
    """Listens once entered. Every method may be called from any thread, and is done on return.

    `upstream` is where new connections go, a unix socket or host:port, and may be changed.
    `commands` is what clients sent, as (name, frame); `held` counts the replies on HOLD. With
    nothing planned a reply passes.
    """

    def __init__(self, upstream: str, place: Path | None) -> None:
        """Listen on a unix socket in `place`, or, without one, on a free port of 127.0.0.1."""
        self.upstream = upstream
        self.path = place / "proxy.sock" if place else None
        self.port = 0
        self.commands: list[tuple[bytes, bytes]] = []
        self.held = 0
        self.disturbed = 0
        self._plans: defaultdict[bytes, deque[Step | bytes]] = defaultdict(deque)
        self._chance: tuple[int, Mapping[Step, float]] = (0, {})
        self._served = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._release = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    @property
    def url(self) -> str:
        return f"unix://{self.path}" if self.path else f"redis://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._clients)

    def count(self, *names: bytes) -> int:
        """Count how many commands of these names clients have sent."""
        return sum(name in names for name, _ in list(self.commands))

    def plan(self, command: bytes, *steps: Step | bytes) -> None:
        """Say what happens to the next replies to this command, after what is planned already."""
        self._call(lambda: self._plans[command].extend(steps))

    def disturb(self, seed: int, rates: Mapping[Step, float]) -> None:
        """Do these steps to replies at random, each as often as its rate says, until `forget`.

        Every connection that is opened from now on has its own chance, of the seed and its number.
        `disturbed` counts.
        """
        self._chance = (seed, dict(rates))

    def forget(self) -> None:
        """Forget what is planned or left to chance, and let all go that is held."""
        self._chance = (0, {})
        self._call(self._plans.clear)
        self.release()

    def release(self) -> None:
        """Let all go that is held."""
        self._call(self._let_go)

    def say(self, data: bytes) -> None:
        """Tell every client something that none of them asked for."""
        self._call(lambda: self._say(data))

    def cut(self) -> None:
        """Reset every connection. New ones are welcome."""
        self._run(self._cut())

    def vanish(self) -> None:
        """Stop listening, and reset what is connected, as a killed server would."""
        self._run(self._vanish())

    def listen(self) -> None:
        """Accept connections (again)."""
        self._run(self._listen())

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.vanish()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _call(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        self._run(call())

    def _let_go(self) -> None:
        self._release.set()
        self._release = asyncio.Event()

    def _say(self, data: bytes) -> None:
        for client in self._clients:
            client.write(data)

    async def _listen(self) -> None:
        if self.path:
            self._server = await asyncio.start_unix_server(self._serve, self.path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _vanish(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            if self.path:
                self.path.unlink()
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        await self._cut()

    async def _cut(self) -> None:
        tasks = list(self._clients.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Carry one connection, until either side, a step or the test ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._clients[client] = task
        # Cancelled is how a test ends it, not an error that asyncio should report.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._carry(reader, client)
        client.transport.abort()
        del self._clients[client]
        await asyncio.sleep(0)  # the transport closes its socket in the next turn

    async def _carry(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        replies, server = await self._connect()
        names: deque[bytes] = deque()
        ways = (self._forward(reader, server, names), self._answer(replies, client, names))
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if "/" in self.upstream:
            return await asyncio.open_unix_connection(self.upstream)
        host, _, port = self.upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _forward(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, names: deque[bytes]
    ) -> None:
        while True:
            frame = await _read_frame(reader)
            name = frame.split(b"\r\n", 3)[2].upper()
            names.append(name)
            self.commands.append((name, frame))
            server.write(frame)

    async def _answer(
        self, replies: asyncio.StreamReader, client: asyncio.StreamWriter, names: deque[bytes]
    ) -> None:
        self._served += 1
        chance = Random(f"{self._chance[0]} {self._served}")
        swapped = b""
        while True:
            frame = await _read_frame(replies)
            step = self._step(names.popleft() if names else b"", chance)
            if step is Step.HOLD:
                await self._hold()
            elif step is Step.LATE:
                await asyncio.sleep(chance.uniform(0, LATE_S))
            elif step is Step.SWAP and not swapped:
                swapped = frame
                continue
            client.write(_said(frame, step) + swapped)
            swapped = b""
            if step in (Step.HALF, Step.CUT):
                client.close()
                await client.wait_closed()
                return

    def _step(self, name: bytes, chance: Random) -> Step | bytes:
        """Say what is done to the next reply to a command of this name."""
        if self._plans[name]:
            return self._plans[name].popleft()
        left = chance.random()
        for step, rate in self._chance[1].items():
            left -= rate
            if left < 0:
                self.disturbed += 1
                return step
        return Step.PASS

    async def _hold(self) -> None:
        self.held += 1
        try:
            await self._release.wait()
        finally:
            self.held -= 1


def _said(frame: bytes, step: Step | bytes) -> bytes:
    match step:
        case bytes():
            return step
        case Step.PASS | Step.HOLD | Step.LATE | Step.SWAP:
            return frame
        case Step.TWICE:
            return frame * 2
        case Step.HALF:
            return frame[: len(frame) // 2]
        case Step.DROP | Step.CUT:
            return b""


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read one command or reply, whole. Raises IncompleteReadError at the end of the stream."""
    line = await reader.readuntil(b"\r\n")
    kind, size = line[:1], line[1:-2]
    if kind == b"$" and size != b"-1":
        return line + await reader.readexactly(int(size) + 2)
    if kind == b"*" and size != b"-1":
        return line + b"".join([await _read_frame(reader) for _ in range(int(size))])
    return line
