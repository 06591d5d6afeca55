"""HAProxy's side of one SPOP connection, for tests: blocking, with a time-out, on `schema`."""

import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

from spoa.spop import schema
from spoa.spop.constants import DataType, FrameType
from tests.support import frames

TIMEOUT_S = 10.0
CHUNK_BYTES = 1 << 16

Argument = str | bytes | int | schema.TypedData | None
"""A text or number as HAProxy would type it, any value of a type of one's own, None for NULL."""


def now_ms() -> int:
    return int(time.time() * 1000)


def address(text: str) -> schema.TypedData:
    parsed = ip_address(text)
    return frames.typed(DataType.IPV4 if parsed.version == 4 else DataType.IPV6, parsed.packed)


_USUAL: dict[str, Argument] = {
    "acl": "demo",
    "token": None,
    "via": "header",
    "session": None,
    "nonce": None,
    "src": address("192.0.2.7"),
    "host": "app.example.com",
    "method": "GET",
    "path": "/",
    "id": "4bf92f3577b34da6",
}


def check_http(*, without: str = "", **changes: Argument) -> bytes:
    """Build the message of haproxy/kat.spoe.conf, sent now, arguments changed or left out."""
    args = {**_USUAL, "at": now_ms(), **changes}
    return _message("check-http", {name: args[name] for name in args if name != without})


def check_tcp(acl: str, **changes: Argument) -> bytes:
    """Build the message for a connection without a token."""
    usual = {name: _USUAL[name] for name in ("src", "id")}
    return _message("check-tcp", {"acl": acl, **usual, "at": now_ms(), **changes})


def logout(acl: str, session: Argument, **changes: Argument) -> bytes:
    """Build the message of a visitor who leaves."""
    usual = {name: _USUAL[name] for name in ("src", "id")}
    return _message("logout", {"acl": acl, "session": session, **usual, "at": now_ms(), **changes})


def _message(name: str, args: Mapping[str, Argument]) -> bytes:
    pairs = [(name.encode(), _typed(value)) for name, value in args.items()]
    return frames.message(name.encode(), *pairs)


def notify(ids: bytes, *messages: bytes) -> bytes:
    """Build a NOTIFY with raw ids; `frames.ids` makes them."""
    return frames.frame(FrameType.NOTIFY, b"".join(messages), ids=ids)


def _typed(value: Argument) -> schema.TypedData:
    match value:
        case None:
            return frames.typed(DataType.NULL, None)
        case int():
            return frames.typed(DataType.INT64, value)
        case str():
            return frames.string(value.encode())
        case bytes():
            return frames.string(value)
        case _:
            return value


@dataclass(frozen=True)
class Answer:
    """One ACK: the ids it echoes, its size, and the variables it sets, in its order."""

    ids: bytes
    size_bytes: int
    """As the agreed limit counts: without the length prefix."""
    variables: dict[str, schema.Value]

    @property
    def reason(self) -> str:
        reason = self.variables["reason"]
        assert isinstance(reason, bytes)
        return reason.decode()

    @property
    def is_ok(self) -> bool:
        return self.variables["allow"] is True


def read_answer(frame: bytes) -> Answer:
    """Read an ACK strictly: whole, at least one action, set-var in txn scope only, none twice."""
    parsed = schema.frame.parse(frame)
    assert (parsed.type, parsed.flags) == (FrameType.ACK, frames.FIN), parsed
    assert isinstance(parsed.payload, list)
    assert parsed.payload, "HAProxy 3.1.0 never wakes a stream on an empty ACK"
    variables: dict[str, schema.Value] = {}
    for action in parsed.payload:
        assert isinstance(action, schema.SetVar), action
        assert action.scope.name == "TRANSACTION", action
        name = action.name.decode("ascii")
        assert len(f"txn.kat.{name}") < 64, "HAProxy drops a longer name in silence"
        assert name not in variables, action
        variables[name] = action.data.value
    ids = frames.ids(parsed.stream_id, parsed.frame_id)
    return Answer(ids, len(frame) - 4, variables)


