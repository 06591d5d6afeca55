from collections.abc import Iterator

import pytest
import redis

from bench.peers.task import Plain
from spoa.bench.load.corpus import Issued, mint
from spoa.bench.load.frames import encode_ids
from spoa.bench.load.generator import Tally
from spoa.bench.load.prepared import UnexpectedAnswer
from spoa.bench.servers import private_redis
from spoa.spop.codec import encode_ack, encode_frame, encode_set_var
from spoa.spop.constants import DataType, FrameType, Scope
from spoa.spop.value import Value

TOKEN = mint(1)[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.socket


def ack(index: int = 0, **values: Value) -> bytes:
    usual: dict[str, Value] = {"allow": True, "user": TOKEN.user, "reason": b"ok"}
    pairs = [(name.encode(), value) for name, value in (usual | values).items()]
    actions = b"".join(encode_set_var(Scope.TRANSACTION, *pair) for pair in pairs)
    return encode_ack(encode_ids(index), actions)


def test_a_right_answer_becomes_the_template_of_all() -> None:
    """Filled with another request's ids and user, it is that request's ACK."""
    template = Plain().template(ack(), TOKEN).text
    other = Issued(b"", b"", b"user7654321")
    filled = template % {b"ids": encode_ids(5), b"user": other.user, b"kid": b""}
    assert filled == ack(5, user=other.user)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (ack(reason=b"unknown"), "reason b'unknown'"),
        (ack(allow=False), "allow False"),
        (ack(allow=1), "allow 1"),
        (ack(user=b"somebody"), "user"),
        (ack(9), "instead of an ACK"),
        (ack()[:-1], "runs past"),
        (encode_frame(FrameType.AGENT_DISCONNECT, ((b"x", DataType.UINT32, 4),)), "instead of"),
    ],
)
def test_a_wrong_answer_is_no_template(wrong: bytes, fault: str) -> None:
    """Meaning, type, ids and frame are judged before anything is compared with it."""
    with pytest.raises(UnexpectedAnswer, match=fault):
        Plain().template(wrong, TOKEN)


def test_who_cannot_say_a_bool_may_say_one() -> None:
    """The integer 1 is a yes of that subject alone, and True is none of his."""
    assert Plain(yes=1).template(ack(allow=1), TOKEN)
    with pytest.raises(UnexpectedAnswer, match="allow True"):
        Plain(yes=1).template(ack(), TOKEN)


@pytest.mark.parametrize("answered", [30, 29, 31])
def test_redis_has_the_last_word(store: str, answered: int) -> None:
    """So many tokens are gone as were answered ok, or the difference is wrong; none is left."""
    task = Plain()
    tokens = task.prepare(store, 50)
    with redis.Redis(unix_socket_path=store) as client:
        for token in tokens[:30]:
            assert client.getdel(b"token:" + token.text) == token.user
        tally = Tally(right=answered)
        task.verify(store, tokens, tally)
        assert tally.wrong.total() == abs(answered - 30)
        assert client.dbsize() == 0
