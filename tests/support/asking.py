"""A gate's questions put to a real Redis one by one, as a store would, with room in between."""

from collections.abc import Iterable, Sequence

import hiredis
import redis

from tokens.check import Check
from tokens.policy.gate import SCRIPTS, Asking, Gate, Judgement
from tokens.question import Fence, Question, Reply


class Asker:
    """Answers questions from one server. Errors are replies, as they are on a wire."""

    def __init__(self, client: redis.Redis, *, since_ms: int = 0) -> None:
        self.client = client
        for script in SCRIPTS:
            client.script_load(script)
        self.fence = Fence(client.info("replication")["master_replid"].encode(), since_ms)

    def answer(self, questions: Iterable[Question]) -> list[Reply]:
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Reply:
        connection = self.client.connection_pool.get_connection()
        # redis-py takes the first word off an error, by which a gate tells one from another.
        reader = hiredis.Reader()
        try:
            connection.send_command(*question.write(self.fence))
            while (reply := reader.gets()) is False:
                data = connection._sock.recv(2**16)
                assert data, "Redis closed the connection"
                reader.feed(data)
        finally:
            self.client.connection_pool.release(connection)
        return reply

    def run(self, asking: Asking) -> Judgement:
        """Answer until it has judged."""
        replies: list[Reply] | None = None
        while True:
            try:
                questions = next(asking) if replies is None else asking.send(replies)
            except StopIteration as end:
                return end.value
            replies = self.answer(questions)


class Steps:
    """One asking, advanced by hand: what Redis runs, and when the gate hears of it.

    `ask` lets Redis run what is asked, or so many commands of it: they have happened, and nobody
    has been told. `hear` tells the gate. `again` is a lost reply: the same questions once more.
    """

    def __init__(self, asker: Asker, asking: Asking) -> None:
        self._asker = asker
        self._asking = asking
        self._replies: list[Reply] = []
        self.judgement: Judgement | None = None
        self.questions = next(asking)

    @property
    def commands(self) -> list[bytes]:
        return [bytes(question.head[0]) for question in self.questions]

    @property
    def asked(self) -> int:
        """How many of the questions Redis has run already."""
        return len(self._replies)

    def ask(self, number: int | None = None) -> None:
        done = self.asked
        end = len(self.questions) if number is None else done + number
        self._replies += self._asker.answer(self.questions[done:end])

    def again(self) -> None:
        self._replies = []
        self.ask()

    def hear(self) -> None:
        assert len(self._replies) == len(self.questions), "Redis was not asked everything"
        replies, self._replies = self._replies, []
        try:
            self.questions = self._asking.send(replies)
        except StopIteration as end:
            self.judgement = end.value

    def give_up(self) -> None:
        """Wait no more: whatever Redis ran has happened, and the gate never hears of it."""
        self._asking.close()

    def finish(self) -> Judgement:
        while self.judgement is None:
            self.ask()
            self.hear()
        return self.judgement


def judged(gate: Gate, checks: Sequence[Check]) -> Asking:
    """Judge a batch to its end, the tokens that had to wait included, as the agent does."""
    judgement = yield from gate.judge(checks)
    if judgement.cleared:
        places = judgement.cleared
        further = yield from gate.consume(judgement, places)
        for place, decision in zip(places, further.decisions, strict=True):
            judgement.decisions[place] = decision
        judgement.openings += [(places[index], opening) for index, opening in further.openings]
        judgement.faults |= further.faults
    return judgement
