"""An agent that writes down every byte of a connection, built on `schema` alone."""

import asyncio
from dataclasses import dataclass, field

from spoa.dissect.transcript import AGENT, END, HAPROXY, RESET
from spoa.spop import schema
from spoa.spop.constants import DataType, FrameType, Scope
from tests.support.frames import CONTROL_IDS, FIN, frame, ids, pairs, string, typed, uint32

PATIENCE_S = 0.5
"""How long an answer waits for company before it goes alone."""

_ROW_BYTES = 32


def agent_hello(capabilities: bytes, max_frame_size: int = 16380, version: bytes = b"2.0") -> bytes:
    items = [
        (b"version", string(version)),
        (b"max-frame-size", uint32(max_frame_size)),
        (b"capabilities", string(capabilities)),
    ]
    return frame(FrameType.AGENT_HELLO, pairs(items))


def _disconnect(status: int, text: bytes) -> bytes:
    items = [(b"status-code", uint32(status)), (b"message", string(text))]
    return frame(FrameType.AGENT_DISCONNECT, pairs(items), FIN, CONTROL_IDS)


_VARIABLES = {
    b"text": string(b"seen"),
    b"binary": typed(DataType.BINARY, b"\xca\xfe"),
    b"yes": typed(DataType.BOOL, value=True),
    b"number": typed(DataType.UINT64, 4328786160),
    b"negative": typed(DataType.INT32, -7),
    b"v4": typed(DataType.IPV4, bytes((192, 0, 2, 9))),
    b"v6": typed(DataType.IPV6, bytes.fromhex("20010db8000000000000000000000009")),
}
_ACTIONS: list[schema.Action] = [
    *(schema.SetVar(Scope.TRANSACTION, name, data) for name, data in _VARIABLES.items()),
    schema.UnsetVar(Scope.TRANSACTION, b"gone"),
]


@dataclass(frozen=True)
class Behaviour:
    """What the agent does on every connection."""

    hello: bytes = field(default_factory=lambda: agent_hello(b"pipelining"))
    closes_after_hello: bool = False
    says_goodbye: bool = False
    answer_after: int = 1


class Agent(asyncio.Protocol):
    """One connection: answers what it must; `lines` is its transcript."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.lines: list[str] = []
        self.size_bytes = 0
        self.most_held = 0
        self.closed = asyncio.Event()
        self.answer_after = behaviour.answer_after
        self._behaviour = behaviour
        self._unread = b""
        self._held: list[schema.Frame] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._write_down(HAPROXY, data)
        self._unread += data
        while len(self._unread) >= 4:
            size = 4 + int.from_bytes(self._unread[:4])
            if len(self._unread) < size:
                return
            whole, self._unread = self._unread[:size], self._unread[size:]
            self._answer(schema.frame.parse(whole))

    def eof_received(self) -> None:
        self.lines.append(f"{HAPROXY} {END}")

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:  # ECONNRESET, or ENOTCONN when it beats our own close
            self.lines.append(f"{HAPROXY} {RESET}")
        self.closed.set()

    def _answer(self, received: schema.Frame) -> None:
        match received.type:
            case FrameType.HAPROXY_HELLO:
                self._send(self._behaviour.hello)
                if self._behaviour.closes_after_hello:
                    self._close()
            case FrameType.HAPROXY_DISCONNECT:
                self._send(_disconnect(0, b"bye"))
                self._close()
            case FrameType.NOTIFY | FrameType.UNSET if received.flags & FIN:
                self._hold(received)

    def _hold(self, notify: schema.Frame) -> None:
        self._held.append(notify)
        self.most_held = max(self.most_held, len(self._held))
        if len(self._held) < self.answer_after:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._release)
        else:
            self._release()

    def _release(self) -> None:
        """Answer all that wait, the last first."""
        if self._behaviour.says_goodbye:
            # No close of ours: HAProxy 3.2 overlooks a DISCONNECT that a FIN follows at once, and
            # then its streams wait for `timeout processing`.
            self._send(_disconnect(99, b"going away"))
            return
        while self._held:
            last = self._held.pop()
            actions = schema.actions.build(_ACTIONS)
            self._send(frame(FrameType.ACK, actions, FIN, ids(last.stream_id, last.frame_id)))

    def _send(self, data: bytes) -> None:
        """Write one frame by itself."""
        self._write_down(AGENT, data)
        self._transport.write(data)

    def _close(self) -> None:
        """Close our half, so that what HAProxy still says is written down too."""
        self.lines.append(f"{AGENT} {END}")
        self._transport.write_eof()

    def _write_down(self, direction: str, data: bytes) -> None:
        self.size_bytes += len(data)
        rows = [data[at : at + _ROW_BYTES].hex(" ") for at in range(0, len(data), _ROW_BYTES)]
        self.lines.append("\n  ".join([f"{direction} {rows[0]}", *rows[1:]]))
