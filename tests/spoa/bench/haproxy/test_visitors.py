from collections import Counter
from pathlib import Path

import pytest
import redis

from spoa.bench.haproxy.gateway import Subject
from spoa.bench.haproxy.visitors import invite
from spoa.bench.servers import private_redis
from tokens.policy.session import session_digest


@pytest.mark.parametrize(
    ("right", "unknown", "wrong"),
    [
        (3, 0, {}),
        (2, 1, {}),
        (2, 0, {"3 tokens spent, 2 answered 200": 1}),
        (5, 9, {"3 tokens spent, 5 answered 200": 2}),
    ],
)
@pytest.mark.parametrize("spend", ["consume", "take"])
def test_redis_has_the_last_word(
    tmp_path: Path, spend: str, right: int, unknown: int, wrong: dict[str, int]
) -> None:
    """A yes without a token spent is wrong, and so is a token spent without a yes."""
    found = Counter[str]()
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        visitors = invite(Subject.KAT, store.socket, 10)
        for token in visitors.tokens[:3]:
            key = b"kat:t:" + token.digest
            client.set(key, "consumed c 1 - {}") if spend == "consume" else client.getdel(key)
        visitors.verify(right, unknown, found)
        assert client.keys("kat:t:*") == []
    assert found == wrong


def test_a_session_that_fell_is_wrong(tmp_path: Path) -> None:
    """All sessions stand after a round, however often they came."""
    found = Counter[str]()
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        visitors = invite(Subject.KAT_SESSION, store.socket, 10)
        assert client.delete(b"kat:s:" + session_digest(visitors.tokens[0].session)) == 1
        visitors.verify(10, 0, found)
    assert found == {"sessions that do not stand any more": 1}


def test_who_is_not_asked_for_needs_no_redis() -> None:
    """Without an agent that consumes, tokens go round, and nothing is written anywhere."""
    visitors = invite(Subject.NO_FILTER, "/nowhere", 1_000_000)
    assert len(visitors.lines()) < 100_000
    visitors.verify(1_000_000, 0, Counter())
