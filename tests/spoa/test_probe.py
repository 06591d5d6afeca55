"""Asking an agent whether it is one."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoa.check.probe import NoAgent, hello
from spoa.config.endpoint import UnixEndpoint
from spoa.spop.connection import Connection

Answer = Callable[[bytes], bytes]


@pytest.fixture
def answering(place: Path) -> Iterator[Callable[[Answer], UnixEndpoint]]:
    """Let something answer one connection, and close it."""
    threads = []

    def answering(answer: Answer) -> UnixEndpoint:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place / "s"))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with listener, client:
                client.sendall(answer(client.recv(4096)))

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return UnixEndpoint(str(place / "s"))

    yield answering
    for thread in threads:
        thread.join()


def test_an_agent_tells_its_frame_size(answering: Callable[[Answer], UnixEndpoint]) -> None:
    """Our own connection takes the probe for HAProxy's health check, and answers it."""

    def agent(received: bytes) -> bytes:
        connection = Connection(4096)
        assert connection.receive_data(received) == []
        return b"".join(connection.take_outgoing())

    assert hello(answering(agent)) == 4096


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.0 400 Bad request\r\n\r\n", b"\0\0\0\1\x65", b"\0\0\0\7\x66\0\0\0\1\0\0", b"\0"],
)
def test_something_else_is_no_agent(
    answer: bytes, answering: Callable[[Answer], UnixEndpoint]
) -> None:
    """What does not answer in SPOP is called what it is."""
    with pytest.raises(NoAgent, match="what listens at unix:"):
        hello(answering(lambda _: answer))


def test_an_echo_is_no_agent(answering: Callable[[Answer], UnixEndpoint]) -> None:
    """A HELLO of HAProxy's own kind is no answer."""
    with pytest.raises(NoAgent, match="not as an SPOP agent"):
        hello(answering(lambda received: received))


def test_nobody_is_no_answer(place: Path) -> None:
    """Where nobody listens, there is no agent to judge."""
    with pytest.raises(FileNotFoundError):
        hello(UnixEndpoint(str(place / "s")))