def disconnect_status(frame: bytes) -> int:
    """Read an AGENT-DISCONNECT strictly; return its status."""
    parsed = schema.frame.parse(frame)
    assert (parsed.type, parsed.flags) == (FrameType.AGENT_DISCONNECT, frames.FIN), parsed
    pairs = _pairs(parsed)
    assert isinstance(pairs[b"message"], bytes)
    status = pairs[b"status-code"]
    assert isinstance(status, int)
    return status


def _pairs(frame: schema.Frame) -> dict[bytes, schema.Value]:
    assert (frame.stream_id, frame.frame_id) == (0, 0), frame
    assert isinstance(frame.payload, list)
    return {pair.name: pair.data.value for pair in frame.payload if isinstance(pair, schema.Pair)}


class SpopClient:
    """One connection. Every read gives up after TIMEOUT_S, so no test can hang."""

    def __init__(self, address: Path | str | tuple[str, int]) -> None:
        """Connect to a unix socket by its path, or to a host and port."""
        is_tcp = isinstance(address, tuple)
        self.socket = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect(address if is_tcp else str(address))
        except OSError:
            self.socket.close()
            raise
        self._unread = b""
        self._stream_id = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, *encoded: bytes) -> None:
        """Send everything in one write."""
        self.socket.sendall(b"".join(encoded))

    def hello(self, **changes: schema.TypedData) -> dict[bytes, schema.Value]:
        """Shake hands; return what the agent agreed to."""
        self.send(frames.hello(**changes))
        return self.read_hello()

    def read_hello(self) -> dict[bytes, schema.Value]:
        """Read what must be an AGENT-HELLO; return what it says."""
        parsed = schema.frame.parse(self.frame())
        assert (parsed.type, parsed.flags) == (FrameType.AGENT_HELLO, frames.FIN), parsed
        return _pairs(parsed)

    def ask(self, token: Argument = None, **changes: Argument) -> Answer:
        """Send one NOTIFY with our message and wait for its answer."""
        ids = self.next_ids()
        self.send(notify(ids, check_http(token=token, **changes)))
        answer = self.answer()
        assert answer.ids == ids
        return answer

    def ask_all(self, tokens: Iterable[Argument]) -> list[Answer]:
        """Send one NOTIFY for each token in one write; return the answers in that order."""
        asked = [(self.next_ids(), token) for token in tokens]
        self.send(*(notify(ids, check_http(token=token)) for ids, token in asked))
        answers = self.answers(len(asked))
        return [answers[ids] for ids, _ in asked]

    def next_ids(self) -> bytes:
        """Count as HAProxy up to 3.0 does: from 0."""
        self._stream_id += 1
        return frames.ids(self._stream_id)

    def answer(self) -> Answer:
        return read_answer(self.frame())

    def answers(self, number: int) -> dict[bytes, Answer]:
        """Read so many ACKs, in any order; none may come twice."""
        answers = {answer.ids: answer for answer in (self.answer() for _ in range(number))}
        assert len(answers) == number, "an ACK came twice"
        return answers

    def farewell(self) -> int:
        """Read the agent's last word and close, as HAProxy does; return its status."""
        status = self.read_disconnect()
        self.socket.close()
        return status

    def read_disconnect(self) -> int:
        """Read what must be AGENT-DISCONNECT; return its status."""
        return disconnect_status(self.frame())

    def is_at_end(self) -> bool:
        """Wait for the next bytes or the end; tell whether it is the end, by FIN or by reset."""
        with suppress(ConnectionResetError):
            self._unread += self.socket.recv(CHUNK_BYTES)
        return not self._unread

    def is_silent(self) -> bool:
        """Tell whether nothing more was sent so far: an unknown frame makes no answer."""
        answer = self.ask()  # whatever came unasked is read here in its place
        return answer.reason == "missing" and not self._unread

    def frame(self) -> bytes:
        """Read one whole frame, length prefix included."""
        prefix = self.take(4)
        return prefix + self.take(int.from_bytes(prefix))

    def take(self, size: int) -> bytes:
        """Read exactly so many bytes."""
        while len(self._unread) < size:
            data = self.socket.recv(CHUNK_BYTES)
            assert data, f"the agent closed after {len(self._unread)} of {size} bytes"
            self._unread += data
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken
