"""An agent alone, between links and a Redis that do what the test says, on a loop of its own."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from types import GeneratorType
from typing import cast

import redis

from spoa.config.sections import Limits
from spoa.counters import Counters
from spoa.spop.codec import Notify, decode_notify
from spoa.worker.age import AgeGauge
from spoa.worker.agent import Agent
from spoa.worker.answers import Answers
from tests.support import frames
from tests.support.asking import Asker
from tests.support.spop_client import Answer, Argument, check_http, now_ms, read_answer
from tokens.audit import Journal
from tokens.policy import cut, redeem
from tokens.policy.gate import Gate
from tokens.policy.rule import AclRule, Mode
from tokens.question import Question, Reply
from tokens.record import Keys
from tokens.store.wire import Settle, StoreUnavailable
from tokens.token import digest, mint

RECORD = b'{"v":1,"sub":"user1","acl":["demo","wiki","office","vault"],"ttl":60}'
DEADLINE_MS = 250
GIVE_UP_S = 20.0

# Not the default: a busy machine must not fail what is no test of deadlines.
PATIENT_MS = 10_000
KEYS = Keys()

RULES = {
    "demo": AclRule(),
    "wiki": AclRule(Mode.SESSION),
    "office": AclRule(Mode.GRANT),
    "ssh": AclRule(Mode.IP),
    "vault": AclRule(Mode.IP_TOKEN),
}


class Link:
    """A connection to HAProxy that keeps what is written to it."""

    def __init__(self) -> None:
        self.is_open = True
        self.max_frame_bytes = 16380
        self.ages = AgeGauge()
        self.answers: list[Answer] = []
        self.writes: list[int] = []
        """How many ACKs each write held."""
        self._queue: list[bytes] = []
        self._ids = map(frames.ids, count())

    def queue(self, ack: bytes) -> None:
        self._queue.append(ack)

    def flush(self) -> None:
        self.writes.append(len(self._queue))
        self.answers += map(read_answer, self._queue)
        self._queue.clear()

    @property
    def reasons(self) -> list[str]:
        return [answer.reason for answer in self.answers]

    def notify(self, *messages: bytes) -> Notify:
        return decode_notify(next(self._ids) + b"".join(messages))

    def check(self, token: Argument = "", **changes: Argument) -> Notify:
        """Make a NOTIFY with our message, and with a token of its own unless one is given."""
        return self.notify(check_http(token=mint() if token == "" else token, **changes))

    def checks(self, number: int) -> list[Notify]:
        return [self.check() for _ in range(number)]


@dataclass
class Asked:
    """One `execute`, to be settled by the test."""

    questions: Sequence[Question]
    settle: Settle
    give_up_at: float
    is_repeatable: bool

    @property
    def commands(self) -> list[str]:
        """The first word of each command; a script's own name in place of EVALSHA."""
        return [_name(question) for question in self.questions]

    @property
    def is_note(self) -> bool:
        """Whether nobody waits for it: the audit, and what is tidied up."""
        return set(self.commands) <= {"XADD", "ZREM"}

    @property
    def calls(self) -> list[Question]:
        """The calls of redeem.lua."""
        return [question for question in self.questions if _name(question) == "redeem"]

    @property
    def tokens(self) -> int:
        return sum(map(_tokens, self.calls))

    def judge(self, judge: Callable[[Question], Reply]) -> None:
        """Settle as told; nothing is revoked, and nobody has a grant."""
        self.settle([_SAID.get(_name(one), judge)(one) for one in self.questions])

    def allow(self) -> None:
        """Settle: tokens are consumed, and whatever is to be written is."""
        self.judge(_yes)

    def ask(self, asker: Asker) -> None:
        """Settle with what Redis says."""
        self.settle(asker.answer(self.questions))


@dataclass
class ScriptedStore:
    """A Redis that replies when the test lets it, or at once with `result`."""

    result: StoreUnavailable | None = None
    asked: list[Asked] = field(default_factory=list)
    distrusted: list[str] = field(default_factory=list)

    def execute(
        self,
        questions: Sequence[Question],
        settle: Settle,
        give_up_at: float,
        *,
        is_repeatable: bool = True,
    ) -> None:
        assert questions
        self.asked.append(Asked(questions, settle, give_up_at, is_repeatable))
        if self.result is not None:
            settle(self.result)

    def distrust(self, kind: str, message: str) -> None:
        assert message
        self.distrusted.append(kind)

    async def run(self) -> None:
        """Nothing to keep."""

    @property
    def batches(self) -> list[Asked]:
        """What somebody waits for: all but the notes."""
        return [asked for asked in self.asked if not asked.is_note]

    @property
    def notes(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.is_note]

    @property
    def sizes(self) -> list[int]:
        """How many tokens each batch held."""
        return [asked.tokens for asked in self.batches]

    def allow(self, *indexes: int) -> None:
        batches = self.batches
        for index in indexes:
            batches[index].allow()


