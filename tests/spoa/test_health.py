"""The HTTP side: who asks gets an answer, who misbehaves harms nobody."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection

import pytest

from spoa.config.endpoint import TcpEndpoint
from spoa.counters import Counters
from spoa.fleet import Fleet
from spoa.listen import ListenError
from spoa.supervisor.health import MAX_REQUESTS, REQUEST_TIMEOUT_S, HealthServer
from tests.support.eventually import eventually

TIMEOUT_S = 10
PLACES = MAX_REQUESTS + 1


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(Counters(["wiki"], 1))


@pytest.fixture
def server(fleet: Fleet) -> Iterator[HealthServer]:
    server = HealthServer(TcpEndpoint("127.0.0.1", 0), fleet)
    yield server
    server.close()


def _get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection(server.endpoint.host, server.endpoint.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_metrics_are_served(server: HealthServer, fleet: Fleet) -> None:
    """A scrape sees what was counted a moment ago."""
    fleet.counters.worker(0).decided(b"wiki", b"ok", 3)
    status, text = _get(server, "/metrics?name=x")
    assert status == 200
    assert 'kat_requests_total{acl="wiki",reason="ok"} 3.0\n' in text


def test_a_verdict_has_its_status_and_its_sentence(server: HealthServer) -> None:
    """Health is 200 or 503, and 503 says why."""
    assert _get(server, "/livez") == (200, "ok\n")
    assert _get(server, "/readyz") == (503, "none of 1 workers is serving\n")


def test_nothing_else_is_there(server: HealthServer) -> None:
    """Other paths and methods are refused, in plain text."""
    assert _get(server, "/") == (404, "not found\n")
    assert _get(server, "/metrics", "POST") == (405, "method not allowed\n")
    assert _get(server, "/livez", "BREW") == (405, "method not allowed\n")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/"])
def test_head_is_get_without_a_body(server: HealthServer, path: str) -> None:
    """A probe that asks with HEAD learns the same status."""
    assert _get(server, path, "HEAD") == (_get(server, path)[0], "")


def test_rubbish_is_answered_in_plain_text(server: HealthServer) -> None:
    """What is no HTTP is told so, without a page of HTML."""
    with socket.create_connection((server.endpoint.host, server.endpoint.port)) as peer:
        peer.settimeout(TIMEOUT_S)
        peer.sendall(b"GET / HTTP/x\r\n\r\n")
        assert peer.recv(4096) == b"bad request\n"


def test_silent_peers_keep_nobody_waiting(
    server: HealthServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """A few connections that say nothing, or go away, do not stop a scrape, and leave no trace."""
    silent = [socket.create_connection((server.endpoint.host, server.endpoint.port)) for _ in "abc"]
    silent[0].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    silent[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    silent[0].close()
    assert _get(server, "/livez")[0] == 200
    for peer in silent:
        peer.close()
    assert capfd.readouterr() == ("", "")


def test_a_peer_that_trickles_is_dropped(server: HealthServer) -> None:
    """A byte now and then does not keep a place longer than a whole request may take."""
    address = (server.endpoint.host, server.endpoint.port)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(PLACES)]
        began = time.monotonic()

        def has_been_dropped() -> bool:
            for peer in slow:
                with suppress(OSError):
                    peer.send(b"x")
            time.sleep(REQUEST_TIMEOUT_S / 20)
            return bool(select.select([slow[0]], [], [], 0)[0])

        eventually(has_been_dropped, "the end of the first", 2 * REQUEST_TIMEOUT_S)
        assert time.monotonic() - began >= REQUEST_TIMEOUT_S / 2
        assert _get(server, "/livez")[0] == 200


def test_a_port_in_use_is_named(server: HealthServer, fleet: Fleet) -> None:
    """Two agents cannot share a metrics port, and the second says so."""
    with pytest.raises(ListenError, match="another process listens there"):
        HealthServer(server.endpoint, fleet)
