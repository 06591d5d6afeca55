"""A real worker behind TLS: who gets in, who does not, and what it costs the others."""

import asyncio
import random
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from spoa.config.sections import Limits
from spoa.counters import Counters
from spoa.spop.constants import StatusCode
from spoa.worker.tls import MAX_HANDSHAKES, Credentials, TlsServer
from spoa.worker.transport import SpopServer
from tests.support import frames
from tests.support.eventually import eventually
from tests.support.leaks import open_files
from tests.support.redis import RedisServer
from tests.support.running_worker import LOOPS, RunningWorker, WorkerEnded, running_worker
from tests.support.spop_client import TIMEOUT_S, SpopClient, check_http, notify
from tests.support.tls_peers import NAME, Authority, TlsClient, free_address, make_authority
from tokens.issue import Issuer
from tokens.token import mint

if TYPE_CHECKING:
    from spoa.worker.agent import Agent

PATIENT_MS = 10_000
HASTE_S = 0.4
MAX_HELD_BYTES = 16 << 20
"""What one peer that does not read may make the worker hold, by far."""
MAX_UNREAD_BYTES = 64 << 20
"""And with the kernel, whose buffers of TCP grow to some megabytes each."""

Address = tuple[str, int]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a CA that the agent knows nothing of."""
    return make_authority(tmp_path_factory.mktemp("other-ca"))


@contextmanager
def _running(
    loop: str, redis_server: RedisServer, authority: Authority, **limits: float
) -> Iterator[tuple[RunningWorker, Address]]:
    """Run a worker that speaks TLS, and say where."""
    address = free_address()
    with (
        tempfile.TemporaryDirectory(prefix="kat-") as place,
        running_worker(
            Path(place),
            redis_server.socket,
            loop,
            spop=f"127.0.0.1:{address[1]}",
            tls=authority.agent,
            **limits,
        ) as running,
    ):
        yield running, address


@pytest.fixture(scope="module", params=LOOPS)
def at(
    request: pytest.FixtureRequest, shared_redis: RedisServer, authority: Authority
) -> Iterator[tuple[RunningWorker, Address]]:
    """Run one worker on each kind of event loop for most tests here."""
    with _running(request.param, shared_redis, authority, deadline_ms=PATIENT_MS) as running:
        yield running


@pytest.fixture
def worker(at: tuple[RunningWorker, Address]) -> RunningWorker:
    return at[0]


@pytest.fixture
def address(at: tuple[RunningWorker, Address]) -> Address:
    return at[1]


@pytest.fixture
def connect(address: Address, authority: Authority) -> Callable[[], TlsClient]:
    """Give what connects with the certificate that HAProxy has by the documentation."""
    context = authority.client_context(authority.haproxy)
    return lambda: TlsClient(address, context)


def issue(server: RedisServer) -> str:
    with server.client() as client:
        return Issuer(client).issue("user1", "demo", 60).token


# --- Who gets in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_token_is_consumed_once(
    address: Address, authority: Authority, redis_server: RedisServer, version: ssl.TLSVersion
) -> None:
    """With a certificate of the CA, over TLS 1.2 or 1.3, all is as on a unix socket."""
    context = authority.client_context(authority.haproxy)
    context.minimum_version = context.maximum_version = version
    token = issue(redis_server)
    with TlsClient(address, context) as client:
        client.hello()
        assert client.ask(token).is_ok
        assert client.ask(token).reason == "replayed"
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.session is None or not client.socket.session.has_ticket


def test_hundreds_in_one_write(connect: Callable[[], TlsClient]) -> None:
    """More than one TLS record in, more than one out: each question has its answer."""
    with connect() as client:
        client.hello()
        answers = client.ask_all(mint() for _ in range(500))
    assert [answer.reason for answer in answers] == ["unknown"] * 500


@pytest.mark.parametrize("most", [1, 7, 400])
def test_any_pieces(address: Address, authority: Authority, most: int) -> None:
    """Wherever TCP cuts what TLS made of it, down to single bytes."""
    pieces = random.Random(most)
    questions = [notify(frames.ids(n + 1), check_http(token=mint())) for n in range(5)]
    context = authority.client_context(authority.haproxy)
    with SpopClient(address) as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=NAME)

        def send() -> None:
            data = outgoing.read()
            while data:
                size = pieces.randint(1, most)
                raw.send(data[:size])
                data = data[size:]

        def pump(step: Callable[[], bytes | None]) -> bytes | None:
            while True:
                try:
                    done = step()
                except ssl.SSLWantReadError:
                    send()
                    incoming.write(raw.socket.recv(65536))
                else:
                    send()
                    return done

        pump(tls.do_handshake)
        tls.write(frames.hello() + b"".join(questions))
        send()
        received = b""
        while received.count(b"unknown") < 5:
            received += pump(lambda: tls.read(65536)) or b""


def test_it_is_another_machine_whatever_its_address(
    connect: Callable[[], TlsClient], worker: RunningWorker
) -> None:
    """A clock a minute behind ours costs a peer over TLS no `deadline`, from the first."""
    assert worker.config.limits.deadline_ms < 60_000
    behind_ms = int(time.time() * 1000) - 60_000
    with connect() as client:
        client.hello(**{"engine-id": frames.string(b"another machine's")})
        assert client.ask(mint(), at=behind_ms).reason == "unknown"


def test_a_health_check_is_answered_and_closed(connect: Callable[[], TlsClient]) -> None:
    """HAProxy's check gets its HELLO and then the end, which TLS vouches for."""
    with connect() as client:
        client.hello(healthcheck=frames.boolean(value=True))
        assert client.socket.recv(1) == b""  # a bare FIN would raise ssl.SSLEOFError


