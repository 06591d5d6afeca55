"""A SOCKS 5 proxy (RFC 1928) that gives a browser an address of its own, and its names a place.

    with Detour("127.2.0.1", {8443: haproxy.port}) as detour:
        browser.new_context(proxy={"server": detour.url})

Whatever host the browser asks for, it reaches this machine, at the port that stands for the one in
the URL, and comes there from the given loopback address.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

from tests.support.accepting import stop_accepting

_NO_AUTHENTICATION = b"\x05\x00"
_SUCCEEDED = b"\x05\x00\x00\x01" + bytes(6)
_ADDRESS_BYTES = {1: 4, 4: 16}
_NAME = 3
_CHUNK_BYTES = 65536


class Detour:
    """Runs in a thread of its own while entered; leaving it cuts all connections."""

    def __init__(self, source: str, ports: Mapping[int, int]) -> None:
        self.source = source
        self._ports = ports
        self._port = 0
        self._writers: set[StreamWriter] = set()
        self._ready, self._over = Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    @property
    def url(self) -> str:
        return f"socks5://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        stop_accepting(server)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        server.close()

    async def _take(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Connect one client to what it asks for, and carry bytes both ways until one side ends."""
        async with self._kept(writer):
            port = self._ports[await _asked_port(reader, writer)]
            there, back = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(self.source, 0)
            )
            async with self._kept(back):
                writer.write(_SUCCEEDED)
                await asyncio.gather(_carry(reader, back), _carry(there, writer))

    @asynccontextmanager
    async def _kept(self, writer: StreamWriter) -> AsyncIterator[None]:
        """Keep a connection, for `_serve` to cut, until the block ends; then it is closed."""
        self._writers.add(writer)
        try:
            # A port that is not ours, or nobody there: the connection just ends.
            with suppress(OSError, asyncio.IncompleteReadError, KeyError):
                yield
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._writers.discard(writer)


async def _asked_port(reader: StreamReader, writer: StreamWriter) -> int:
    """Read the greeting and the request; what host it names does not matter."""
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(_NO_AUTHENTICATION)
    kind = (await reader.readexactly(4))[3]
    size = (await reader.readexactly(1))[0] if kind == _NAME else _ADDRESS_BYTES[kind]
    await reader.readexactly(size)
    return int.from_bytes(await reader.readexactly(2), "big")


async def _carry(source: StreamReader, target: StreamWriter) -> None:
    """Carry bytes one way; at the end close the target, which ends the other way too."""
    with suppress(OSError):
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
    target.close()
