"""Peers that are not there, are something else, or stop in the middle; and TLS."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from haproxy.runtime import connection
from haproxy.runtime.client import Runtime, Session
from haproxy.runtime.fault import Unreachable
from haproxy.runtime.place import RuntimePlace, TcpPlace, UnixPlace
from tests.support.authority import Authority, make_authority
from tests.support.haproxy import ANSWER_TIMEOUT_S, versions
from tests.support.ports import free_port
from tests.support.runtime import Edge, running_edge, using

SHORT_S = 0.2
PEER_VERSION = "3.2"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_edge(authority: Authority) -> Iterator[Edge]:
    """One whose TCP port wants certificates of ours."""
    files = authority.issue("edge", "IP:127.0.0.1")
    both = files.cert_file.with_suffix(".both")
    both.write_text(files.cert_file.read_text() + files.key_file.read_text())
    certificates = f"crt {both} ca-file {authority.ca_file} verify required"
    with running_edge(PEER_VERSION, certificates=certificates) as edge:
        yield edge


def complaint(place: RuntimePlace, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
    """Return why this place cannot be asked, and that it is one sentence that names it."""

    async def play() -> None:
        async with Runtime(place, timeout_s).session() as session:
            await session.process()

    with pytest.raises(Unreachable) as caught:
        asyncio.run(play())
    message = str(caught.value)
    assert str(place) in message
    assert message.isprintable()
    assert len(message) < 400
    return message


def against(peer: Handler, do: Callable[[Session], Awaitable[None]], timeout_s: float) -> None:
    """Do something in a session with a peer of the test's own, which sees its end."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await peer(reader, writer)
        writer.transport.abort()
        ended.set()

    async def play() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            place = TcpPlace("127.0.0.1", server.sockets[0].getsockname()[1])
            try:
                async with Runtime(place, timeout_s).session() as session:
                    await do(session)
            finally:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await ended.wait()

    asyncio.run(play())


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.readline() == b"prompt\n"
    writer.write(b"\n> ")


def test_no_socket_is_told_with_the_line_that_makes_one(tmp_path: Path) -> None:
    """The path and what HAProxy's configuration needs."""
    path = str(tmp_path / "x.sock")
    said = complaint(UnixPlace(path))
    assert f"no such socket; is it running, and has its section global `stats socket {path}" in said


def test_a_socket_that_nobody_serves_is_told(tmp_path: Path) -> None:
    """A HAProxy that was killed leaves it behind."""
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    assert "nobody listens there; is it running?" in complaint(UnixPlace(path))
    assert "nobody listens there" in complaint(TcpPlace("127.0.0.1", free_port()))


def test_a_socket_of_others_is_told(tmp_path: Path) -> None:
    """With what the socket needs, when the permission is missing."""
    tmp_path.chmod(0o755)
    path = tmp_path / "x.sock"
    with socket.create_server(str(path), family=socket.AF_UNIX):
        path.chmod(0o600)
        said = _as_nobody(lambda: complaint(UnixPlace(str(path))))
    assert "no permission; its `stats socket` needs mode 660 and a group that we are in" in said


def _as_nobody(do: Callable[[], str]) -> str:
    """Do it in a child process without root's rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.setuid(65534)
            os.write(writing, do().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_an_unknown_host_is_told() -> None:
    """In the resolver's words."""
    assert "no HAProxy at nowhere.invalid:9: " in complaint(TcpPlace("nowhere.invalid", 9))
    assert "no HAProxy at " in complaint(TcpPlace("a" * 64 + ".invalid", 9))


def test_an_http_server_is_told_from_haproxy(edge: Edge) -> None:
    """With the beginning of what it says."""
    said = complaint(TcpPlace("127.0.0.1", edge.ports["web"]))
    assert "is not HAProxy's Runtime API: it says 'HTTP/1.1 400 Bad request'" in said.replace(
        "1.0", "1.1"
    )


def test_the_master_s_cli_is_told_from_a_worker_s() -> None:
    """It has neither ACLs nor tables."""
    with running_edge(PEER_VERSION, has_master=True) as edge:
        edge.reload()  # so that it listens
        assert (
            "is the socket of HAProxy's master (-S); write that of a `stats socket`"
            in complaint(edge.at("master"))
        )


