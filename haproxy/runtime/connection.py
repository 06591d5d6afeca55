"""One connection to the Runtime API, in its prompt mode: lines out, answers in, in order.

An answer ends at the prompt behind it. Many lines may be written at once, and each gets its own
answer: 5,000 `add acl` take 0.04 to 0.07 s so, against 0.3 to 0.5 s one by one (2 shared cores,
unix socket). There is no other way to send many of them: `add acl` takes no payload, only `add map`
does (HAProxy 2.6.12, 3.0.11, 3.2.26).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from haproxy.runtime.fault import Unreachable, foreign, lost, not_open, silent
from haproxy.runtime.place import RuntimePlace, TcpPlace, UnixPlace

_PROMPT: Final = b"\n> "

# The longest answers are `show sess`, at 350 bytes a stream, and `show acl`, at 60 an entry: this
# is 48,000 streams or 280,000 entries, and half a second to read. What never ends is cut here, or
# by the time-out.
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024

_READ_BYTES: Final = 256 * 1024

# One write and its answers, for which the time-out begins anew. HAProxy takes no more than a buffer
# ahead: 1,000 or 5,000 at once were no faster.
LINES_AT_ONCE: Final = 200


@asynccontextmanager
async def connected(place: RuntimePlace, timeout_s: float) -> AsyncIterator["Connection"]:
    """Give a greeted connection for the length of the block. Raises Unreachable."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _open(place)
    except TimeoutError as error:
        raise silent(place, timeout_s, is_greeted=False) from error
    except (OSError, ValueError) as error:  # ValueError: of getaddrinfo, for an impossible name
        raise not_open(place, error) from error
    try:
        connection = Connection(place, timeout_s, reader, writer)
        await connection.greet()
        yield connection
    finally:
        # Nothing that was answered is lost by that, and HAProxy need not be told.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def _open(place: RuntimePlace) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    match place:
        case UnixPlace(path):
            return await asyncio.open_unix_connection(path, limit=_READ_BYTES)
        case TcpPlace(host, port, tls):
            return await asyncio.open_connection(host, port, ssl=tls, limit=_READ_BYTES)


class Connection:
    """Asks one thing after the other. After the first fault it is of no more use."""

    def __init__(
        self,
        place: RuntimePlace,
        timeout_s: float,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.place = place
        self._timeout_s = timeout_s
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        self._is_greeted = False
        self._is_lost = False

    async def greet(self) -> None:
        """Ask for the prompt, by which we know whom we speak to. Raises Unreachable."""
        async with self._step():
            self._writer.write(b"prompt\n")
            await self._writer.drain()
            while len(self._buffer) < len(_PROMPT):
                await self._read()
            if self._buffer != _PROMPT:
                raise foreign(self.place, bytes(self._buffer))
            self._buffer.clear()
        self._is_greeted = True

    async def ask(self, lines: Sequence[bytes]) -> list[str]:
        """Write lines, and return the answer to each. Raises Unreachable."""
        answers: list[str] = []
        for start in range(0, len(lines), LINES_AT_ONCE):
            some = lines[start : start + LINES_AT_ONCE]
            async with self._step():
                self._writer.write(b"".join(some))
                await self._writer.drain()
                answers += [await self._answer() for _ in some]
                if self._buffer:
                    raise foreign(self.place, bytes(self._buffer))
        return answers

    async def _answer(self) -> str:
        """Take what stands before the next prompt."""
        seen = 0
        while (end := self._buffer.find(_PROMPT, seen)) < 0:
            if len(self._buffer) > MAX_ANSWER_BYTES:
                limit = f"the limit is {MAX_ANSWER_BYTES} bytes"
                raise Unreachable(f"HAProxy at {self.place} does not end its answer; {limit}")
            seen = max(0, len(self._buffer) - len(_PROMPT) + 1)
            await self._read()
        said = self._buffer[:end].decode("ascii", "backslashreplace")
        del self._buffer[: end + len(_PROMPT)]
        return said.removesuffix("\n")

    async def _read(self) -> None:
        data = await self._reader.read(_READ_BYTES)
        if not data:
            raise lost(self.place, None, is_greeted=self._is_greeted)
        self._buffer += data

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        """Bound the time of what is in the block; whatever ends it early ends the connection.

        Cancelled in the middle, too: the answers to come would be taken for those to other lines.
        """
        if self._is_lost:
            raise Unreachable(f"the connection to HAProxy at {self.place} is lost already")
        self._is_lost = True
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError as error:
            raise silent(self.place, self._timeout_s, is_greeted=self._is_greeted) from error
        except OSError as error:
            raise lost(self.place, error, is_greeted=self._is_greeted) from error
        self._is_lost = False
