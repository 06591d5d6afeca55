"""The first lines that run in a worker process, before the worker itself."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

from spoa.log import log
from spoa.supervisor.signals import SUPERVISORS_SIGNALS

_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


def begin(run: Callable[[T], None], order: T, parent: int) -> None:
    """Run `run(order)` in a process that ends when its supervisor does.

    Ctrl-C in a terminal reaches every process; here only the supervisor heeds it and passes a
    SIGTERM on. It withholds its signals while it starts us, so none can arrive before this line.
    """
    for number in SUPERVISORS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISORS_SIGNALS)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")
    try:
        run(order)
    except Exception:  # noqa: BLE001 - whatever ends this worker deserves a line like any other
        log.exception("worker broke")
        sys.exit(1)
