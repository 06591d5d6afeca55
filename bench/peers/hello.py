"""What an agent says of itself in its AGENT-HELLO."""

import socket

from spoa.bench.load.channel import HELLO_TIMEOUT_S, Refused, read_frame
from spoa.bench.load.frames import HEAD_BYTES, encode_hello
from spoa.spop.codec import decode_kv_list
from spoa.spop.constants import FRAME_LENGTH_BYTES, PIPELINING, FrameType

_NO_IDS_BYTES = 2
"""A HELLO has stream id 0 and frame id 0."""


def announces_pipelining(path: str) -> bool:
    """Say whether HAProxy would send a second request before the first one's ACK.

    Raises OSError, Refused.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(HELLO_TIMEOUT_S)
        sock.connect(path)
        sock.sendall(encode_hello(b"bench"))
        frame = read_frame(sock)
    if frame[FRAME_LENGTH_BYTES] != FrameType.AGENT_HELLO:
        raise Refused(f"frame of type {frame[FRAME_LENGTH_BYTES]} instead of AGENT-HELLO")
    said = decode_kv_list(frame[HEAD_BYTES + _NO_IDS_BYTES :]).get(b"capabilities")
    return isinstance(said, bytes) and PIPELINING in [word.strip() for word in said.split(b",")]


def says_hello(path: str) -> bool:
    """Say whether an agent listens there and completes the handshake."""
    try:
        announces_pipelining(path)
    except (OSError, Refused):
        return False
    return True