def test_a_silent_peer_is_given_up() -> None:
    """After the time-out, with its length and what it may be."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = complaint(TcpPlace("127.0.0.1", silent.getsockname()[1]), SHORT_S)
    assert "in 0.2 s; it may be no HAProxy, or have as many connections as its `stats max" in said


def test_a_peer_that_hangs_up_is_told() -> None:
    """Before its greeting it may be one that speaks TLS."""

    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readline()

    async def nothing(_: Session) -> None:
        pytest.fail("greeted")

    with pytest.raises(Unreachable, match=r"closed the connection.*; its port may speak TLS"):
        against(hang_up, nothing, ANSWER_TIMEOUT_S)


def test_the_end_in_the_middle_of_an_answer_is_no_answer() -> None:
    """What came so far is thrown away, and the session is of no more use."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeting(reader, writer)
        await reader.readline()
        writer.write(b"0x1 192.0.2.7/032\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def ask(session: Session) -> None:
        with pytest.raises(Unreachable, match="closed the connection"):
            await session.entries("#500")
        with pytest.raises(Unreachable, match="lost already"):
            await session.entries("#500")

    against(cut, ask, ANSWER_TIMEOUT_S)


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of bytes, long before the memory is full; the sentence has the limit."""
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 3_000_000)
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await greeting(reader, writer)
        await reader.readline()
        while True:
            writer.write(b"0x1 192.0.2.7/032\n" * 1000)
            await writer.drain()
            sent += 18_000

    async def ask(session: Session) -> None:
        with pytest.raises(Unreachable, match="not end its answer; the limit is 3000000 bytes"):
            await session.entries("#500")

    against(flood, ask, ANSWER_TIMEOUT_S)
    assert sent < 30_000_000


def test_a_trickle_is_cut_by_the_time() -> None:
    """The time-out is for the whole answer, not for a byte of it."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeting(reader, writer)
        await reader.readline()
        while not writer.is_closing():
            writer.write(b"0")
            await writer.drain()
            await asyncio.sleep(SHORT_S / 10)

    async def ask(session: Session) -> None:
        with pytest.raises(Unreachable, match=r"no answer from HAProxy at .* in 0\.2 s$"):
            await session.entries("#500")

    against(trickle, ask, SHORT_S)


def test_more_than_was_asked_for_is_not_taken_for_the_next_answer() -> None:
    """A doubled answer would be that to the next question."""

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeting(reader, writer)
        await reader.readline()
        writer.write(b"0x1 192.0.2.7/032\n\n> 0x2 192.0.2.8/032\n\n> ")
        await reader.read()

    async def ask(session: Session) -> None:
        with pytest.raises(Unreachable, match="is not HAProxy's Runtime API"):
            await session.entries("#500")
        with pytest.raises(Unreachable, match="lost already"):
            await session.entries("#500")

    against(twice, ask, ANSWER_TIMEOUT_S)


def test_who_is_cancelled_leaves_no_answer_behind(edge: Edge) -> None:
    """What was asked for and not heard is not taken for the answer to something else."""

    async def play(session: Session) -> None:
        asking = asyncio.create_task(session.acls())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(Unreachable, match="lost already"):
            await session.entries("#500")

    using(edge.at(), play)


def test_any_chunking_gives_the_same_answers() -> None:
    """Byte by byte, too."""
    said = b"0x1 192.0.2.7/032\n\n> \n> 'junk' is not valid.\n\n> "

    async def bytewise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeting(reader, writer)
        for _ in range(3):
            await reader.readline()
        for byte in said:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        await reader.read()

    async def ask(session: Session) -> None:
        [first, *rest] = await session._connection.ask([b"x\n"] * 3)
        assert first == "0x1 192.0.2.7/032"
        assert rest == ["", "'junk' is not valid."]

    against(bytewise, ask, ANSWER_TIMEOUT_S)


def tls_place(edge: Edge, trusted: Authority, ours: Authority | None, door: str) -> TcpPlace:
    """Trust who is signed by the one, and show what the other signed."""
    context = ssl.create_default_context(cafile=trusted.ca_file)
    if ours:
        files = ours.issue("client")
        context.load_cert_chain(files.cert_file, files.key_file)
    return TcpPlace("127.0.0.1", edge.ports[door], context)


def test_tls_with_certificates_on_both_sides_works(tls_edge: Edge, authority: Authority) -> None:
    """Many commands, and long answers."""
    many = [f"10.{n >> 8}.{n & 255}.1/032" for n in range(5000)]

    async def play(session: Session) -> None:
        assert await session.replace("#500", many) == {}
        assert await session.entries("#500") == many

    using(tls_place(tls_edge, authority, authority, "tls"), play)


def test_what_is_wrong_with_tls_is_told(
    tls_edge: Edge, authority: Authority, tmp_path: Path
) -> None:
    """With the setting that is missing; a port without TLS is not taken for a wrong certificate."""
    other = make_authority(tmp_path)
    for place, advice in [
        (tls_place(tls_edge, authority, None, "tls"), "set cert_file and key_file"),
        (tls_place(tls_edge, authority, other, "tls"), "does not know the CA that signed ours"),
        (tls_place(tls_edge, other, authority, "tls"), "set ca_file to the CA that signed its"),
        (tls_place(tls_edge, authority, authority, "tcp"), "no TLS is spoken there"),
        (TcpPlace("127.0.0.1", tls_edge.ports["tls"]), "its port may speak TLS: set ca_file"),
    ]:
        assert advice in complaint(place)


@pytest.mark.parametrize("version", versions())
def test_a_stats_socket_with_ssl_speaks_plain_tcp(version: str, authority: Authority) -> None:
    """HAProxy takes the certificates at its `stats socket`, and asks nobody for one.

    If this fails, HAProxy has learnt it: then the documentation need not warn any more.
    """
    files = authority.issue("plain", "IP:127.0.0.1")
    both = files.cert_file.with_suffix(".both")
    both.write_text(files.cert_file.read_text() + files.key_file.read_text())
    wanted = f"ssl crt {both} ca-file {authority.ca_file} verify required"
    with running_edge(version, at_socket=wanted) as edge:
        using(TcpPlace("127.0.0.1", edge.ports["tcp"]), Session.need_admin)
        place = tls_place(edge, authority, authority, "tcp")
        assert "no TLS is spoken there" in complaint(place)
