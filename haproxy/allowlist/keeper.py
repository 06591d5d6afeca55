"""`kat allowlist`: one Redis, several HAProxy, and nobody waits for anybody else."""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from haproxy.allowlist.board import Board
from haproxy.allowlist.feed import Source, follow
from haproxy.allowlist.order import Order, grants_of
from haproxy.allowlist.report import Report
from haproxy.allowlist.target import Target
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
    board, report = Board(), Report()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(Target(it, board, report).keep()) for it in orders]
        tasks += [
            group.create_task(_feed(source, orders, board, report)),
            group.create_task(_tell(report, notify)),
        ]
        await stopped.wait()
        notify("STOPPING=1")
        for task in tasks:
            task.cancel()


async def _feed(source: Source, orders: Sequence[Order], board: Board, report: Report) -> None:
    """Let a thread ask Redis until we are cancelled. What is wrong with the thread, is with us."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    stop = threading.Event()
    acls = grants_of(orders)

    def take(snapshot: Snapshot, asked_s: float) -> None:
        report.store_is_back()
        report.is_unread(snapshot.unread)
        board.post(snapshot, asked_s)

    def lose(sentence: str) -> None:
        report.store_is_away(sentence, has_spoken=board.is_known)

    def run() -> None:
        """Run in the thread; whatever it says is done by the loop, if that is still there."""
        try:
            follow(source, acls, partial(call, take), partial(call, lose), stop)
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            call(over.set_exception, error)

    def call(function: Callable[..., object], *arguments: object) -> None:
        if not stop.is_set():
            loop.call_soon_threadsafe(function, *arguments)

    # Nobody waits for it at the end: it may be waiting for Redis, and holds nothing that is lost.
    threading.Thread(target=run, name="feed", daemon=True).start()
    try:
        await over
    finally:
        stop.set()


async def _tell(report: Report, notify: Callable[[str], None]) -> None:
    """Tell systemd each second that the loop turns, and how it goes."""
    notify("READY=1")
    while True:
        notify(f"WATCHDOG=1\nSTATUS={report.status}")
        await asyncio.sleep(_STATUS_S)
