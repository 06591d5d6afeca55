import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.peers.hello import announces_pipelining, says_hello
from spoa.bench.load.channel import Refused
from spoa.spop.codec import encode_frame
from spoa.spop.constants import DataType, FrameType


@contextmanager
def answering(path: Path, kind: FrameType, capabilities: bytes) -> Iterator[str]:
    """Answer one connection with one frame, whatever it says."""
    frame = encode_frame(kind, ((b"capabilities", DataType.STRING, capabilities),))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(frame)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield str(path)
        thread.join()


@pytest.mark.parametrize(
    ("capabilities", "is_pipelined"),
    [(b"pipelining", True), (b"async, pipelining", True), (b"", False), (b"pipelining2", False)],
)
def test_pipelining_is_what_the_hello_says(
    tmp_path: Path, capabilities: bytes, *, is_pipelined: bool
) -> None:
    """The word counts if it stands in the list, alone or among others."""
    with answering(tmp_path / "socket", FrameType.AGENT_HELLO, capabilities) as path:
        assert announces_pipelining(path) is is_pipelined


def test_another_frame_is_no_hello(tmp_path: Path) -> None:
    """An agent that ends the connection instead has not announced anything."""
    with (
        answering(tmp_path / "socket", FrameType.AGENT_DISCONNECT, b"") as path,
        pytest.raises(Refused, match="type 102"),
    ):
        announces_pipelining(path)


def test_nobody_says_hello(tmp_path: Path) -> None:
    """Where nobody listens yet, there is no agent."""
    assert not says_hello(str(tmp_path / "socket"))
