"""Asking an agent whether it is one."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from ssl import SSLContext as Context

import pytest

from spoa.check.probe import NoAgent, demands_certificate, hello
from spoa.config.endpoint import TcpEndpoint, UnixEndpoint
from spoa.config.sections import ListenerFiles
from spoa.spop.connection import Connection
from tests.support.tls_peers import free_address, make_authority

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


# --- Where TLS is spoken -------------------------------------------------------------------------


def _demanding(files: ListenerFiles, verify: ssl.VerifyMode, newest: ssl.TLSVersion) -> Context:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert_file, files.key_file)
    context.load_verify_locations(files.client_ca_file)
    context.verify_mode = verify
    context.maximum_version = newest
    return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ListenerFiles:
    return make_authority(tmp_path_factory.mktemp("ca")).agent


@pytest.fixture
def answering_tls() -> Iterator[Callable[[Context | None], TcpEndpoint]]:
    """Let something at a TCP port shake hands with one client, or say nothing it understands."""
    threads = []

    def answering(context: Context | None) -> TcpEndpoint:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            plain, _ = listener.accept()
            with listener, plain, suppress(OSError):
                if context is None:
                    plain.sendall(plain.recv(4096))
                    return
                with context.wrap_socket(plain, server_side=True) as client:
                    client.sendall(client.recv(4096))

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return TcpEndpoint(*listener.getsockname())

    yield answering
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_whoever_demands_a_certificate_is_taken_for_an_agent(
    answering_tls: Callable[[Context | None], TcpEndpoint],
    files: ListenerFiles,
    newest: ssl.TLSVersion,
) -> None:
    """We have none to show, and are refused for that very reason."""
    demands_certificate(answering_tls(_demanding(files, ssl.CERT_REQUIRED, newest)))


def test_who_lets_in_everybody_is_no_agent(
    answering_tls: Callable[[Context | None], TcpEndpoint], files: ListenerFiles
) -> None:
    """TLS that asks for no certificate keeps nobody away."""
    context = _demanding(files, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_3)
    with pytest.raises(NoAgent, match="lets in whoever shows no certificate"):
        demands_certificate(answering_tls(context))


def test_who_speaks_no_tls_is_no_agent(
    answering_tls: Callable[[Context | None], TcpEndpoint],
) -> None:
    """What does not answer a handshake is called what it is."""
    with pytest.raises(NoAgent, match="does not speak the TLS of an agent"):
        demands_certificate(answering_tls(None))


def test_nobody_at_a_port_is_no_answer() -> None:
    """Where nobody listens, there is no agent to judge."""
    with pytest.raises(ConnectionRefusedError):
        demands_certificate(TcpEndpoint(*free_address()))
