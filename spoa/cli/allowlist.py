"""`kat allowlist`: HAProxy's own ACLs, kept equal to the grants."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from spoa.cli import admin
from spoa.cli.settings import FAILURE, USAGE, ConfigFile, fail, load_or_exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haproxy.allowlist.feed import Source
    from haproxy.allowlist.order import Order
    from haproxy.allowlist.show import Row
    from spoa.config.model import Config

_HEADER = (
    *("HAPROXY", "GRANTS OF", "ACL", "WANTED", "PRESENT"),
    *("MISSING", "SURPLUS", "OTHERS", "HEARTBEAT"),
)


def allowlist(
    is_shown: Annotated[
        bool, typer.Option("--show", help="Print wanted against present, once, and end.")
    ] = False,
    as_json: admin.AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Keep the ACLs of HAProxy equal to the IP grants that stand.

    Of every HAProxy that the configuration names under [allowlist.NAME]. Grants appear and vanish
    there as they do in Redis, blocked addresses too, and connections of a blocked address are
    ended. With --show it exits 1 unless all are equal.
    """
    settings = load_or_exit(config)
    if not settings.allowlist:
        fail("no HAProxy to keep: the configuration has no section [allowlist.NAME]", code=USAGE)
    if as_json and not is_shown:
        fail("--json goes with --show", code=USAGE)

    from spoa.orders import orders_of, source_of  # noqa: PLC0415 - see load_or_exit

    try:
        orders = orders_of(settings)
    except ValueError as error:
        fail(str(error), code=USAGE)
    if is_shown:
        _show(source_of(settings), orders, as_json=as_json)
    else:
        _keep(settings, source_of(settings), orders)


def _keep(settings: "Config", source: "Source", orders: "Sequence[Order]") -> None:
    from haproxy.allowlist.keeper import keep  # noqa: PLC0415 - see load_or_exit
    from spoa.log import configure, fields, log  # noqa: PLC0415
    from spoa.supervisor.notify import notify  # noqa: PLC0415

    configure(settings.log)
    for order in orders:
        log.info("keeping", extra=fields(haproxy=order.name, runtime=str(order.runtime)))
    keep(source, orders, notify)


def _show(source: "Source", orders: "Sequence[Order]", *, as_json: bool) -> None:
    from haproxy.allowlist.show import rows  # noqa: PLC0415 - see load_or_exit
    from tokens.store.client import StoreFault  # noqa: PLC0415

    try:
        found = rows(source, orders)
    except StoreFault as fault:
        fail(str(fault))
    if as_json:
        print(json.dumps([{**asdict(row), "is_equal": row.is_equal} for row in found]))
    else:
        for line in admin.aligned([_HEADER, *map(_cells, found)]):
            print(line)
    for row in found:
        if row.fault:
            admin.warn(f"{row.haproxy}: {row.fault}")
        elif row.heartbeat and row.beat_ms is None:
            admin.warn(
                f"{row.haproxy}: the table {row.heartbeat} has no heartbeat of {row.acl}: rules "
                "that ask for it refuse; is `kat allowlist` running? See its log"
            )
    if not all(row.is_equal for row in found):
        raise typer.Exit(FAILURE)


def _cells(row: "Row") -> tuple[str, ...]:
    if row.fault or not row.name:
        return (row.haproxy, row.acl, row.name, *[""] * 6)
    beat = "none" if row.beat_ms is None else admin.left(row.beat_ms)
    numbers = (row.wanted, row.present, len(row.missing), len(row.surplus), row.others)
    return (row.haproxy, row.acl, row.name, *map(str, numbers), beat)
