"""Workers with an error of our own planted in them: our code is not known to raise by itself.

As a program, `python -m tests.support.planted WHERE` is `kat serve` with such workers.
"""

import sys
from collections.abc import Sequence
from functools import partial

from spoa.config.file import load
from spoa.log import configure
from spoa.supervisor.service import serve
from spoa.worker import worker
from spoa.worker.worker import Order
from tokens.check import Check
from tokens.outcome import Outcome
from tokens.policy.gate import Asking, Gate

TRIGGER = b"/planted-fault"
"""The path of the request that meets the error."""


class PlantedFault(Exception):
    """What a bug of ours would raise."""


def plant(where: str) -> None:
    """Let this process raise on TRIGGER.

    While a request is `read`; in the `flush` of its batch, before Redis is asked; or while the
    batch is judged, by what Redis `replied`.
    """
    if where == "read":
        Gate.look = _look  # type: ignore[method-assign]
    else:
        Gate.judge = {"flush": _flush, "replied": _judge}[where]  # type: ignore[method-assign]


_real_look = Gate.look
_real_judge = Gate.judge


def _look(gate: Gate, check: Check) -> Outcome | None:
    _meet((check,))
    return _real_look(gate, check)


def _flush(gate: Gate, checks: Sequence[Check]) -> Asking:
    _meet(checks)
    return _real_judge(gate, checks)


def _judge(gate: Gate, checks: Sequence[Check]) -> Asking:
    judgement = yield from _real_judge(gate, checks)
    _meet(checks)
    return judgement


def _meet(checks: Sequence[Check]) -> None:
    if any(check.path == TRIGGER for check in checks):
        raise PlantedFault


def run(where: str, order: Order) -> None:
    """Be a worker with an error."""
    plant(where)
    worker.run(order)


if __name__ == "__main__":
    config = load()
    configure(config.log)
    sys.exit(serve(config, partial(run, sys.argv[1])))
