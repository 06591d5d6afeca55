"""`kat block`: let nothing through from an address."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from spoa.cli import admin
from spoa.cli.settings import USAGE, ConfigFile, fail, load_or_exit, quoted

if TYPE_CHECKING:
    from tokens.admin.admin import Kept
    from tokens.admin.block import Block, Blocked, Blocker


def block(
    address: Annotated[
        str | None, typer.Argument(help="Address or network; without it: list what is blocked.")
    ] = None,
    *,
    duration: Annotated[
        str | None, typer.Option("--for", help="How long: 90s, 30m, 8h or 1d.")
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="End the block.")] = False,
    replicas: admin.Replicas = None,
    wait_ms: admin.WaitMs = admin.WAIT_MS,
    as_json: admin.AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Block an address, end that, or list what is blocked.

    It holds on the very next request. Exit 1, if fewer replicas confirm than were asked.
    """
    if address is None and (lift or duration is not None):
        fail("name an address or a network", code=USAGE)
    if address is not None and lift is (duration is not None):
        fail(f"{quoted(address)}: say either --for how long, or --lift", code=USAGE)
    ttl_s = None if duration is None else admin.seconds(duration)
    settings = load_or_exit(config)

    from tokens.admin.block import Blocker  # noqa: PLC0415 - see load_or_exit

    with admin.acting(settings, replicas=replicas, wait_ms=wait_ms) as who:
        blocker = Blocker(who)
        if address is None:
            _list(blocker.blocks(), as_json=as_json)
            return
        if ttl_s is None:
            kept = _lift(blocker, address, as_json=as_json)
        else:
            blocked, kept = blocker.block(address, ttl_s)
            _print_block(blocked, kept, as_json=as_json)
    admin.end(kept, wait_ms)


def _lift(blocker: "Blocker", address: str, *, as_json: bool) -> "Kept":
    from tokens.policy.grant import networks_around  # noqa: PLC0415 - see load_or_exit

    was_blocked, kept = blocker.unblock(address)
    if as_json:
        print(json.dumps({"lifted": int(was_blocked), **admin.kept_fields(kept)}))
    else:
        print(f"{address} {'is no longer' if was_blocked else 'was not'} blocked")
        if was_blocked:
            print(admin.replicas_line(kept))
    around = networks_around(address)
    for other in blocker.blocks():
        if other.member in around:
            admin.warn(f"{address} is still blocked, by {other.member}")
    return kept


def _print_block(blocked: "Blocked", kept: "Kept", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**blocked._asdict(), **admin.kept_fields(kept)}))
    else:
        print(
            f"{blocked.member} is blocked until {admin.moment(blocked.until_ms)}{_before(blocked)}"
        )
        print(admin.replicas_line(kept))


def _before(blocked: "Blocked") -> str:
    """Say that a block was longer: nobody shortens one by mistake without a word."""
    was_until_ms = blocked.was_until_ms or 0
    return f", was until {admin.moment(was_until_ms)}" if was_until_ms > blocked.until_ms else ""


def _list(blocks: "list[Block]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([it._asdict() for it in blocks]))
        return
    if not blocks:
        print("nothing is blocked")
        return
    rows = [("ADDRESS", "LEFT", "UNTIL")]
    rows += [(it.member, admin.left(it.left_ms), admin.moment(it.until_ms)) for it in blocks]
    for row in admin.aligned(rows):
        print(row)