def test_a_goodbye_in_tls_is_answered(
    connect: Callable[[], TlsClient], worker: RunningWorker
) -> None:
    """Who says close_notify and waits is not kept waiting."""
    ended = worker.ended("eof")
    with connect() as client:
        client.hello()
        assert isinstance(client.socket, ssl.SSLSocket)
        client.socket.unwrap()
    eventually(lambda: worker.ended("eof") > ended, "the end is counted as any other")


# --- Who does not --------------------------------------------------------------------------------


def _hears(client: SpopClient) -> bytes:
    """Return what the agent has to say to a greeting; in TLS 1.3 its refusal comes only now."""
    with suppress(OSError):
        client.send(frames.hello())
    heard = b""
    with suppress(OSError):
        while data := client.socket.recv(65536):
            heard += data
    return heard


REFUSED = {
    "nobody": "it shows no certificate",
    "stranger": "its certificate is refused: ",
    "agent": "its certificate is refused: un",  # "suitable" or "supported", by OpenSSL
    "expired": "its certificate is refused: certificate has expired",
}


@pytest.fixture(params=REFUSED)
def intruder(
    request: pytest.FixtureRequest, authority: Authority, stranger: Authority
) -> tuple[ssl.SSLContext, str]:
    """Give who shows no certificate, or one that does not count, and what the log says of him."""
    shown = {
        "nobody": lambda: None,
        "stranger": lambda: stranger.haproxy,
        "agent": lambda: _in_one(authority, NAME),
        "expired": lambda: _expired(authority),
    }[request.param]()
    return authority.client_context(shown), REFUSED[request.param]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_our_certificate_spop_is_never_reached(
    at: tuple[RunningWorker, Address],
    intruder: tuple[ssl.SSLContext, str],
    version: ssl.TLSVersion,
) -> None:
    """None, one of another CA, one for agents, one that is over: no HELLO is ever read."""
    worker, address = at
    context, said = intruder
    context.minimum_version = context.maximum_version = version
    known = worker.log

    def is_told() -> bool:
        """Try again: what is refused within a second of another refusal is only counted."""
        errors = worker.protocol_errors(StatusCode.IO_ERROR)
        with suppress(ssl.SSLError, ConnectionError), TlsClient(address, context) as client:
            assert _hears(client) == b""
        eventually(
            lambda: worker.protocol_errors(StatusCode.IO_ERROR) == errors + 1, "it is counted"
        )
        return f"TLS with 127.0.0.1: {said}" in worker.log.removeprefix(known)

    eventually(is_told, "the log says why")
    worker.wait_idle()


def _in_one(authority: Authority, name: str) -> Path:
    files = authority.files(name)
    both = authority.folder / f"{name}-both.pem"
    both.write_bytes(files.cert_file.read_bytes() + files.key_file.read_bytes())
    return both


def _expired(authority: Authority) -> Path:
    authority.sign("late-haproxy", "clientAuth", clock="-800d")
    return _in_one(authority, "late-haproxy")


def test_the_peer_may_refuse_us(
    at: tuple[RunningWorker, Address], authority: Authority, stranger: Authority
) -> None:
    """A HAProxy with another CA does not ask, and our log says who refused whom."""
    worker, address = at
    context = stranger.client_context(authority.haproxy)
    errors = worker.protocol_errors(StatusCode.IO_ERROR)
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsClient(address, context)
    eventually(
        lambda: worker.protocol_errors(StatusCode.IO_ERROR) == errors + 1, "the refusal is counted"
    )


@pytest.mark.parametrize(
    "said", [frames.hello(), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000]
)
def test_what_is_no_tls_is_refused(at: tuple[RunningWorker, Address], said: bytes) -> None:
    """Plain SPOP, HTTP and rubbish end the connection without a word of SPOP."""
    worker, address = at
    with SpopClient(address) as client:
        with suppress(ConnectionError):
            client.send(said)
        heard = b""
        with suppress(ConnectionError):
            while data := client.socket.recv(65536):
                heard += data
    assert len(heard) <= 7  # an alert at most
    worker.wait_idle()