_SCRIPTS = {redeem.SHA: "redeem", cut.SHA: "cut"}


def _name(question: Question) -> str:
    name, script = cast("tuple[bytes, bytes]", question.head[:2])
    return _SCRIPTS.get(script, "grant") if name == b"EVALSHA" else name.decode()


def _tokens(question: Question) -> int:
    return int(question.head[2])


def _yes(question: Question) -> Reply:
    return reply(question) if _name(question) == "redeem" else 1


def _uncut(question: Question) -> Reply:
    (version,) = question.tail
    return [now_ms(), b"", []] if version == cut.NEVER_READ else [now_ms(), version]


_SAID: dict[str, Callable[[Question], Reply]] = {
    "cut": _uncut,
    "ZMSCORE": lambda question: [None] * (len(question.head) - 2),
}


def claims(question: Question) -> list[bytes]:
    """Return the claims of a call of redeem.lua: a deadline, then eight values for each token."""
    return [claim for claim in question.tail[1::8] if isinstance(claim, bytes)]


def reply(question: Question, code: bytes | None = None, detail: bytes = RECORD) -> list[Reply]:
    """Answer one call as redeem.lua does, the same for all of its tokens: consumed, or `code`."""
    keys = cast("tuple[bytes, ...]", question.head[3:])
    assert len(keys) == _tokens(question)
    now, said = now_ms(), code
    head: list[Reply] = [now, claims(question)[0]]
    return [*head, *(value for key in keys for value in (key[-64:][:12], said or now, detail))]


def waiting_generators() -> list[object]:
    """Find the gate's generators that were left half way, whichever form the gate has."""
    return [it for it in gc.get_objects() if _waits(it) or _waits_compiled(it)]


def _waits(something: object) -> bool:
    is_generator = isinstance(something, GeneratorType)
    return is_generator and something.gi_frame and something.__qualname__.startswith("Gate.")


def _waits_compiled(something: object) -> bool:
    """Tell whether it is one that holds something: mypyc keeps an empty one for the next time."""
    is_generator = type(something).__name__.endswith("_Gate_gen")
    return is_generator and any(not isinstance(it, type) for it in gc.get_referents(something))


class Scene:
    """An agent, its store, and its counters."""

    def __init__(self, **limits: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.faults: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.counters = Counters(list(RULES), 1)
        self.store = ScriptedStore()
        settings = Limits.model_validate({"deadline_ms": PATIENT_MS, **limits})
        gate = Gate(RULES, KEYS, settings.deadline_ms, Journal(KEYS.audit, 1000))
        pen = self.counters.worker(0)
        self.agent = Agent(gate, self.store, Answers(RULES), settings, pen)

    async def ask(self, link: Link, *notifies: Notify) -> None:
        """Have the agent receive these, and let the turn end."""
        self.agent.receive(link, notifies)
        await turn()

    def decided(self, reason: str, acl: str = "demo") -> int:
        return self.cell(self.counters.layout.request(acl, reason))

    @property
    def in_flight(self) -> int:
        return self.cell(self.counters.layout.in_flight)

    @property
    def opened(self) -> tuple[int, int]:
        """How many sessions and grants were opened, as counted."""
        layout = self.counters.layout
        return self.cell(layout.sessions_opened), self.cell(layout.grants_opened)

    @property
    def audit_lost(self) -> int:
        return self.cell(self.counters.layout.audit_lost)

    def cell(self, index: int) -> int:
        return self.counters.block(0)[0][index]


Test = Callable[[Scene], Coroutine[None, None, None]]


def limited(**limits: int) -> Callable[[Test], Callable[[], None]]:
    """Make a decorator like `scene`, for an agent with these limits."""

    def decorate(test: Test) -> Callable[[], None]:
        @wraps(test)
        def run() -> None:
            async def play() -> None:
                scene = Scene(**limits)
                await test(scene)
                assert not scene.faults

            asyncio.run(play())

        # pytest reads the signature of what is wrapped, and would look for a fixture `scene`.
        del run.__wrapped__  # type: ignore[attr-defined]
        return run

    return decorate


scene = limited()
"""Runs the test on a loop, with an agent; what the loop catches fails it."""

hasty = limited(deadline_ms=DEADLINE_MS)
"""The same, where deadlines pass."""


async def turn() -> None:
    """Let the loop finish this turn."""
    await asyncio.sleep(0)


def issue(client: redis.Redis) -> str:
    """Put a token into Redis; return its text."""
    token = mint()
    client.set(KEYS.token(digest(token.encode())), RECORD, ex=60)
    return token


async def until_noted(scene: Scene) -> None:
    """Wait until the agent has something written down."""
    async with asyncio.timeout(GIVE_UP_S):
        while not scene.store.notes:  # noqa: ASYNC110 - the agent has no event for it
            await asyncio.sleep(0.001)


async def idle(scene: Scene) -> None:
    """Wait until nobody waits for an answer."""
    await asyncio.wait_for(scene.agent.drain(), GIVE_UP_S)
