import socket
from pathlib import Path

import pytest

from spoa.bench.haproxy import echo
from spoa.bench.haproxy.echo import answer
from spoa.bench.load.channel import connect
from spoa.bench.load.frames import FIRST_STREAM_ID, HEAD_BYTES, LENGTH, encode_hello, encode_notify
from spoa.bench.servers import child
from spoa.spop.codec import encode_frame
from spoa.spop.constants import DataType, FrameType
from spoa.spop.varint import encode_varint

IDS = [encode_varint(stream) + b"\x01" for stream in (0, 1, 239, 240, FIRST_STREAM_ID, 1 << 40)]
FRAMES = [encode_notify(ids, {b"acl": b"demo"}) + bytes(7) for ids in IDS]


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 40])
def test_every_whole_frame_gets_a_yes(cut: int) -> None:
    """Whatever the length of its ids; the bytes of a cut frame are kept."""
    answers, rest = answer(b"".join(FRAMES) + FRAMES[0][:cut])
    assert rest == FRAMES[0][:cut]
    for ids in IDS:
        end = LENGTH.size + LENGTH.unpack_from(answers)[0]
        assert answers[LENGTH.size] == FrameType.ACK
        assert answers[HEAD_BYTES:end].startswith(ids)
        assert answers[:end].endswith(b"\x05allow\x11")
        answers = answers[end:]
    assert not answers


def test_hello_is_answered() -> None:
    """HAProxy opens a connection to it as to a real agent."""
    answers, rest = answer(encode_hello(b"engine"))
    assert (answers[LENGTH.size], rest) == (FrameType.AGENT_HELLO, b"")


def test_a_goodbye_is_no_question() -> None:
    """HAPROXY-DISCONNECT ends the connection."""
    goodbye = encode_frame(FrameType.HAPROXY_DISCONNECT, ((b"status-code", DataType.UINT32, 0),))
    with pytest.raises(ConnectionError):
        answer(goodbye)


def test_it_serves_until_it_is_ended(tmp_path: Path) -> None:
    """One connection after another, and one that goes away disturbs nobody."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "echo.sock"))
        listener.listen()
        with child(listener, echo.serve) as agent:
            connect(agent.address).sock.close()
            with connect(agent.address).sock as sock:
                sock.settimeout(5)
                sock.sendall(FRAMES[0])
                assert sock.recv(4096) == answer(FRAMES[0])[0]
