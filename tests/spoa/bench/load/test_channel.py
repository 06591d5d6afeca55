import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spoa.bench.load.channel import Refused, ask_once, connect, dial
from spoa.bench.load.echo import HELLO
from spoa.bench.load.frames import LENGTH
from spoa.spop.codec import encode_ack
from spoa.spop.constants import FRAME_LENGTH_BYTES


@contextmanager
def listening(directory: Path, way: str) -> Iterator[tuple[socket.socket, str]]:
    family = socket.AF_UNIX if way == "unix" else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(str(directory / "spoa.sock") if way == "unix" else ("127.0.0.1", 0))
        listener.listen()
        name = listener.getsockname()
        yield listener, name if way == "unix" else f"{name[0]}:{name[1]}"


def serve(listener: socket.socket, *answers: bytes) -> threading.Thread:
    """Answer so many frames of one connection, then close it."""

    def run() -> None:
        peer, _ = listener.accept()
        with peer:
            for answer in answers:
                (length,) = LENGTH.unpack(peer.recv(FRAME_LENGTH_BYTES, socket.MSG_WAITALL))
                peer.recv(length, socket.MSG_WAITALL)
                peer.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_an_agent_is_asked_wherever_it_listens(tmp_path: Path, way: str) -> None:
    """A path is a unix socket, anything else host:port; the frames are the same."""
    ack = encode_ack(b"\x01\x01", b"")
    with listening(tmp_path, way) as (listener, address):
        thread = serve(listener, HELLO, ack)
        assert ask_once(address, LENGTH.pack(1) + b"x") == ack
        thread.join()


def test_whoever_does_not_greet_is_refused(tmp_path: Path) -> None:
    """Another frame than AGENT-HELLO, or an end, is no handshake."""
    with listening(tmp_path, "unix") as (listener, address):
        for answers, sentence in (((encode_ack(b"\x01\x01", b""),), "type"), ((b"",), "closed")):
            thread = serve(listener, *answers)
            with pytest.raises(Refused, match=sentence):
                connect(address)
            thread.join()


@pytest.mark.parametrize("address", ["/nowhere/spoa.sock", "127.0.0.1:1"])
def test_nobody_there_is_an_oserror(address: str) -> None:
    """No agent, no connection, and no socket left open."""
    with pytest.raises(OSError, match=r"No such file|refused"):
        dial(address)