def test_old_tls_is_refused(address: Address, authority: Authority) -> None:
    """TLS 1.1 is too old, even for a client with a good certificate."""
    context = authority.client_context(authority.haproxy)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        TlsClient(address, context)


def test_a_flood_of_strangers_is_one_line_a_second(
    at: tuple[RunningWorker, Address], connect: Callable[[], TlsClient], authority: Authority
) -> None:
    """However many are refused, the log stays short, and who belongs here is served meanwhile."""
    worker, address = at
    nobody = authority.client_context(None)
    with connect() as client:
        client.hello()
        lines, began = len(worker.log.splitlines()), time.monotonic()
        for _ in range(50):
            with suppress(OSError), TlsClient(address, nobody) as refused:
                assert _hears(refused) == b""
            assert client.ask(mint()).reason == "unknown"
        assert len(worker.log.splitlines()) - lines <= time.monotonic() - began + 2


# --- Who takes long, or too much -----------------------------------------------------------------


@pytest.fixture(scope="module", params=LOOPS)
def hasty(
    request: pytest.FixtureRequest, shared_redis: RedisServer, authority: Authority
) -> Iterator[tuple[RunningWorker, Address]]:
    """Run a worker that does not wait long for a HELLO."""
    with _running(request.param, shared_redis, authority, handshake_timeout_s=HASTE_S) as running:
        yield running


@pytest.mark.parametrize("how", ["silent", "in the middle", "a byte at a time"])
def test_a_handshake_has_a_time_limit(
    hasty: tuple[RunningWorker, Address], authority: Authority, how: str
) -> None:
    """Who does not finish it within handshake_timeout_s is gone, whatever trickles in."""
    worker, address = hasty
    outgoing = ssl.MemoryBIO()
    tls = authority.client_context(None).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    said = outgoing.read()
    assert len(said) > 200
    timeouts = worker.protocol_errors(StatusCode.TIMEOUT)
    with SpopClient(address) as slow:
        eventually(lambda: worker.connections == 1, "it is counted from the first moment")
        match how:
            case "in the middle":
                slow.send(said)
                assert slow.take(1), "the server's part of the handshake"
            case "a byte at a time":
                slow.socket.settimeout(0.01)
                for byte in said:
                    with suppress(TimeoutError):
                        slow.send(bytes([byte]))
                        if not slow.socket.recv(1):
                            break
            case _:
                pass
        slow.socket.settimeout(TIMEOUT_S)
        with suppress(ConnectionError):
            while slow.socket.recv(65536):
                pass
        worker.wait_idle()
    assert worker.protocol_errors(StatusCode.TIMEOUT) == timeouts + 1


def test_silence_after_the_handshake_counts_too(
    hasty: tuple[RunningWorker, Address], authority: Authority
) -> None:
    """TLS and HELLO share the one time limit; who can read it is told why."""
    _, address = hasty
    with TlsClient(address, authority.client_context(authority.haproxy)) as client:
        assert client.farewell() == StatusCode.TIMEOUT


def test_a_peer_that_does_not_read_is_not_read_from(
    at: tuple[RunningWorker, Address], connect: Callable[[], TlsClient]
) -> None:
    """What it can make us hold is bounded, others are served, and no answer is lost."""
    worker, _ = at
    block = notify(frames.ids(1), check_http(token="kat_x")) * 20
    with connect() as slow, connect() as neighbour:
        slow.hello()
        neighbour.hello()
        began_kb = _rss_kb(worker.pid)
        sent = _send_until_blocked(slow, block, neighbour)
        assert (_rss_kb(worker.pid) - began_kb) << 10 < MAX_HELD_BYTES
        assert sent * len(block) < MAX_UNREAD_BYTES
        answer = slow.frame()
        assert slow.take((sent * 20 - 1) * len(answer)) == answer * (sent * 20 - 1)
        slow.send(block)  # OpenSSL has written it half way, and wants it again
        assert slow.take(20 * len(answer)) == answer * 20
    worker.wait_idle()


def _send_until_blocked(slow: TlsClient, block: bytes, neighbour: TlsClient) -> int:
    """Write blocks until the worker takes no more, though it turns; return how many it has."""
    sent = refusals = 0
    slow.socket.settimeout(0)
    while refusals < 20 and sent * len(block) < MAX_UNREAD_BYTES:
        try:
            assert slow.socket.send(block) == len(block)
        except ssl.SSLWantWriteError:
            assert neighbour.ask().reason == "missing"
            refusals += 1
        else:
            sent += 1
            refusals = 0
    slow.socket.settimeout(TIMEOUT_S)
    return sent


