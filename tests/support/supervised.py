"""A supervisor over stand-in workers, as a program: `python -m tests.support.supervised HOW`.

The workers answer each connection with their index and pid, and die as HOW says.
"""

import os
import select
import signal
import sys
import time
from functools import partial

from spoa.config.file import load
from spoa.log import configure
from spoa.supervisor.service import serve
from spoa.worker.worker import BOOT_FAILURE, Order


def stand_in(how: str, order: Order) -> None:
    """Do a worker's part: beat, accept, end on SIGTERM."""
    if how == "boot-failure":
        sys.exit(BOOT_FAILURE)
    if how == "dies-at-boot":
        sys.exit(1)
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    if how == "stuck":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mine = order.counters.worker(order.index)
    mine.store_up(is_up=how != "without-redis")
    while not signals:
        mine.heartbeat(time.monotonic())
        ready, _, _ = select.select(order.listeners, [], [], 0.1)
        for listener in ready:
            client, _ = listener.accept()
            mine.decided(b"demo", b"ok", 1)
            client.sendall(f"{order.index} {os.getpid()}".encode())
            client.close()


if __name__ == "__main__":
    config = load()
    configure(config.log)
    sys.exit(serve(config, partial(stand_in, sys.argv[1])))
