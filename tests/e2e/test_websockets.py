"""Raw bytes: they flow after a 101 of the application, and never without one."""

import socket

import pytest

from tests.e2e.scene import TOKEN, Stage
from tests.e2e.visiting import COOKIE, LINK, MISSING, OPENS, STANDS, exchange, lines
from tests.support.stub_agent import acknowledging, refuse

HOST = "Host: localhost"
SESSION = f"Cookie: {COOKIE}"
VERSION, KEY = "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket", VERSION, KEY)
INNER = lines("GET /inner HTTP/1.1", HOST)

NO_HANDSHAKES = {
    "no Connection": ["GET /chat HTTP/1.1", HOST, SESSION, "Upgrade: websocket", VERSION, KEY],
    "no Upgrade": ["GET /chat HTTP/1.1", HOST, SESSION, "Connection: Upgrade", VERSION, KEY],
    "no key": ["GET /chat HTTP/1.1", HOST, SESSION, *HANDSHAKE[:3]],
    "h2c": ["GET /chat HTTP/1.1", HOST, SESSION, "Connection: Upgrade", "Upgrade: h2c"],
    "h2c and its settings": [
        *("GET /chat HTTP/1.1", HOST, SESSION, "Connection: Upgrade, HTTP2-Settings"),
        *("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    ],
}


def _open(client: socket.socket, *headers: str, target: str = "/chat") -> bytes:
    """Send a handshake; return the head of the answer, and leave what follows it."""
    client.sendall(lines(f"GET {target} HTTP/1.1", HOST, *headers, *HANDSHAKE))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    return head


@pytest.mark.parametrize("said", [b"\x81\x05hello", b"\x00\xff\r\n\r\n", INNER])
def test_with_a_session_bytes_flow(watched: Stage, said: bytes) -> None:
    """After one yes and a 101 whatever is sent comes back from the application, unread."""
    watched.agent.script = acknowledging(STANDS)
    with watched.haproxy.connect() as client:
        assert _open(client, SESSION).startswith(b"HTTP/1.1 101 ")
        client.sendall(said)
        assert client.recv(len(said), socket.MSG_WAITALL) == said
    assert len(watched.asked()) == 1
    assert [one.header("Cookie") for one in watched.application.received] == [[]]


@pytest.mark.parametrize("says", [MISSING, refuse(b"denied", b"revoked"), b""])
def test_without_a_yes_there_is_no_101(watched: Stage, says: bytes) -> None:
    """What a client sends behind a refused handshake is no stream: at most another request."""
    watched.agent.script = acknowledging(says)
    request = lines("GET /chat HTTP/1.1", HOST, SESSION, *HANDSHAKE) + b"\x81\x05hello" + INNER
    answer = exchange(watched.haproxy, request)
    assert answer[9:12] in {b"403", b"503"}
    assert b" 101 " not in answer
    assert watched.application.received == []


def test_a_link_opens_no_websocket(watched: Stage) -> None:
    """Its answer is the 303: a browser's WebSocket does not follow it."""
    watched.agent.script = acknowledging(OPENS)
    with watched.haproxy.connect() as client:
        assert _open(client, target=f"/chat?{LINK}").startswith(b"HTTP/1.1 303 ")
    assert watched.application.received == []


@pytest.mark.parametrize("protocols", ["websocket, h2c", "h2c, websocket", "websocket, foo"])
def test_a_websocket_takes_no_other_protocol_along(watched: Stage, protocols: str) -> None:
    """Of several that are asked for, the application is offered a WebSocket or none."""
    watched.agent.script = acknowledging(STANDS)
    upgrade = ("Connection: Upgrade", f"Upgrade: {protocols}", VERSION, KEY)
    exchange(watched.haproxy, lines("GET /chat HTTP/1.1", HOST, SESSION, *upgrade))
    offered = [one.header("Upgrade") for one in watched.application.received]
    assert offered in ([], [[]], [["websocket"]])


@pytest.mark.parametrize("case", NO_HANDSHAKES)
def test_without_a_101_what_follows_is_judged(watched: Stage, case: str) -> None:
    """Behind what is no handshake another request has no yes, and is refused for itself."""
    yes, no = acknowledging(STANDS), acknowledging(MISSING)
    watched.agent.script = lambda notify: (
        yes if notify.messages[0].args[b"path"] == b"/chat" else no
    )(notify)
    answer = exchange(watched.haproxy, lines(*NO_HANDSHAKES[case]) + INNER)
    assert b" 101 " not in answer
    assert [one.target for one in watched.application.received] in ([], ["/chat"])


def test_a_program_may_open_one(watched: Stage) -> None:
    """A token in a header opens one stream, and the next handshake is asked about again."""
    watched.agent.script = acknowledging(STANDS)
    for _ in range(2):
        with watched.haproxy.connect() as client:
            assert _open(client, f"X-KAT: {TOKEN}").startswith(b"HTTP/1.1 101 ")
    assert [args[b"token"] for args in watched.asked()] == [TOKEN.encode()] * 2
