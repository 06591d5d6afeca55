"""Asks an agent whether it is one: HAProxy's own health check, spoken by us."""

import socket
import ssl

from spoa.config.endpoint import Endpoint, TcpEndpoint, UnixEndpoint
from spoa.spop.codec import decode_kv_list, encode_string, encode_value, split_ids
from spoa.spop.constants import (
    DEFAULT_MAX_FRAME_BYTES,
    FRAME_LENGTH_BYTES,
    MAX_UNNEGOTIATED_FRAME_BYTES,
    PIPELINING,
    SPOP_VERSION,
    DataType,
    FrameFlag,
    FrameType,
)
from spoa.spop.errors import ProtocolError
from spoa.spop.varint import encode_varint

TIMEOUT_S = 2.0
_REFUSAL_S = 1.0
_HEAD_BYTES = 5  # type and flags

# Type, flags FIN, ids 0. Not codec.encode_frame: an agent's frames hold no BOOL, HAProxy's do.
_HEAD = bytes((FrameType.HAPROXY_HELLO, 0, 0, 0, FrameFlag.FIN, 0, 0))
_OFFER = {
    b"supported-versions": encode_value(SPOP_VERSION),
    b"max-frame-size": bytes((DataType.UINT32,)) + encode_varint(DEFAULT_MAX_FRAME_BYTES),
    b"capabilities": encode_value(PIPELINING),
    b"healthcheck": encode_value(True),  # noqa: FBT003 - the value itself
}
_FRAME = _HEAD + b"".join(encode_string(name) + value for name, value in _OFFER.items())
_HELLO = len(_FRAME).to_bytes(FRAME_LENGTH_BYTES) + _FRAME


class NoAgent(Exception):
    """Something listens there, and it is no agent. The message is a sentence."""


def hello(endpoint: Endpoint) -> int:
    """Greet the agent at `endpoint`. Returns the frame size it agrees to, in bytes.

    Raises NoAgent for a wrong answer, OSError when nothing can be connected to.
    """
    with _connect(endpoint) as client:
        try:
            client.sendall(_HELLO)
            frame = _receive_frame(client)
        except OSError:
            raise NoAgent(f"what listens at {endpoint} does not answer a HELLO") from None
    try:
        pairs = decode_kv_list(split_ids(frame[_HEAD_BYTES:])[1])
    except ProtocolError:
        pairs = {}
    agreed = pairs.get(b"max-frame-size")
    if frame[:1] != bytes([FrameType.AGENT_HELLO]) or not isinstance(agreed, int):
        raise NoAgent(f"what listens at {endpoint} answers, but not as an SPOP agent")
    return agreed


def demands_certificate(endpoint: TcpEndpoint) -> None:
    """Find out whether whoever listens there speaks TLS, and with nobody without a certificate.

    We have none to show: HAProxy's is not on this machine. Raises NoAgent for a wrong answer,
    OSError when nothing can be connected to.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is believed that is said here
    with _connect(endpoint) as plain:
        try:
            with context.wrap_socket(plain) as client:
                heard = _listen(client) or _ask(client)
        except ssl.SSLError as error:
            # By its alert: TLS 1.3 has one of its own for it, 1.2 says that there is no way.
            if {"CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE"} & set(_alert(error)):
                return
            raise NoAgent(
                f"what listens at {endpoint} does not speak the TLS of an agent"
            ) from None
        except OSError:
            raise NoAgent(f"what listens at {endpoint} does not answer in TLS") from None
    if heard:
        raise NoAgent(f"what listens at {endpoint} lets in whoever shows no certificate")
    raise NoAgent(f"what listens at {endpoint} does not answer in TLS")


def _listen(client: ssl.SSLSocket) -> bytes:
    """Wait for what TLS 1.3 says after the handshake: that a certificate was missing.

    A HELLO sent meanwhile would be answered by a reset, and that word be lost.
    """
    client.settimeout(_REFUSAL_S)
    try:
        return client.recv(1)
    except TimeoutError:
        return b""


def _ask(client: ssl.SSLSocket) -> bytes:
    client.settimeout(TIMEOUT_S)
    client.sendall(_HELLO)
    return client.recv(1)


def _alert(error: ssl.SSLError) -> list[str]:
    return [(error.reason or "").partition("_ALERT_")[2]]


def _connect(endpoint: Endpoint) -> socket.socket:
    if not isinstance(endpoint, UnixEndpoint):
        return socket.create_connection((endpoint.host, endpoint.port), TIMEOUT_S)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT_S)
    try:
        client.connect(endpoint.path)
    except OSError:
        client.close()
        raise
    return client


def _receive_frame(client: socket.socket) -> bytes:
    """Receive one frame, without its length prefix; what there is of it at the end of data."""
    with client.makefile("rb") as stream:
        size_bytes = int.from_bytes(stream.read(FRAME_LENGTH_BYTES))
        return stream.read(min(size_bytes, MAX_UNNEGOTIATED_FRAME_BYTES))
