"""A token in a header: how it reaches the agent, and that it reaches nobody else."""

import shutil
import subprocess

import pytest

from tests.e2e.scene import TOKEN, Stage, until
from tests.support.haproxy import read_answer

OURS = f"X-KAT: {TOKEN}"


@pytest.mark.parametrize(
    "header", [OURS, f"Authorization: KAT {TOKEN}", f"authorization: kat {TOKEN}"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_a_token_travels_in_a_header_on_any_method(stage: Stage, header: str, method: str) -> None:
    """The agent gets the token and everything it judges by; the application gets no token."""
    assert stage.ask(header, "Content-Length: 0", method=method, target="/x").status == 200
    (args,) = stage.asked()
    assert args[b"token"] == TOKEN.encode()
    assert (args[b"via"], args[b"acl"]) == (b"header", b"demo")
    assert (args[b"method"], args[b"path"], args[b"host"]) == (method.encode(), b"/x", b"localhost")
    (received,) = stage.application.take()
    assert "kat_" not in repr(received)
    assert received.header("X-KAT") == []
    assert received.header("Authorization") == []


def test_no_token_is_told_as_such(stage: Stage) -> None:
    """Without a token the agent gets none, and no `via`."""
    stage.ask()
    (args,) = stage.asked()
    assert (args[b"token"], args[b"via"]) == (None, None)


OTHER = TOKEN[::-1][:38].join(["kat_", ""])
SEVERAL = {
    "both headers": [OURS, f"Authorization: KAT {OTHER}"],
    "both headers, one token": [OURS, f"Authorization: KAT {TOKEN}"],
    "X-KAT twice": [OURS, f"X-KAT: {OTHER}"],
    "X-KAT twice, the last one empty": [OURS, "X-KAT:"],
    "X-KAT twice, the first one empty": ["X-KAT:", OURS],
    "a list in X-KAT": [f"X-KAT: {TOKEN}, {OTHER}"],
    "Authorization twice": [f"Authorization: KAT {TOKEN}", f"Authorization: KAT {OTHER}"],
    "a second scheme behind": [f"Authorization: KAT {TOKEN}", "Authorization: Basic x"],
    "a second scheme before": ["Authorization: Basic x", f"Authorization: KAT {TOKEN}"],
    "a list in Authorization": [f"Authorization: KAT {TOKEN}, KAT {OTHER}"],
    "an empty scheme beside": ["Authorization: KAT", OURS],
}


@pytest.mark.parametrize("case", SEVERAL)
def test_two_tokens_are_none(stage: Stage, case: str) -> None:
    """Of several tokens none is judged: the agent gets a word that is malformed."""
    stage.ask(*SEVERAL[case])
    (args,) = stage.asked()
    assert args[b"token"] in {b"several", b"misshapen"}
    assert "kat_" not in repr(stage.application.take())


@pytest.mark.parametrize(
    "token", ["", "kat_", "KAT_" + "a" * 38, "kat_" + "a" * 37, "kat_" + "a" * 39, "x" * 8000]
)
def test_what_has_not_the_shape_is_not_passed_on(stage: Stage, token: str) -> None:
    """The agent is never sent a client's noise, only a word for it."""
    stage.ask(f"X-KAT: {token}")
    stage.ask(f"Authorization: KAT  {token}")
    assert [args[b"token"] for args in stage.asked()] == [b"misshapen", b"misshapen"]


def test_an_authorization_with_a_tab_holds_no_token(stage: Stage) -> None:
    """`KAT<tab>token` is our scheme too: it is not left in the application's request."""
    stage.ask(f"Authorization: KAT\t{TOKEN}")
    assert "kat_" not in repr(stage.application.take())


def test_a_token_stands_in_no_log_line(stage: Stage) -> None:
    """HAProxy's log has the path, never the query, a header, or a token that came in them."""
    secret = "kat_" + "S3cr3t" * 6 + "xy"
    stage.ask(f"X-KAT: {secret}", target=f"/seen?kat={secret}")
    stage.ask(f"Authorization: KAT {secret}", f"Referer: https://x/?kat={secret}")
    stage.ask(f"X-KAT: {secret}", target=f"/seen?kat={secret}", host="evil.example")
    stage.ask(f"X-KAT: {secret}", f"X-KAT: {secret}", "Upgrade: foo", target=f"/?{secret}")
    stage.ask(f"X-KAT : {secret}", f"X KAT: {secret}", target=f"/?{secret}")
    stage.ask(target="/the-last-one")
    until(lambda: '"/the-last-one"' in stage.haproxy.log())
    # Each of HAProxy's threads writes its own lines: an earlier request's may come later.
    until(lambda: stage.haproxy.log().count('"/seen"') >= 2)
    log = stage.haproxy.log()
    assert log.count('"/seen"') == 2
    assert "S3cr3t" not in log


def test_a_log_line_cannot_be_forged(stage: Stage) -> None:
    """A quote in the path is escaped: what follows it is no field of its own."""
    stage.ask(OURS, target='/forged"%20class=allow"')
    until(lambda: r'"/forged\"%20class=allow\""' in stage.haproxy.log())


def test_a_host_cannot_forge_a_log_line(stage: Stage) -> None:
    """A quote in Host is escaped, whatever HAProxy makes of such a Host."""
    stage.ask(OURS, target="/forged-host", host='x"class=allow')
    stage.ask(target="/after-the-forged-host")
    until(lambda: '"/after-the-forged-host"' in stage.haproxy.log())
    assert 'x"class=allow' not in stage.haproxy.log()


@pytest.mark.parametrize(
    ("method", "target"), [("GET", "/" + "p" * 4000), ("M" * 1000, "/long-method")]
)
def test_nobody_cuts_his_name_off_a_log_line(stage: Stage, method: str, target: str) -> None:
    """Who was let in, and as whom, stands in the log, however long the request line is."""
    stage.ask(OURS, method=method, target=target)
    until(lambda: f'"{target}"' in stage.haproxy.log())
    (line,) = [line for line in stage.haproxy.log().splitlines() if f'"{target}"' in line]
    assert "reason=ok" in line
    assert 'user="user1"' in line[:600]


def test_two_requests_on_one_connection_are_two_questions(stage: Stage) -> None:
    """A yes does not last: the next request of a kept connection is asked about again."""
    request = f"GET / HTTP/1.1\r\nHost: localhost\r\n{OURS}\r\n\r\n".encode()
    with stage.haproxy.connect() as client:
        for _ in range(3):
            client.sendall(request)
            assert read_answer(client).status == 200
    assert len(stage.asked()) == 3


def test_pipelined_requests_are_asked_about_one_by_one(stage: Stage) -> None:
    """A second request sent behind the first one's back has no token of its own."""
    first = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{OURS}\r\n\r\n"
    second = "GET /behind HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with stage.haproxy.connect() as client:
        client.sendall((first + second).encode())
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert [args[b"token"] for args in stage.asked()] == [TOKEN.encode(), None]


def test_http_2_is_judged_like_http_1(stage: Stage) -> None:
    """Over HTTP/2 the agent hears the same, and the application gets no token."""
    curl = shutil.which("curl")
    assert curl, "curl is missing"
    port = stage.haproxy.port
    url = f"http://127.0.0.1:{port}/two?q=1"
    headers = ["-H", "Host: localhost", "-H", OURS, "-H", "X-KAT-User: forged"]
    done = subprocess.run(
        [
            curl,
            "-sS",
            "--http2-prior-knowledge",
            *headers,
            "-w",
            "%{http_version} %{http_code}",
            url,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert done.stdout == "the application\n2 200"
    (args,) = stage.asked()
    assert (args[b"token"], args[b"path"]) == (TOKEN.encode(), b"/two")
    (received,) = stage.application.take()
    assert received.header("X-KAT-User") == ["user1"]
    assert received.header("X-KAT") == []
