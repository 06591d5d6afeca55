"""Tokens taken to a store, and what became of them: what stands between check and decision."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import redis

from tests.support.records import GOOD
from tests.support.stores import Keeper, Result, Settlement, settled
from tokens.check import Check
from tokens.policy import cut
from tokens.policy.redeem import MAX_TOKENS_PER_CALL, Call, Redeemer, ReplyMismatch, read_answers
from tokens.question import Reply
from tokens.record import Keys
from tokens.store.wire import StoreUnavailable, error_kind
from tokens.token import digest, mint

# How long Redis takes a second asking for one. Tests skip time, Redis does not.
_CLAIM_MS = 60_000

# A fence that is further ahead is so on purpose.
_FENCE_GRAIN_MS = 20

UNAVAILABLE = "store_unavailable"

_EVERYTHING = cut.Cut()


class Knock:
    """A batch of tokens; when it is settled, an answer for each.

    An answer is the user who is let in, or the reason why nobody is.
    """

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.settlement = Settlement()

    @property
    def is_settled(self) -> bool:
        return bool(self.answers)


class Door:
    """Redeems tokens as the gate does: every batch ends with a look at what is revoked."""

    def __init__(
        self,
        keeper: Keeper,
        client: redis.Redis | redis.RedisCluster,
        tokens_per_call: int = MAX_TOKENS_PER_CALL,
    ) -> None:
        self._keeper = keeper
        self._client = client
        self._redeemer = Redeemer(Keys(), _CLAIM_MS, tokens_per_call)
        self._pass_the_fence()

    def issue(self, user: str = "user1") -> Check:
        check = Check(b"wiki", mint().encode(), b"", b"host", b"GET", b"/", b"", 8000)
        self._client.set(_key(check), GOOD.replace(b"user1", user.encode()), ex=60)
        return check

    def is_whole(self, check: Check) -> bool:
        value = self._client.get(_key(check))
        return isinstance(value, bytes) and value.startswith(b"{")

    def knock(
        self, *checks: Check, then: Callable[[Knock], object] = lambda _: None, **how: Any
    ) -> Knock:
        """Redeem in one batch."""
        knock = Knock()
        calls = self._redeemer.calls(checks)
        questions = [*(call.question for call in calls), cut.ask(Keys().cut, _EVERYTHING)]

        def answer(result: Result) -> None:
            knock.answers = self._read(calls, result)
            then(knock)

        knock.settlement = self._keeper.execute(*questions, then=answer, **how)
        return knock

    async def answers(self, *checks: Check) -> list[str]:
        """Knock, and wait for the answers."""
        await settled(knock := self.knock(*checks))
        return knock.answers

    def _pass_the_fence(self) -> None:
        """Let the ms of the fence pass: TTLs are whole ms, and a token of it may seem older."""
        since_ms = max(map(int, self._client.hvals(Keys().fence)), default=0)
        while 0 <= since_ms + 1 - self._now_ms() < _FENCE_GRAIN_MS:
            pass

    def _now_ms(self) -> int:
        seconds, microseconds = self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _read(self, calls: Sequence[Call], result: Result) -> list[str]:
        nothing = [UNAVAILABLE] * sum(len(call.kids) for call in calls)
        if isinstance(result, StoreUnavailable):
            return nothing
        *of_tokens, last = result
        try:
            if isinstance(last, Exception):
                self._keeper.store.distrust(error_kind(str(last)), str(last))
                return nothing
            cut.read(last, _EVERYTHING)
            return [
                self._answer(code, detail)
                for call, reply in zip(calls, of_tokens, strict=True)
                for _, code, detail in read_answers(call, reply)
            ]
        except ReplyMismatch as mismatch:
            self._keeper.store.distrust("reply", str(mismatch))
            return nothing

    def _answer(self, code: Reply, detail: Reply) -> str:
        match code, detail:
            case int(), bytes(record):
                return str(json.loads(record)["sub"])
            case b"store_error", bytes(fault):
                self._keeper.store.distrust(error_kind(fault.decode()), fault.decode())
                return UNAVAILABLE
            case bytes(reason), _:
                return reason.decode()
            case _:
                raise ReplyMismatch("no code")


def _key(check: Check) -> bytes:
    return Keys().token(digest(check.token))
