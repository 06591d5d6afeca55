"""redeem.lua called the plain way: one ask per token, one answer per ask."""

from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import redis

from tokens.policy.redeem import SCRIPT

CLIENT = "192.0.2.7 192.0.2.0/24 192.0.0.0/16 192.0.0.0/8"

_numbers = count()


@dataclass(frozen=True)
class Answer:
    """What is said of one token. `ok` stands for the moment of its issue, which is kept apart."""

    code: str
    detail: bytes = b""
    issued_ms: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Ask:
    """One request: its token's key, and what the agent knows of it."""

    key: bytes
    claim: str = "c0ffee.1"
    acl: str = "wiki"
    src: str = CLIENT
    host: str = "wiki.example"
    method: str = "GET"
    path: str = "/x/y"
    nonce: str = ""
    room: int = 8000

    def arguments(self) -> tuple[str | int, ...]:
        texts = (self.claim, self.acl, self.src, self.host, self.method, self.path, self.nonce)
        return (*texts, self.room)

    def with_(self, binding: str, value: str) -> "Ask":
        """Ask the same with one thing else."""
        changed: dict[str, Any] = {binding: value}
        return replace(self, **changed)


def _answer(code: int | bytes, detail: bytes) -> Answer:
    if isinstance(code, int):
        return Answer("ok", detail, code)
    return Answer(code.decode(), detail)


class Redeemer:
    """Puts records under fresh keys of one server, and asks for them."""

    def __init__(self, client: redis.Redis, deadline_ms: int = 60_000) -> None:
        self.client = client
        self.deadline_ms = deadline_ms
        self.sha = client.script_load(SCRIPT)
        self.replid = client.info("replication")["master_replid"]

    def put(self, raw: bytes, *, px: int | None = 60_000) -> bytes:
        key = b"kat:t:%064x" % next(_numbers)
        self.client.set(key, raw, px=px)
        return key

    def value(self, key: bytes) -> bytes:
        value = self.client.get(key)
        assert isinstance(value, bytes)
        return value

    def now_ms(self) -> int:
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds // 1000

    def redeem(self, *asks: Ask, fence_ms: int = 0) -> list[Answer]:
        """Ask for all in one call; every reply is looked at for length and kids."""
        keys = [ask.key for ask in asks]
        arguments = [argument for ask in asks for argument in ask.arguments()]
        shared = (self.replid, fence_ms, self.deadline_ms)
        before_ms = self.now_ms()
        reply = self.client.evalsha(self.sha, len(keys), *keys, *shared, *arguments)
        now_ms, *answers = reply
        assert before_ms <= now_ms <= self.now_ms()
        if asks:
            assert answers.pop(0) == asks[0].claim.encode()
        assert len(answers) == 3 * len(asks)
        assert answers[0::3] == [key[-64:][:12] for key in keys]
        return list(map(_answer, answers[1::3], answers[2::3]))

    def redeem_one(self, ask: Ask, *, fence_ms: int = 0) -> Answer:
        (answer,) = self.redeem(ask, fence_ms=fence_ms)
        return answer
