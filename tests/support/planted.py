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
from tokens.gate import Check, Fence, Gate, Outcome, Redemption

TRIGGER = b"/planted-fault"
"""The path of the request that meets the error."""


class PlantedFault(Exception):
    """What a bug of ours would raise."""


def plant(where: str) -> None:
    """Let this process raise on TRIGGER: while a request is `read`, or in the batch's `flush`."""
    if where == "read":
        Gate.refuse = _refuse  # type: ignore[method-assign]
    else:
        Gate.redeem = _redeem  # type: ignore[method-assign]


_real_refuse = Gate.refuse
_real_redeem = Gate.redeem


def _refuse(gate: Gate, check: Check) -> Outcome | None:
    if check.path == TRIGGER:
        raise PlantedFault
    return _real_refuse(gate, check)


def _redeem(gate: Gate, checks: Sequence[Check], fence: Fence) -> Redemption:
    if any(check.path == TRIGGER for check in checks):
        raise PlantedFault
    return _real_redeem(gate, checks, fence)


def run(where: str, order: Order) -> None:
    """Be a worker with an error."""
    plant(where)
    worker.run(order)


if __name__ == "__main__":
    config = load()
    configure(config.log)
    sys.exit(serve(config, partial(run, sys.argv[1])))
