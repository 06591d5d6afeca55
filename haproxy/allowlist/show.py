"""What each HAProxy has, beside what it ought to have: `kat allowlist --show`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from haproxy.allowlist.board import Board
from haproxy.allowlist.change import Foreign
from haproxy.allowlist.entry import is_own
from haproxy.allowlist.feed import Source, read_once
from haproxy.allowlist.order import Order, grants_of
from haproxy.runtime.client import Runtime, Session
from haproxy.runtime.fault import Refused, RuntimeFault


@dataclass(frozen=True, slots=True)
class Row:
    """One ACL in one HAProxy. `fault`: why nothing is known of it, a sentence; else empty."""

    haproxy: str
    acl: str
    """Of the grants."""
    name: str
    """In HAProxy; empty if it cannot be asked at all."""
    wanted: int = 0
    present: int = 0
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    """Ours that nobody granted, or does no longer."""
    others: int = 0
    """Entries that others put there."""
    beat_ms: int | None = None
    """How long the last heartbeat still holds; None: there is none."""
    heartbeat: str = ""
    """The table that should have one, if any."""
    is_alone: bool = False
    """Whether others are to have no entries there."""
    fault: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether it has what is wanted, and, where rules ask for that, somebody who keeps it."""
        is_beating = self.beat_ms is not None or not self.heartbeat
        strangers = self.others if self.is_alone else 0
        return is_beating and not (self.fault or self.missing or self.surplus or strangers)


def rows(source: Source, orders: Sequence[Order]) -> list[Row]:
    """Ask Redis, then every HAProxy at once. Raises StoreFault for Redis; the rest are rows."""
    snapshot, asked_s = read_once(source, grants_of(orders))
    return asyncio.run(_rows(Board.of(snapshot, asked_s), orders))


async def _rows(board: Board, orders: Sequence[Order]) -> list[Row]:
    found = await asyncio.gather(*(_rows_of(board, order) for order in orders))
    return [row for some in found for row in some]


async def _rows_of(board: Board, order: Order) -> list[Row]:
    try:
        async with Runtime(order.runtime).session() as session:
            await session.need_admin()
            beats, fault = await _beats(session, order.heartbeat)
            if not order.acls:
                return [Row(order.name, "", "", fault=fault)]
            return [
                await _row(session, board, order, acl, name, beats.get(acl), fault)
                for acl, names in order.acls.items()
                for name in names
            ]
    except RuntimeFault as fault:
        return [Row(order.name, acl, "", fault=str(fault)) for acl in order.acls or ("",)]


async def _beats(session: Session, table: str) -> tuple[dict[str, int], str]:
    if not table:
        return {}, ""
    try:
        return await session.beats(table), ""
    except Refused as fault:
        return {}, str(fault)


async def _row(  # noqa: PLR0917 - what a row is made of, in its order
    session: Session,
    board: Board,
    order: Order,
    acl: str,
    name: str,
    beat_ms: int | None,
    fault: str,
) -> Row:
    try:
        await session.need_addresses(name)
        entries = await session.entries(name)
    except Refused as refusal:
        return Row(order.name, acl, name, fault=str(refusal))
    ours, wanted = frozenset(filter(is_own, entries)), board.entries(acl)
    return Row(
        order.name,
        acl,
        name,
        wanted=len(wanted),
        present=len(ours & wanted),
        missing=tuple(sorted(wanted - ours)),
        surplus=tuple(sorted(ours - wanted)),
        others=sum(not is_own(entry) for entry in entries),
        beat_ms=beat_ms,
        heartbeat=order.heartbeat,
        is_alone=order.foreign is Foreign.REMOVE,
        fault=fault,
    )
