"""An agent that answers what a test tells it to: what the real one never says, for instance.

It is spoken to through a unix socket, on an event loop and a thread of its own. The wire is
`spoa.spop`'s; what stands in an ACK is the script's.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from spoa.spop.codec import Notify, encode_ack, encode_set_var
from spoa.spop.connection import Connection
from spoa.spop.constants import Scope
from spoa.spop.value import Value
from tests.support.accepting import stop_accepting

Script = Callable[[Notify], bytes | None]
"""What to write for a NOTIFY: nothing at all (silence), or None to close the connection."""

GARBAGE = b"\x00\x00\x00\x05HTTP/1.1 400 Bad Request\r\n\r\n"


def actions(**variables: Value) -> bytes:
    """Encode set-var actions in the order given, as the real agent does: `allow` goes last."""
    return b"".join(
        encode_set_var(Scope.TRANSACTION, name.encode(), value) for name, value in variables.items()
    )


def allow(acl: bytes = b"demo") -> bytes:
    """Encode the actions of a full yes."""
    return actions(**{"class": b"allow"}, reason=b"ok", acl=acl, user=b"user1", allow=True)


def refuse(verdict: bytes, reason: bytes, acl: bytes = b"demo") -> bytes:
    """Encode the actions of a no. `verdict` is the class: missing, denied, broken."""
    return actions(**{"class": verdict}, reason=reason, acl=acl, allow=False)


def acknowledging(encoded: bytes) -> Script:
    """Answer every NOTIFY with these actions, however broken they are."""
    return lambda notify: encode_ack(notify.ids, encoded)


def saying(words: bytes) -> Script:
    """Answer every NOTIFY with these bytes in place of a frame. No bytes: silence."""
    return lambda _: words


def closing(_: Notify) -> None:
    """Close the connection on every NOTIFY."""


class StubAgent:
    """A listening agent. `script` may be changed at any time; `notifies` is what was asked."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.script = script
        self.notifies: list[Notify] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._transports: set[asyncio.Transport] = set()

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

    def listen(self) -> None:
        """Accept connections (again)."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def vanish(self) -> None:
        """Stop listening and reset what is connected, as a killed process would."""
        asyncio.run_coroutine_threadsafe(self._vanish(), self._loop).result()

    async def _listen(self) -> None:
        self._server = await self._loop.create_unix_server(lambda: _Peer(self), self.path)

    async def _vanish(self) -> None:
        if self._server is not None:
            stop_accepting(self._server)
            self.path.unlink(missing_ok=True)
        # What is just being accepted is not among them yet.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in self._transports:
            transport.abort()
        await asyncio.sleep(0)  # let the transports say connection_lost

    def connected(self, transport: asyncio.Transport) -> None:
        self._transports.add(transport)

    def lost(self, transport: asyncio.Transport) -> None:
        self._transports.discard(transport)


class _Peer(asyncio.Protocol):
    def __init__(self, agent: StubAgent) -> None:
        self._agent = agent
        self._connection = Connection()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._agent.connected(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._agent.lost(self._transport)

    def data_received(self, data: bytes) -> None:
        notifies = self._connection.receive_data(data)
        for frame in self._connection.take_outgoing():
            self._transport.write(frame)
        if self._connection.is_closing:
            self._transport.close()
        for notify in notifies:
            self._agent.notifies.append(notify)
            words = self._agent.script(notify)
            if words is None:
                self._transport.close()
            else:
                self._transport.write(words)
