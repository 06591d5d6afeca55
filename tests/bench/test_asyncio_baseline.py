import pytest

from bench.peers.asyncio_baseline import (
    GOODBYE,
    HELLO,
    pack,
    read_message,
    read_varint,
    set_var,
    string,
    varint,
)
from spoa.bench.load.corpus import mint
from spoa.bench.load.frames import HEAD_BYTES, IDS_BYTES, LENGTH, encode_at, encode_ids
from spoa.bench.load.prepared import encode_request
from spoa.bench.scenario import Scenario
from spoa.spop.codec import decode_kv_list, decode_notify, encode_set_var
from spoa.spop.constants import FrameType, Scope
from spoa.spop.varint import encode_varint


@pytest.mark.parametrize("number", [0, 239, 240, 2287, 2288, 264_431, 264_432, 2**40, 2**64 - 1])
def test_varints_are_those_of_the_protocol(number: int) -> None:
    """It writes what our codec writes, and reads it back."""
    encoded = varint(number)
    assert encoded == encode_varint(number)
    assert read_varint(b"x" + encoded, 1) == (number, 1 + len(encoded))


@pytest.mark.parametrize("scenario", [Scenario.CONSUME, Scenario.SESSION])
def test_it_reads_every_argument_of_a_request(scenario: Scenario) -> None:
    """Strings, addresses, numbers and NULL: as our codec does."""
    token = mint(1)[0]._replace(session=b"s")
    frame = encode_request(0, encode_ids(0), token, scenario.case) + encode_at(1.7e9)
    read = read_message(frame[LENGTH.size :], HEAD_BYTES - LENGTH.size + IDS_BYTES)
    assert read == dict(decode_notify(frame[HEAD_BYTES:]).messages[0].args)


def test_what_it_writes_is_spop() -> None:
    """Its HELLO, its variables and its DISCONNECT are what they should be."""
    assert HELLO[LENGTH.size] == FrameType.AGENT_HELLO
    assert decode_kv_list(HELLO[HEAD_BYTES + 2 :])[b"capabilities"] == b"pipelining"
    assert GOODBYE[LENGTH.size] == FrameType.AGENT_DISCONNECT
    assert decode_kv_list(GOODBYE[HEAD_BYTES + 2 :])[b"status-code"] == 0
    assert set_var(b"user", string(b"x" * 300)) == encode_set_var(
        Scope.TRANSACTION, b"user", b"x" * 300
    )
    assert LENGTH.unpack_from(pack(FrameType.ACK, b"abc")) == (8,)
