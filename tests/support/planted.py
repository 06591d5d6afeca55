"""Workers with an error of our own planted in them: our code is not known to raise by itself.

As a program, `python -m tests.support.planted WHERE` is `kat serve` with such workers.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from spoa.config.file import load
from spoa.counters import WorkerCounters
from spoa.log import configure
from spoa.supervisor.service import serve
from spoa.worker import worker
from spoa.worker.worker import Order
from tokens.check import Check
from tokens.outcome import Outcome
from tokens.policy.gate import Gate
from tokens.question import Question, Reply
from tokens.store.primary import Primary
from tokens.store.wire import Settle, StoreUnavailable

TRIGGER = b"/planted-fault"
"""The path of the request that meets the error."""


class PlantedFault(Exception):
    """What a bug of ours would raise."""


def plant(where: str) -> None:
    """Let this process raise on TRIGGER.

    While a request is `read`; in the `flush` of any batch, before Redis is asked; or while its
    batch is judged, by what Redis `replied`. These are places where a compiled caller, too, looks
    for a method by its name.
    """
    match where:
        case "read":
            Gate.look = _look  # type: ignore[method-assign]
        case "flush":
            WorkerCounters.batch = _flush  # type: ignore[method-assign]
        case _:
            Primary.execute = _judge  # type: ignore[method-assign]


_real_look = Gate.look
_real_execute = Primary.execute


def _look(gate: Gate, check: Check) -> Outcome | None:
    _meet((check.path,))
    return _real_look(gate, check)


def _flush(_counters: WorkerCounters, _size: int) -> None:
    raise PlantedFault


def _judge(
    store: Primary, questions: Sequence[Question], settle: Settle, *rest: Any, **named: Any
) -> None:
    def settle_and_meet(result: list[Reply] | StoreUnavailable) -> None:
        _meet(word for question in questions for word in question.tail)
        settle(result)

    _real_execute(store, questions, settle_and_meet, *rest, **named)


def _meet(words: Iterable[bytes]) -> None:
    if TRIGGER in words:
        raise PlantedFault


def run(where: str, order: Order) -> None:
    """Be a worker with an error."""
    plant(where)
    worker.run(order)


if __name__ == "__main__":
    config = load()
    configure(config.log)
    sys.exit(serve(config, partial(run, sys.argv[1])))