def _rss_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_two_hundred_connections_at_once(
    at: tuple[RunningWorker, Address], authority: Authority
) -> None:
    """A cold burst: every one is shaken hands with and answered, and nothing is left behind."""
    worker, address = at
    worker.wait_idle()
    files = open_files(worker.pid)
    context = authority.client_context(authority.haproxy)
    with ExitStack() as stack:
        clients = [stack.enter_context(TlsClient(address, context)) for _ in range(200)]
        for client in clients:
            client.hello()
        for client in clients:
            client.send(notify(frames.ids(1), check_http(token=mint())))
        assert {client.answer().reason for client in clients} == {"unknown"}
        assert worker.connections == 200
    worker.wait_idle()
    eventually(lambda: open_files(worker.pid) <= files, "no file is left open")


class Transport(asyncio.Transport):
    """A connection that nobody says anything on."""

    def __init__(self) -> None:
        super().__init__()
        self.has_ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError(f"nobody can read {data!r}")

    def close(self) -> None:
        self.has_ended = True

    def is_closing(self) -> bool:
        return self.has_ended


def test_one_handshake_too_many_ends_the_oldest(authority: Authority) -> None:
    """Those under way are counted until they end; who only holds the door makes room."""

    async def play() -> None:
        counters = Counters(["demo"], 1).worker(0)
        spop = SpopServer(cast("Agent", None), Limits(), counters)
        server = TlsServer(spop, Credentials(authority.agent))
        transports = [Transport() for _ in range(MAX_HANDSHAKES + 2)]
        links = [server() for _ in transports]
        oldest, second, *others = transports
        for link, transport in zip(links[:-1], transports, strict=False):
            link.connection_made(transport)
        assert oldest.has_ended
        links[0].connection_lost(None)
        links[1].connection_lost(None)
        links[-1].connection_made(others[-1])
        assert not any(transport.has_ended for transport in [second, *others])

    asyncio.run(play())


# --- Files that change, and the end --------------------------------------------------------------


def test_a_renewed_certificate_is_taken_without_a_restart(
    place: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    """New connections see it soon; one that does not fit its key is not taken, and is told of."""
    authority = make_authority(tmp_path / "ca")
    address = free_address()
    context = authority.client_context(authority.haproxy)

    def shown() -> bytes | None:
        with TlsClient(address, context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            return client.socket.getpeercert(binary_form=True)

    with running_worker(
        place, redis_server.socket, spop=f"127.0.0.1:{address[1]}", tls=authority.agent
    ) as worker:
        first = shown()
        with TlsClient(address, context) as before:
            before.hello()
            kept = authority.agent.key_file.read_bytes()
            authority.sign(NAME)
            eventually(lambda: shown() != first, "the new certificate is shown")
            second = shown()
            assert worker.log.count("certificate read anew") == 1
            authority.agent.key_file.write_bytes(kept)
            eventually(lambda: "do not belong together" in worker.log, "the fault is told")
            assert shown() == second
            assert before.ask(mint()).reason == "unknown"
        assert worker.log.count("the certificate before stays in use") == 1


def test_files_are_taken_when_they_lie_still(tmp_path: Path) -> None:
    """A certificate that has just changed may be waiting for its key: it is left for a look."""
    authority = make_authority(tmp_path / "ca")
    credentials = Credentials(authority.agent)
    first = credentials.context
    credentials.look()
    assert credentials.context is first
    authority.sign(NAME)
    credentials.look()
    assert credentials.context is first
    credentials.look()
    second = credentials.context
    assert second is not first
    credentials.look()
    assert credentials.context is second


@pytest.mark.parametrize("loop", LOOPS)
def test_sigterm_says_goodbye(
    place: Path, redis_server: RedisServer, authority: Authority, loop: str
) -> None:
    """Who is in hears AGENT-DISCONNECT; who is still shaking hands delays nothing."""
    address = free_address()
    with running_worker(
        place, redis_server.socket, loop, spop=f"127.0.0.1:{address[1]}", tls=authority.agent
    ) as worker:
        context = authority.client_context(authority.haproxy)
        with TlsClient(address, context) as client, SpopClient(address):
            client.hello()
            eventually(lambda: worker.connections == 2, "both are accepted")
            worker.process.terminate()
            assert client.farewell() == StatusCode.NORMAL
            assert worker.exit_code() == 0
        assert "Traceback" not in worker.log


def test_files_that_broke_meanwhile_are_no_boot_failure(place: Path, tmp_path: Path) -> None:
    """A worker that starts between two moments of a renewal ends with a sentence, to try again."""
    authority = make_authority(tmp_path / "ca")
    authority.agent.cert_file.unlink()
    host, port = free_address()
    with (
        pytest.raises(WorkerEnded, match="cannot be read: No such file") as ended,
        running_worker(place, "/none", spop=f"{host}:{port}", tls=authority.agent),
    ):
        pass
    assert ended.value.exit_code == 1
