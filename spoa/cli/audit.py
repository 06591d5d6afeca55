"""`kat audit`: what happened, from the audit stream."""

import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from spoa.cli.audittable import header, json_line, row
from spoa.cli.auditwanted import (
    Moment,
    read_event,
    read_kid,
    read_moment,
    read_name,
    read_network,
)
from spoa.cli.output import discard_stdout, expect_reader
from spoa.cli.settings import USAGE, ConfigFile, fail, load_or_exit

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tokens.admin.auditlog import Event, Trail, Wanted
    from tokens.store.client import Client

    Reach = Callable[[], AbstractContextManager[Client]]

DEFAULT_NUMBER = 50
_MAX_NUMBER = 100_000
_INTERRUPTED = 128 + signal.SIGINT
_TRY_AGAIN_S = 1.0

_Text = str | None


def audit(
    *,
    user: Annotated[_Text, typer.Option(help="Only what this user did.")] = None,
    ip: Annotated[_Text, typer.Option(help="Only what came from this address or network.")] = None,
    kid: Annotated[_Text, typer.Option(help="Only what was done with this token.")] = None,
    acl: Annotated[_Text, typer.Option(help="Only what happened at this ACL.")] = None,
    event: Annotated[_Text, typer.Option(help="Only this: consumed, refused, ...")] = None,
    since: Annotated[_Text, typer.Option(help="From then on: 10m, or 2026-05-01T10:00.")] = None,
    until: Annotated[_Text, typer.Option(help="Until then: 10m, or 2026-05-01T10:00.")] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "-n",
            min=1,
            max=_MAX_NUMBER,
            help=f"The last so many. Without it and any filter: {DEFAULT_NUMBER}.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    config: ConfigFile = None,
) -> None:
    """Print what happened, oldest first.

    Times are UTC, and so is one that you give without a zone.
    """
    settings = load_or_exit(config)

    from tokens.admin.auditlog import Trail, Wanted  # noqa: PLC0415 - see load_or_exit
    from tokens.record import Keys  # noqa: PLC0415
    from tokens.store.client import StoreFault, StoreUnreachable, connect  # noqa: PLC0415

    if follow and until is not None:
        fail("--follow has no end: leave --until out", code=USAGE)
    wanted = Wanted(
        user=read_name("--user", "sub", user),
        network=read_network(ip),
        kid=read_kid(kid),
        acl=read_name("--acl", "acl", acl),
        event=read_event(event),
    )
    begin = read_moment("--since", since)
    end = read_moment("--until", until)
    if wanted == Wanted() and not (begin or end or number):
        number = DEFAULT_NUMBER
    screen = _Screen(is_json=as_json)
    trail = Trail(Keys(settings.store.prefix).audit, _say)
    reach = partial(connect, settings.store_url, settings.store.tls)
    try:
        with reach() as client:
            span = _between(client, wanted, begin, end)
            screen.show(trail.latest(client, span, number) if number else trail.past(client, span))
        if follow:
            _follow(reach, trail, wanted, screen)
    except ValueError as error:
        fail(str(error), code=USAGE)  # of TLS files that cannot be used
    except StoreFault as error:
        is_away = isinstance(error, StoreUnreachable) and settings.store.is_embedded
        fail(f"{error}; is `kat serve` running?" if is_away else str(error))
    except KeyboardInterrupt:
        # It may have come while a line was written, between the system's having it and our knowing:
        # it would be written again.
        discard_stdout()
        raise typer.Exit(_INTERRUPTED) from None


class _Screen:
    """Prints events in the way that was asked for."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._is_headed = is_json

    def show(self, events: Iterable["Event"]) -> None:
        for event in events:
            if not self._is_headed:
                self._is_headed = True
                print(header())
            print(json_line(event) if self._is_json else row(event))
        sys.stdout.flush()  # whoever follows wants to see it now


def _say(sentence: str) -> None:
    sys.stdout.flush()
    print(f"kat: {sentence}", file=sys.stderr)


def _follow(reach: "Reach", trail: "Trail", wanted: "Wanted", screen: _Screen) -> NoReturn:
    """Print what happens until somebody ends it; a Redis that is away is waited for."""
    from tokens.store.client import StoreFault  # noqa: PLC0415 - see load_or_exit

    said = ""
    while True:
        try:
            with reach() as client:
                while True:
                    events = trail.wait(client, wanted)
                    if said:
                        _say("Redis answers again")
                        said = ""
                    screen.show(events)
                    expect_reader()
        except StoreFault as error:
            if str(error) != said:
                said = str(error)
                _say(f"{said}; waiting for it")
            expect_reader()
            time.sleep(_TRY_AGAIN_S)


def _between(
    client: "Client", wanted: "Wanted", begin: Moment | None, end: Moment | None
) -> "Wanted":
    """Say from when to when, by Redis's clock."""
    if begin is None and end is None:
        return wanted
    seconds, microseconds = client.time()
    now_ms = seconds * 1000 + microseconds // 1000
    since_ms = begin(now_ms) if begin else None
    until_ms = end(now_ms) if end else None
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        fail("--since is after --until: nothing is between them", code=USAGE)
    return replace(wanted, since_ms=since_ms, until_ms=until_ms)
