"""The handshake, as one pure function: what HAProxy offers in, what is agreed out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from spoa.spop.codec import encode_frame
from spoa.spop.constants import (
    FRAGMENTATION,
    MIN_MAX_FRAME_BYTES,
    PIPELINING,
    SPOP_VERSION,
    DataType,
    FrameType,
    StatusCode,
)
from spoa.spop.errors import ProtocolError
from spoa.spop.value import Address, Value

# `fragmentation` says what we can receive, so it is announced to everybody (SPOE.txt 3.2.1):
# HAProxy up to 3.0 ends the whole connection (code 10) when a payload does not fit a frame and
# the agent cannot reassemble it. `async` is an old capability that no HAProxy needs.
_OURS_ALONE = (FRAGMENTATION,)
# These take two. Without `pipelining` HAProxy 3.1+ keeps one request per connection.
_TOGETHER = (PIPELINING,)

_MAJOR_VERSION = SPOP_VERSION.partition(b".")[0]


@dataclass(frozen=True)
class Agreement:
    """What both sides hold to from the handshake on."""

    max_frame_bytes: int
    capabilities: tuple[bytes, ...]
    engine_id: bytes
    is_health_check: bool

    @cached_property
    def frame(self) -> bytes:
        """The AGENT-HELLO that says so (SPOE.txt 3.2.5)."""
        return encode_frame(
            FrameType.AGENT_HELLO,
            (
                (b"version", DataType.STRING, SPOP_VERSION),
                (b"max-frame-size", DataType.UINT32, self.max_frame_bytes),
                (b"capabilities", DataType.STRING, b",".join(self.capabilities)),
            ),
        )


def negotiate(offer: Mapping[bytes, Value], our_max_frame_bytes: int) -> Agreement:
    """Answer a HAPROXY-HELLO (SPOE.txt 3.2.4). Unknown keys and capabilities are skipped.

    Raises ProtocolError: 5, 6, 7 for a missing key, 8 for the version, 9 for the size, 4 for a
    value of the wrong type.
    """
    versions = _string(offer, b"supported-versions", StatusCode.VERSION_NOT_FOUND)
    max_frame_bytes = _max_frame_bytes(offer)
    offered = _string(offer, b"capabilities", StatusCode.CAPABILITIES_NOT_FOUND)
    if not any(_is_spoken(version) for version in versions.split(b",")):
        raise ProtocolError(StatusCode.UNSUPPORTED_VERSION, "no version offered is 2.x")
    theirs = {name.strip() for name in offered.split(b",")}
    return Agreement(
        # SPOE.txt 3.2.5: must not exceed the peer's offer.
        max_frame_bytes=min(max_frame_bytes, our_max_frame_bytes),
        capabilities=(*(name for name in _TOGETHER if name in theirs), *_OURS_ALONE),
        engine_id=_string(offer, b"engine-id") if b"engine-id" in offer else b"",
        is_health_check=_is_health_check(offer),
    )


def _is_spoken(version: bytes) -> bool:
    """Tell whether one entry of supported-versions includes the version we speak.

    SPOE.txt 3.2.4: who announces 2.1 supports 2.0 as well; who announces 1.5 does not.
    """
    major, _, minor = version.strip().partition(b".")
    return major == _MAJOR_VERSION and minor.isdigit()


def _max_frame_bytes(offer: Mapping[bytes, Value]) -> int:
    if b"max-frame-size" not in offer:
        raise ProtocolError(StatusCode.MAX_FRAME_SIZE_NOT_FOUND, "no max-frame-size in HELLO")
    size = offer[b"max-frame-size"]
    if isinstance(size, bool) or not isinstance(size, int):
        raise ProtocolError(StatusCode.INVALID_FRAME, "max-frame-size is not an integer")
    if size < MIN_MAX_FRAME_BYTES:
        raise ProtocolError(
            StatusCode.BAD_MAX_FRAME_SIZE,
            f"max-frame-size {size} is below {MIN_MAX_FRAME_BYTES}",
        )
    return size


def _is_health_check(offer: Mapping[bytes, Value]) -> bool:
    """Look at the value: `healthcheck=false` is no health check."""
    value = offer.get(b"healthcheck", False)
    if not isinstance(value, bool):
        raise ProtocolError(StatusCode.INVALID_FRAME, "healthcheck is not a boolean")
    return value


def _string(
    offer: Mapping[bytes, Value], key: bytes, missing: StatusCode = StatusCode.INVALID_FRAME
) -> bytes:
    if key not in offer:
        raise ProtocolError(missing, f"no {key.decode()} in HELLO")
    value = offer[key]
    if isinstance(value, bytes) and not isinstance(value, Address):
        return value
    raise ProtocolError(StatusCode.INVALID_FRAME, f"{key.decode()} is not a string")
