"""What frontend `web` does to a request.

The agent says yes to everything: whatever an application sees here, HAProxy's own rules let in.
"""

from pathlib import Path

import pytest

from tests.e2e.scene import TOKEN, Stage
from tests.support.haproxy import read_answer

OURS = f"X-KAT: {TOKEN}"


# -- One request, and no tunnel -------------------------------------------------------------------


@pytest.mark.parametrize("target", ["localhost:80", "/", "localhost"])
def test_connect_opens_no_tunnel(stage: Stage, target: str) -> None:
    """CONNECT is refused whatever its target, before the agent is asked."""
    assert stage.ask(OURS, method="CONNECT", target=target).status in {400, 405}
    assert (stage.asked(), stage.application.take()) == ([], [])


def test_trace_is_refused(stage: Stage) -> None:
    """TRACE, which would echo the headers that HAProxy adds, reaches nobody."""
    assert stage.ask(OURS, method="TRACE").status == 405
    assert (stage.asked(), stage.application.take()) == ([], [])


@pytest.mark.parametrize(
    "protocol", ["foo", "h2c", "websocket, foo", "foo, websocket", "websocket2"]
)
def test_no_upgrade_but_websocket(stage: Stage, protocol: str) -> None:
    """An Upgrade to another protocol never reaches the application: it could open a tunnel."""
    stage.ask(OURS, "Connection: Upgrade", f"Upgrade: {protocol}")
    assert [received.header("Upgrade") for received in stage.application.take()] in ([], [[]])


def test_h2c_opens_no_second_request(stage: Stage) -> None:
    """The h2c handshake of RFC 7540 is refused: HAProxy 2.6 would pass it on."""
    handshake = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert stage.ask(OURS, *handshake).status == 400
    assert (stage.asked(), stage.application.take()) == ([], [])


def test_two_upgrade_headers_are_refused(stage: Stage) -> None:
    """`websocket` in one Upgrade header does not carry another one along."""
    headers = ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: foo")
    stage.ask(OURS, *headers)
    assert [received.header("Upgrade") for received in stage.application.take()] in ([], [[]])


def test_a_websocket_passes(stage: Stage) -> None:
    """A WebSocket handshake with a token gets its 101, and bytes flow."""
    lines = [
        "GET /chat HTTP/1.1",
        "Host: localhost",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        OURS,
    ]
    with stage.haproxy.connect() as client:
        client.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"


@pytest.mark.parametrize(
    "value", ["X-KAT-User", "close, X-Forwarded-For", "keep-alive,x-kat-user", "upgrade, TE"]
)
def test_connection_cannot_name_our_headers(stage: Stage, value: str) -> None:
    """`Connection: X-KAT-User` would make the next hop drop what the gate says about the user."""
    assert stage.ask(OURS, f"Connection: {value}").status == 400
    assert stage.application.take() == []


def test_connection_cannot_hide_in_a_second_header(stage: Stage) -> None:
    """Behind a harmless Connection header a second one is refused, and before it."""
    assert stage.ask(OURS, "Connection: close", "Connection: X-KAT-User").status == 400
    assert stage.ask(OURS, "Connection: Upgrade", "Connection: X-KAT-User").status == 400
    assert stage.ask(OURS, "Connection: X-KAT-User", "Connection: Upgrade").status == 400


@pytest.mark.parametrize("value", ["close", "keep-alive", "Keep-Alive", "keep-alive, Upgrade"])
def test_the_usual_connection_headers_pass(stage: Stage, value: str) -> None:
    """What browsers and programs send is not refused."""
    assert stage.ask(OURS, f"Connection: {value}").status == 200


# -- Where to -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost,evil",
        "evil,localhost",
        "localhost evil",
        "",
        None,
        "[::1]",
        "localhost/..",
        "a_b",
    ],
)
def test_an_unreadable_host_is_refused(stage: Stage, host: str | None) -> None:
    """A Host that two programs could read in two ways is a 400, and nobody is asked."""
    assert stage.ask(OURS, host=host).status == 400
    assert (stage.asked(), stage.application.take()) == ([], [])


