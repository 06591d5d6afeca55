"""Requests inside requests: none reaches the application without a yes of its own.

The agent says yes to a request that has the token, and no to every other one.
"""

import pytest

from spoa.spop.codec import Notify, encode_ack
from tests.e2e.scene import TOKEN, Stage
from tests.e2e.visiting import MISSING, exchange, lines
from tests.support.stub_agent import allow

OURS = f"X-KAT: {TOKEN}"
HOST = "Host: localhost"
START = ("POST /outer HTTP/1.1", HOST, OURS)
CHUNKED = "Transfer-Encoding: chunked"
WEBSOCKET = (
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

INNER = lines("GET /inner HTTP/1.1", HOST).decode()
LENGTH = len(INNER)
BEHIND_CHUNKS = f"0\r\n\r\n{INNER}"

LENGTHS = {
    "two that differ": (["Content-Length: 0", f"Content-Length: {LENGTH}"], INNER),
    "two that agree": ([f"Content-Length: {LENGTH}"] * 2, INNER),
    "a list that differs": ([f"Content-Length: 0, {LENGTH}"], INNER),
    "a list that agrees": ([f"Content-Length: {LENGTH}, {LENGTH}"], INNER),
    "none": ([], INNER),
    "an empty one": (["Content-Length:"], INNER),
    "a space before the colon": ([f"Content-Length : {LENGTH}"], INNER),
    "a tab": ([f"Content-Length:\t{LENGTH}"], INNER),
    "a sign": ([f"Content-Length: +{LENGTH}"], INNER),
    "below zero": (["Content-Length: -1"], INNER),
    "hexadecimal": ([f"Content-Length: {LENGTH:#x}"], INNER),
    "a letter behind": (["Content-Length: 0a"], INNER),
    "zeros before": ([f"Content-Length: 000{LENGTH}"], INNER),
    "beyond 64 bits": ([f"Content-Length: {2**64 + LENGTH}"], INNER),
    "another spelling": ([f"Content_Length: {LENGTH}"], INNER),
    "a folded line": ([f"Content-Length:\r\n {LENGTH}"], INNER),
    "too short": (["Content-Length: 5"], INNER),
}

CHUNKS = {
    "and a length": ([CHUNKED, f"Content-Length: {LENGTH + 5}"], BEHIND_CHUNKS),
    "behind a length": ([f"Content-Length: {LENGTH + 5}", CHUNKED], BEHIND_CHUNKS),
    "and a short length": (
        [CHUNKED, "Content-Length: 4"],
        f"{LENGTH:x}\r\n{INNER}\r\n0\r\n\r\n",
    ),
    "with a request behind": ([CHUNKED], BEHIND_CHUNKS),
    "upper case": (["Transfer-Encoding: CHUNKED"], BEHIND_CHUNKS),
    "another word": (["Transfer-Encoding: xchunked"], BEHIND_CHUNKS),
    "a word before": (["Transfer-Encoding: x, chunked"], BEHIND_CHUNKS),
    "a word behind": (["Transfer-Encoding: chunked, x"], BEHIND_CHUNKS),
    "twice": (["Transfer-Encoding: chunked, chunked"], BEHIND_CHUNKS),
    "identity": (["Transfer-Encoding: identity", f"Content-Length: {LENGTH}"], INNER),
    "identity before": (["Transfer-Encoding: identity, chunked"], BEHIND_CHUNKS),
    "two headers": ([CHUNKED, "Transfer-Encoding: identity"], BEHIND_CHUNKS),
    "two headers, turned": (["Transfer-Encoding: identity", CHUNKED], BEHIND_CHUNKS),
    "a space before the colon": (["Transfer-Encoding : chunked"], BEHIND_CHUNKS),
    "a tab": (["Transfer-Encoding:\tchunked"], BEHIND_CHUNKS),
    "a vertical tab": (["Transfer-Encoding: \x0bchunked"], BEHIND_CHUNKS),
    "quoted": (['Transfer-Encoding: "chunked"'], BEHIND_CHUNKS),
    "a parameter": (["Transfer-Encoding: chunked;x=y"], BEHIND_CHUNKS),
    "empty": (["Transfer-Encoding:"], BEHIND_CHUNKS),
    "another spelling": (["Transfer_Encoding: chunked"], BEHIND_CHUNKS),
    "a folded line": (["Transfer-Encoding:\r\n chunked"], BEHIND_CHUNKS),
    "behind a bare line feed": ([f"X: y\n{CHUNKED}"], BEHIND_CHUNKS),
    "behind a bare return": ([f"X: y\r{CHUNKED}"], BEHIND_CHUNKS),
    "behind a NUL": ([f"X: y\0\r\n{CHUNKED}"], BEHIND_CHUNKS),
    "an extension": ([CHUNKED], f'3;x="\r\n\r\n{INNER}"\r\nabc\r\n0\r\n\r\n'),
    "an extension to a line feed": ([CHUNKED], f"3;\nabc\r\n{BEHIND_CHUNKS}"),
    "bare line feeds": ([CHUNKED], f"3\nabc\n0\n\n{INNER}"),
    "0x": ([CHUNKED], f"0x3\r\nabc\r\n{BEHIND_CHUNKS}"),
    "a size with a space": ([CHUNKED], f"3 \r\nabc\r\n{BEHIND_CHUNKS}"),
    "a size below zero": ([CHUNKED], f"-1\r\nabc\r\n{BEHIND_CHUNKS}"),
    "a size beyond 64 bits": ([CHUNKED], f"{2**64 + 3:x}\r\nabc\r\n{BEHIND_CHUNKS}"),
    "no line behind a chunk": ([CHUNKED], f"3\r\nabcXX{BEHIND_CHUNKS}"),
    "a length in the trailers": ([CHUNKED], f"0\r\nContent-Length: 9\r\n\r\n{INNER}"),
    "chunks in the trailers": ([CHUNKED], f"0\r\n{CHUNKED}\r\n\r\n{INNER}"),
    "a line feed in the trailers": ([CHUNKED], f"0\r\nX: y\n\r\n{INNER}"),
}

HEADS = {
    "pipelined": (["GET /outer HTTP/1.1", HOST, OURS], INNER),
    "line feeds alone": ([f"GET /outer HTTP/1.1\n{HOST}\n{OURS}\n"], INNER),
    "a body of a GET": (["GET /outer HTTP/1.1", HOST, OURS, f"Content-Length: {LENGTH}"], INNER),
    "a GET with too short a body": (
        ["GET /outer HTTP/1.1", HOST, OURS, "Content-Length: 1"],
        INNER,
    ),
    "chunks in HTTP/1.0": (["POST /outer HTTP/1.0", HOST, OURS, CHUNKED], BEHIND_CHUNKS),
    "HTTP/1.0": (["POST /outer HTTP/1.0", HOST, OURS], INNER),
    "HTTP/2.0": (["GET /outer HTTP/2.0", HOST, OURS], INNER),
    "two versions": (["GET /outer HTTP/1.1 HTTP/1.1", HOST, OURS], INNER),
    "tabs": (["GET\t/outer\tHTTP/1.1", HOST, OURS], INNER),
    "no version": (["GET /outer"], INNER),
    "a request in the target": (
        [f"GET /outer HTTP/1.1\r\n{HOST}\r\n\r\n HTTP/1.1", HOST, OURS],
        "",
    ),
    "a folded first header": (["GET /outer HTTP/1.1", f" X: y\r\n{HOST}", OURS], INNER),
    "a header without a colon": ([*START, "X"], INNER),
    "a header without a name": ([*START, ": x"], INNER),
    "patience": ([*START, "Expect: 100-continue", f"Content-Length: {LENGTH}"], INNER),
    "patience and no length": ([*START, "Expect: 100-continue"], INNER),
    "a body before an upgrade": ([*START, *WEBSOCKET, "Content-Length: 1"], INNER),
}


@pytest.fixture
def strict(watched: Stage) -> Stage:
    def answer(notify: Notify) -> bytes:
        has_token = notify.messages[0].args[b"token"] == TOKEN.encode()
        return encode_ack(notify.ids, allow() if has_token else MISSING)

    watched.agent.script = answer
    return watched


def _assert_only_the_outer_one_passed(stage: Stage, request: bytes) -> None:
    """Send it; what the application got is one request at most, in one reading of its length."""
    exchange(stage.haproxy, request)
    received = stage.application.received
    assert [one.target for one in received] in ([], ["/outer"])
    for one in received:
        framing = [*one.header("Content-Length"), *one.header("Transfer-Encoding")]
        assert len(framing) <= 1
        assert not one.header("Transfer-Encoding") or framing[0].lower() == "chunked"
    opened = [args for args in stage.asked() if args[b"token"] is not None]
    assert {args[b"path"] for args in opened} <= {b"/outer"}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_length_hides_no_request(strict: Stage, case: str) -> None:
    """However Content-Length is written: what the gate takes for one request is one behind it."""
    headers, body = LENGTHS[case]
    _assert_only_the_outer_one_passed(strict, lines(*START, *headers, body=body))


@pytest.mark.parametrize("case", CHUNKS)
def test_chunks_hide_no_request(strict: Stage, case: str) -> None:
    """However Transfer-Encoding and the chunks are written, with a length beside it or without."""
    headers, body = CHUNKS[case]
    _assert_only_the_outer_one_passed(strict, lines(*START, *headers, body=body))


@pytest.mark.parametrize("case", HEADS)
def test_a_head_hides_no_request(strict: Stage, case: str) -> None:
    """However the request line and the headers are written."""
    head, body = HEADS[case]
    _assert_only_the_outer_one_passed(strict, lines(*head, body=body))


def test_a_folded_header_is_one_header(strict: Stage) -> None:
    """A line that goes on does not bring a header along that the gate has not seen."""
    folded = "X: y\r\n X-KAT-User: admin\r\n\tX-KAT-User: admin"
    exchange(strict.haproxy, lines("GET /outer HTTP/1.1", HOST, OURS, folded))
    assert [one.header("X-KAT-User") for one in strict.application.received] in ([], [["user1"]])


@pytest.mark.parametrize("body", [BEHIND_CHUNKS, INNER, f"{LENGTH:x}\r\n{INNER}\r\n0\r\n\r\n"])
def test_a_refused_request_takes_its_body_along(strict: Stage, body: str) -> None:
    """What was sent behind a no is no request either, or is judged, and refused, as one."""
    for headers in ([CHUNKED], [f"Content-Length: {len(body)}"], []):
        exchange(strict.haproxy, lines("POST /refused HTTP/1.1", HOST, *headers, body=body))
    assert strict.application.received == []
    assert {args[b"token"] for args in strict.asked()} == {None}
