"""`kat allowlist`: one Redis, several HAProxy, and nobody waits for anybody else."""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Final

from haproxy.allowlist.board import Board
from haproxy.allowlist.feed import Source, follow
from haproxy.allowlist.report import Report
from haproxy.allowlist.target import Order, Target
from tokens.admin.mirror import Snapshot

_STATUS_S: Final = 1.0


def keep(source: Source, orders: Sequence[Order], notify: Callable[[str], None]) -> None:
    """Keep all of them, until SIGTERM, SIGINT or SIGQUIT. `notify` speaks to systemd.

    At the end the entries stay: rules that ask for the heartbeat refuse when it is over, and not
    before, so that a restart of ours is nobody's outage.
    """
    asyncio.run(_keep(source, orders, notify))


async def _keep(source: Source, orders: Sequence[Order], notify: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, stopped.set)
    board, report, stop = Board(), Report(), threading.Event()
    acls = sorted(frozenset[str]().union(*(order.grants for order in orders)))

    def take(snapshot: Snapshot, asked_s: float) -> None:
        report.store_is_back()
        report.is_unread(snapshot.unread)
        board.post(snapshot, asked_s)

    # Called by the thread, to be done by the loop.
    def post(snapshot: Snapshot, asked_s: float) -> None:
        loop.call_soon_threadsafe(take, snapshot, asked_s)

    def fail(sentence: str) -> None:
        loop.call_soon_threadsafe(report.store_is_away, sentence)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(follow, source, acls, post, fail, stop))
            tasks = [group.create_task(Target(it, board, report).keep()) for it in orders]
            tasks.append(group.create_task(_tell(report, notify)))
            await stopped.wait()
            notify("STOPPING=1")
            stop.set()
            for task in tasks:
                task.cancel()
    finally:
        stop.set()


async def _tell(report: Report, notify: Callable[[str], None]) -> None:
    """Tell systemd each second that the loop turns, and how it goes."""
    notify("READY=1")
    while True:
        notify(f"WATCHDOG=1\nSTATUS={report.status}")
        await asyncio.sleep(_STATUS_S)