def test_two_host_headers_are_refused(stage: Stage) -> None:
    """Of two Host headers none counts, in either order."""
    assert stage.ask(OURS, "Host: evil").status == 400
    assert stage.ask("Host: localhost", OURS, host="evil").status == 400
    assert stage.application.take() == []


def test_an_absolute_target_cannot_contradict_host(stage: Stage) -> None:
    """`GET http://other.example/` with `Host: localhost` is refused."""
    assert stage.ask(OURS, target="http://other.example/").status == 400
    assert stage.application.take() == []


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost?action=delete&x=@localhost/wiki",
        "http://x\\admin\\secret?@localhost/wiki",
        "http://x\\admin\\secret@localhost/wiki",
        "http://localhost&x@localhost/wiki",
        "http://user@localhost/wiki",
        "http:///wiki",
        "http://localhost?x=/wiki",
        "http://x\\admin@localhost/.well-known/acme-challenge/x",
    ],
)
def test_an_authority_that_two_programs_read_in_two_ways_is_refused(
    stage: Stage, target: str
) -> None:
    """A path is judged only where HAProxy and the application agree on what it is."""
    assert stage.ask(OURS, target=target).status == 400
    assert (stage.asked(), stage.application.take(), stage.acme.take()) == ([], [], [])


def test_an_absolute_target_without_a_path_is_not_guessed_at(
    stage: Stage, haproxy_binary: Path
) -> None:
    """Newer versions make `/` of it, for all to see; 2.6 would let agent and application differ."""
    status = stage.ask(OURS, target="http://localhost").status
    assert status == (400 if haproxy_binary.parent.name == "2.6" else 200)
    assert [args[b"path"] for args in stage.asked()] == ([b"/"] if status == 200 else [])
    assert [one.target for one in stage.application.take()] in ([], ["/"], ["http://localhost/"])


@pytest.mark.parametrize("target", ["http://localhost/wiki", "/wiki?a=b@c"])
def test_a_plain_absolute_target_passes(stage: Stage, target: str) -> None:
    """Proxies may send absolute targets: the path in a plain one is judged."""
    assert stage.ask(OURS, target=target).status == 200


def test_options_for_the_whole_server_is_judged(stage: Stage) -> None:
    """`OPTIONS *` has no path, and needs a token like everything else."""
    assert stage.ask(OURS, method="OPTIONS", target="*").status == 200
    assert len(stage.asked()) == 1


def test_a_host_is_compared_without_case_and_port(stage: Stage) -> None:
    """The agent hears of one host, however it is written."""
    for host in ("localhost", "LOCALHOST", "LocalHost:8080"):
        assert stage.ask(OURS, host=host).status == 200
    assert {args[b"host"] for args in stage.asked()} == {b"localhost"}
    assert stage.ask(OURS, host="other.example").status == 200


def test_a_foreign_host_reaches_no_gate(stage: Stage) -> None:
    """A host name that no gate knows is a 421; neither agent nor application hear of it."""
    assert stage.ask(OURS, host="evil.example").status == 421
    assert (stage.asked(), stage.application.take()) == ([], [])


def test_a_path_that_the_agent_could_not_take_is_refused(stage: Stage) -> None:
    """A path beyond 4096 bytes is a 414; one below reaches the agent whole."""
    assert stage.ask(OURS, target="/" + "a" * 4096).status == 414
    assert stage.ask(OURS, target="/" + "a" * 4095).status == 200
    (args,) = stage.asked()
    assert args[b"path"] == b"/" + b"a" * 4095


def test_a_fragment_is_refused(stage: Stage) -> None:
    """`/public#/../secret` is a path to one program and half a path to another."""
    assert stage.ask(OURS, target="/public#/../secret").status == 400
    assert stage.application.take() == []


