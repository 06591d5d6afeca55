"""haproxy/allowlist/target.py: what one HAProxy is told, from a board that the test writes."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from haproxy.allowlist.board import CURRENT_S, MAX_SILENCE_S, Board
from haproxy.allowlist.order import Order
from haproxy.allowlist.report import Report
from haproxy.allowlist.target import Target
from haproxy.runtime.place import UnixPlace
from tests.support.allowlist import Kept, kept
from tests.support.eventually import DEADLINE_S, LOOK_AGAIN_S
from tests.support.haproxy import binary
from tokens.admin.mirror import Snapshot

NOW = 1_700_000_000_000
HOUR_MS = 3_600_000


def snapshot(*members: str) -> Snapshot:
    ends = dict.fromkeys(members, NOW + HOUR_MS)
    return Snapshot(now_ms=NOW, grants={"wiki": ends}, blocks={}, unread={})


def order(edge: Kept) -> Order:
    return Order("edge", UnixPlace(str(edge.runtime)), {"wiki": ("#500",)}, "kat_alive")


async def until(look: Callable[[], bool], what: str) -> None:
    """Wait until something holds; HAProxy is kept meanwhile."""
    deadline = time.monotonic() + DEADLINE_S
    while not await asyncio.to_thread(look):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(LOOK_AGAIN_S)


async def left(task: asyncio.Task[None]) -> None:
    """Leave HAProxy to itself again."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_after_a_long_silence_of_redis_there_is_no_heartbeat(folder: Path) -> None:
    """Entries stay, but rules that ask refuse; one word of Redis and they admit again."""
    silent_s = 0.0

    async def story(edge: Kept) -> None:
        nonlocal silent_s
        board, report = Board(lambda: time.monotonic() + silent_s), Report()
        board.post(snapshot("127.0.0.7"), time.monotonic())
        task = asyncio.create_task(Target(order(edge), board, report).keep())
        await until(lambda: edge.status("127.0.0.7") == 200, "the grant")
        silent_s = MAX_SILENCE_S
        await until(lambda: edge.status("127.0.0.7") == 503, "the end of the heartbeat")
        assert edge.entries() == ["127.0.0.7/032"]
        assert "Redis has said nothing for 60 s" in report.status
        board.post(snapshot("127.0.0.7"), time.monotonic() + silent_s)
        await until(lambda: edge.status("127.0.0.7") == 200, "the heartbeat, again")
        await left(task)

    with kept(binary("3.2"), folder / "edge", KEPT_EXPIRE="3s") as edge:
        asyncio.run(story(edge))


def test_old_news_take_out_and_put_nothing_in(folder: Path) -> None:
    """What Redis said seconds ago may be over by now, and another `kat allowlist` may know.

    What is over goes all the same; while something is put off, there is no heartbeat.
    """
    late_s = 0.0

    async def story(edge: Kept) -> None:
        nonlocal late_s
        board, report = Board(lambda: time.monotonic() + late_s), Report()
        board.post(snapshot("127.0.0.7"), time.monotonic())
        task = asyncio.create_task(Target(order(edge), board, report).keep())
        await until(lambda: edge.status("127.0.0.7") == 200, "the grant")
        late_s = CURRENT_S + 1
        edge.tell("del acl #500 127.0.0.7/032")
        edge.tell("add acl #500 127.0.0.8/032")
        await until(lambda: edge.entries() == [], "the end of what is not granted")
        await until(lambda: "Redis is silent" in report.status, "the word that something waits")
        await until(lambda: edge.status("127.0.0.7") == 503, "the end of the heartbeat")
        assert edge.entries() == []
        board.post(snapshot("127.0.0.7"), time.monotonic() + late_s)
        await until(lambda: edge.status("127.0.0.7") == 200, "the grant, again")
        await left(task)

    with kept(binary("3.2"), folder / "edge", KEPT_EXPIRE="3s") as edge:
        asyncio.run(story(edge))


def test_an_acl_that_cannot_be_put_right_has_no_heartbeat(folder: Path) -> None:
    """What cannot be read may hold anybody: its rules refuse, those of the other ACL do not."""

    async def story(edge: Kept) -> None:
        board, report = Board(), Report()
        board.post(snapshot("127.0.0.7"), time.monotonic())
        wanted = Order(
            "edge", UnixPlace(str(edge.runtime)), {"wiki": ("#500", "#999")}, "kat_alive"
        )
        task = asyncio.create_task(Target(wanted, board, report).keep())
        await until(lambda: edge.entries() == ["127.0.0.7/032"], "the grant in one of two")
        await until(lambda: "#999" in report.status, "the fault of the other")
        assert edge.status("127.0.0.7") == 503
        await left(task)

    with kept(binary("3.2"), folder / "edge") as edge:
        asyncio.run(story(edge))
