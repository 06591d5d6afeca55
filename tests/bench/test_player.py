from pathlib import Path

import pytest
import redis

from bench.corpus import Issued, issue, mint
from bench.generator import Tally
from bench.player import Job, Scenario, verify
from bench.servers import Server, private_redis


def consume(store: Server, tokens: list[Issued]) -> None:
    with redis.Redis(unix_socket_path=store.socket) as client:
        for token in tokens:
            client.set(b"kat:t:" + token.digest, b"consumed claim 1 - {}", xx=True, keepttl=True)


@pytest.mark.parametrize(
    ("consumed", "answered_ok", "wrong"),
    [
        (9, 9, {}),
        (7, 9, {"7 consumed in Redis, 9 answered ok": 2}),
        (9, 8, {"9 consumed in Redis, 8 answered ok": 1}),
    ],
)
def test_redis_has_the_last_word(
    tmp_path: Path, consumed: int, answered_ok: int, wrong: dict[str, int]
) -> None:
    """A yes without a consumed token, and a consumed token without a yes, are both wrong."""
    tokens = mint(9)
    tally = Tally(right=answered_ok)
    with private_redis(tmp_path) as store:
        issue(store.socket, tokens)
        consume(store, tokens[:consumed])
        job = Job(Scenario.CONSUME, 9, 1, 1, 1.0, 9, "", store.socket, ())
        verify(job, tokens, tally)
    assert tally.wrong == wrong
