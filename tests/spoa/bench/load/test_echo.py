import pytest

from spoa.bench.load.corpus import mint
from spoa.bench.load.echo import answer
from spoa.bench.load.frames import LENGTH, decode_actions, encode_at, encode_hello, encode_ids
from spoa.bench.load.prepared import encode_request
from spoa.bench.scenario import Scenario
from spoa.spop.constants import FrameType

FRAMES = [
    encode_request(index, encode_ids(index), token, Scenario.CEILING.case) + encode_at(1.7e9)
    for index, token in enumerate(mint(3))
]


def test_hello_is_answered() -> None:
    """A connection to the echo agent opens as one to a real agent does."""
    acks, rest = answer(encode_hello(b"engine"))
    assert (acks[LENGTH.size], rest) == (FrameType.AGENT_HELLO, b"")


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 100])
def test_every_whole_frame_gets_its_ack(cut: int) -> None:
    """One ACK per frame, with its ids, and the bytes of a cut frame are kept."""
    data = b"".join(FRAMES)
    acks, rest = answer(data + FRAMES[0][:cut])
    size = len(acks) // len(FRAMES)
    assert rest == FRAMES[0][:cut]
    for index in range(len(FRAMES)):
        ack = acks[index * size : (index + 1) * size]
        assert encode_ids(index) in ack
        assert decode_actions(ack)[b"reason"] == b"echo"


def test_a_cut_frame_alone_gets_nothing() -> None:
    """Half a question is not answered."""
    assert answer(FRAMES[0][:100]) == (b"", FRAMES[0][:100])
