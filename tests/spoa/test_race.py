"""Thousands of tokens, eight clients for each of them, two workers, and replies that go astray."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
import redis

from spoa.config.acl import Acl
from tests.support.race import Requests, Told, ask_all
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.running_worker import RunningWorker, running_worker
from tests.support.spop_client import SpopClient
from tokens.policy.rule import Mode
from tokens.policy.session import session_digest
from tokens.record import Keys
from tokens.token import digest, mint

KEYS = Keys()
SEED = 20_261_122
TOKENS = 10_000
SESSIONS = 1_500
WORKERS = 2
CLIENTS = 8
BLOCK = 200
"""Each client takes the tokens of a block in an order of its own, some of them at a time."""

DEADLINE_MS = 500
FAULTS = (Step.DROP, Step.CUT, Step.HALF, Step.TWICE, Step.SWAP, Step.LATE)

EXCUSES = {"store_unavailable", "deadline"}
"""What a visitor is told who may have been first."""

ACLS = {"strict": Acl(), "session": Acl(mode=Mode.SESSION)}


@pytest.fixture
def proxy(redis_server: RedisServer, place: Path) -> Iterator[RedisProxy]:
    with RedisProxy(redis_server.socket, place) as proxy:
        yield proxy


class Field:
    """The workers, and the clients that race for the same things through all of them."""

    def __init__(self, workers: Sequence[RunningWorker], clients: Sequence[SpopClient]) -> None:
        self.workers = workers
        self.clients = clients
        self._chance = Random(SEED)

    def race(self, requests: Requests, values: Sequence[str], *, at_once: int) -> list[list[Told]]:
        """Let every client ask for every value once; return what was told, for each value.

        No round begins while a worker is without Redis: that would be over at once.
        """
        heard: list[list[Told]] = [[] for _ in values]
        for start in range(0, len(values), BLOCK):
            block = range(start, min(start + BLOCK, len(values)))
            orders = [self._chance.sample(block, len(block)) for _ in self.clients]
            for at in range(0, len(block), at_once):
                for worker in self.workers:
                    worker.wait_store()
                asked = [order[at : at + at_once] for order in orders]
                texts = [[values[which] for which in own] for own in asked]
                for own, told in zip(asked, ask_all(self.clients, requests, texts), strict=True):
                    for which, one in zip(own, told, strict=True):
                        heard[which].append(one)
        return heard


@pytest.fixture
def field(proxy: RedisProxy, place: Path) -> Iterator[Field]:
    with ExitStack() as stack:
        workers = []
        for number in range(WORKERS):
            own = place / str(number)
            own.mkdir()
            store = {"url": proxy.url}
            worker = running_worker(own, store=store, acl=ACLS, deadline_ms=DEADLINE_MS)
            workers.append(stack.enter_context(worker))
        clients = [workers[number % WORKERS].greeted() for number in range(CLIENTS)]
        for client in clients:
            stack.enter_context(client)
        yield Field(workers, clients)


def disturb(proxy: RedisProxy, rate: float) -> None:
    """Let chance into every connection, from here on."""
    proxy.disturb(SEED, dict.fromkeys(FAULTS, rate))
    proxy.cut()


def issue(client: redis.Redis, number: int, acl: str) -> list[str]:
    """Issue tokens, each to a user of its own."""
    tokens = [mint() for _ in range(number)]
    with client.pipeline(transaction=False) as pipeline:
        for at, token in enumerate(tokens):
            raw = json.dumps({"v": 1, "sub": user(at), "acl": [acl], "ttl": 600})
            pipeline.set(KEYS.token(digest(token.encode())), raw, ex=600)
        pipeline.execute()
    return tokens


def user(number: int) -> str:
    return f"user{number}"


def are_consumed(client: redis.Redis, tokens: Sequence[str]) -> list[bool]:
    values = client.mget([KEYS.token(digest(token.encode())) for token in tokens])
    assert all(values), "tokens outlive the test"
    return [value.startswith(b"consumed ") for value in values]


def judge(heard: Sequence[Sequence[Told]], consumed: Sequence[bool]) -> int:
    """See that nobody was told what cannot be; return how many tokens let somebody in."""
    accepted = 0
    for number, (told, is_consumed) in enumerate(zip(heard, consumed, strict=True)):
        reasons = [one.reason for one in told]
        assert set(reasons) <= {"ok", "replayed", *EXCUSES}
        assert [one.user for one in told if one.reason == "ok"] in ([], [user(number)])
        assert not any(one.user or one.session for one in told if one.reason != "ok")
        assert "ok" in reasons or EXCUSES & set(reasons), "refused, and nobody knows why"
        assert is_consumed or set(reasons) <= EXCUSES, "it is whole: nobody got in or replayed it"
        accepted += "ok" in reasons
    return accepted


def test_eight_race_for_each_of_ten_thousand_tokens(
    client: redis.Redis, proxy: RedisProxy, field: Field
) -> None:
    """Each token lets one of its eight visitors in, or one of them is told that Redis was away.

    Never two of them, and nobody as somebody else.
    """
    tokens = issue(client, TOKENS, "strict")
    disturb(proxy, 0.003)  # a batch has five replies
    heard = field.race(Requests("token", mint(), acl="strict"), tokens, at_once=50)
    accepted = judge(heard, are_consumed(client, tokens))
    assert accepted > 0.9 * TOKENS
    assert proxy.disturbed > 20
    assert sum(worker.asked_again for worker in field.workers) > 10


def test_sessions_are_opened_while_replies_are_lost(
    client: redis.Redis, proxy: RedisProxy, field: Field
) -> None:
    """Who gets a cookie has a session that stands, and is his; who gets none is told why.

    So on every later request, however often replies go astray. And none is there unlisted.
    """
    tokens = issue(client, SESSIONS, "session")
    disturb(proxy, 0.001)  # a batch has five for each session
    with_token = Requests("token", mint(), acl="session", via="query")
    heard = field.race(with_token, tokens, at_once=10)
    judge(heard, are_consumed(client, tokens))
    cookies = {one.session: one.user for told in heard for one in told if one.reason == "ok"}
    opened, different = sum(one.reason == "ok" for told in heard for one in told), len(cookies)
    assert different == opened > SESSIONS / 2
    assert "" not in cookies

    with_cookie = Requests("session", next(iter(cookies)), acl="session", via=None)
    for is_calm in (False, True):
        if is_calm:
            proxy.forget()
            proxy.cut()
        seen = field.race(with_cookie, list(cookies), at_once=20)
        for name, told in zip(cookies.values(), seen, strict=True):
            assert {one.user for one in told if one.reason == "session"} <= {name}
            excuses = {one.reason for one in told} - {"session"}
            assert not excuses if is_calm else excuses <= EXCUSES
    assert proxy.disturbed > 20

    held = {session_digest(cookie.encode()) for cookie in cookies}
    kept = {key.removeprefix(b"kat:s:") for key in client.scan_iter("kat:s:*", 1000)}
    listed = {
        member.removeprefix(b"s:")
        for number in range(SESSIONS)
        for member in client.zrange(KEYS.sub(user(number).encode()), 0, -1)
    }
    assert (len(held - kept), len(kept - listed)) == (0, 0), "cookies of nothing; unlisted ones"


def test_the_session_of_a_neighbour(client: redis.Redis, proxy: RedisProxy, field: Field) -> None:
    """A reply that holds another visitor's session, well-formed as it is, lets nobody in."""
    tokens = issue(client, 2, "session")
    visitor = field.clients[0]
    cookies = [
        visitor.ask(token, acl="session", via="query").variables["session"] for token in tokens
    ]
    digests = [session_digest(cookie) for cookie in cookies if isinstance(cookie, bytes)]
    other = client.get(KEYS.session(digests[1]))
    assert isinstance(other, bytes)
    proxy.plan(b"EVALSHA", b"*1\r\n$%d\r\n%b\r\n" % (len(other), other))
    asked = [visitor.ask(session=cookies[0], acl="session") for _ in range(2)]
    told = [(answer.reason, answer.variables.get("user")) for answer in asked]
    assert told == [("bad_record", None), ("session", b"user0")]