# -- What only HAProxy may say --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("X-KAT-User", "x-kat-user", "X-Kat-USER", "X-KAT-Groups", "X-KAT-Anything"),
        *("X_KAT_User", "X.KAT.User", "X-KAT_User", "x_kat-user", "X-User_", "X.User", "X_User"),
        *("Remote-User", "X-Remote-User", "X-Original-URL", "X-Rewrite-URL", "Forwarded"),
        *("X-Forwarded-User", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Real-IP", "Proxy"),
        *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"),
    ],
)
def test_what_only_haproxy_may_say_is_deleted(stage: Stage, name: str) -> None:
    """No spelling of a client's claim reaches the application; several at once neither."""
    stage.ask(OURS, f"{name}: forged", f"{name.upper()}: forged", f"{name.lower()}: forged")
    (received,) = stage.application.take()
    assert not [value for _, value in received.headers if "forged" in value]


def test_trailers_are_dropped_where_haproxy_can(stage: Stage, haproxy_binary: Path) -> None:
    """Headers behind a chunked body do not reach an application behind HAProxy 3.2."""
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{OURS}\r\n\r\n"
    with stage.haproxy.connect() as client:
        client.sendall(f"{head}3\r\nabc\r\n0\r\nX-KAT-User: forged\r\n\r\n".encode())
        assert read_answer(client, "POST").status == 200
    (received,) = stage.application.take()
    assert received.header("X-KAT-User") == ["user1"]
    can_drop = haproxy_binary.parent.name not in {"2.6", "3.0"}
    assert received.trailers == ([] if can_drop else ["x-kat-user: forged\r\n"])


def test_the_client_address_is_haproxys(stage: Stage) -> None:
    """X-Forwarded-* tell what HAProxy saw, whatever the client says."""
    forged = ("X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil")
    stage.ask(OURS, *forged, source="127.9.9.9")
    (received,) = stage.application.take()
    assert received.header("X-Forwarded-For") == ["127.9.9.9"]
    assert received.header("X-Forwarded-Proto") == ["http"]
    assert received.header("X-Forwarded-Host") == ["localhost"]
    assert stage.asked()[0][b"src"] == bytes((127, 9, 9, 9))


def test_what_belongs_to_the_application_stays(stage: Stage) -> None:
    """Cookies, other Authorization schemes, query and unknown headers pass untouched."""
    theirs = ["Cookie: a=b; c=d", "Authorization: Bearer x.y.z", "X-Custom: 1", "TE: trailers"]
    stage.ask(OURS, *theirs, target="/a/%2e%2e/b;c?d=e&kat=f", method="PUT")
    (received,) = stage.application.take()
    assert (received.method, received.target) == ("PUT", "/a/%2e%2e/b;c?d=e&kat=f")
    for line in theirs[:3]:
        name, _, value = line.partition(": ")
        assert received.header(name) == [value]


# -- The one way around the gate ------------------------------------------------------------------

CHALLENGE = "/.well-known/acme-challenge/"


def test_an_acme_challenge_needs_no_token(stage: Stage) -> None:
    """A challenge goes to its own server; the agent is not asked, a token it carries is removed."""
    assert stage.ask(OURS, target=CHALLENGE + "a-Z_9").status == 200
    (received,) = stage.acme.take()
    assert "kat_" not in repr(received)
    assert (stage.asked(), stage.application.take()) == ([], [])


@pytest.mark.parametrize(
    "target",
    [
        *(CHALLENGE, CHALLENGE + "../../admin", CHALLENGE + "x/../../../admin", CHALLENGE + "x/y"),
        *(CHALLENGE + "%2e%2e%2fadmin", CHALLENGE + "..", CHALLENGE + "x;y", CHALLENGE + "x.html"),
        *("/x" + CHALLENGE + "y", "/" + CHALLENGE + "y", "/.well-known/acme-challengeX/y"),
    ],
)
def test_the_bypass_is_exact(stage: Stage, target: str) -> None:
    """Nothing but a bare challenge takes the way around the gate."""
    stage.ask(OURS, target=target)
    assert stage.acme.take() == []
    assert len(stage.asked()) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_the_bypass_is_for_get(stage: Stage, method: str) -> None:
    """Any other method asks the agent."""
    stage.ask(OURS, "Content-Length: 0", method=method, target=CHALLENGE + "x")
    assert stage.acme.take() == []
    assert len(stage.asked()) == 1
