"""`kat grant`: let an address through without a token."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from spoa.cli import admin
from spoa.cli.settings import USAGE, ConfigFile, fail, load_or_exit, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from spoa.config.model import Config
    from tokens.admin.granter import Grant, Granted

_Text = str | None

_HEEDED_IN = ("grant", "ip", "ip+token")
"""The modes of an ACL that ask for grants."""


def grant(
    address: Annotated[
        _Text, typer.Argument(help="Address or network; without it: list what is granted.")
    ] = None,
    *,
    acl: Annotated[_Text, typer.Option(help="Which ACL it opens.")] = None,
    user: Annotated[_Text, typer.Option(help="Who it is for; of a list: whose.")] = None,
    duration: Annotated[_Text, typer.Option("--for", help="How long: 90s, 30m, 8h or 1d.")] = None,
    as_json: admin.AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Let an address through an ACL for a while, or list those.

    One that is granted for longer already is left as it is. `kat revoke --grant` ends a grant.
    """
    if address is None:
        if duration is not None:
            fail("name an address or a network", code=USAGE)
        _print_list(_listed(acl, user, config), as_json=as_json)
        return
    if acl is None or user is None or duration is None:
        wanted = {"--acl": acl, "--user": user, "--for how long": duration}
        missing = [option for option, value in wanted.items() if value is None]
        fail(f"{quoted(address)}: needs {admin.listed(missing)}", code=USAGE)
    ttl_s = admin.seconds(duration)
    settings = load_or_exit(config)

    from tokens.admin.granter import Granter  # noqa: PLC0415 - see load_or_exit

    with admin.acting(settings) as who:
        granted = Granter(who).grant(acl, address, user, ttl_s)
    _print(granted, acl, as_json=as_json)
    _warn_of_unheeded(acl, settings)
    admin.warn_unless_audited(is_audited=granted.is_audited)


def _listed(acl: _Text, user: _Text, config: "Path | None") -> "list[Grant]":
    settings = load_or_exit(config)

    from tokens.admin.admin import check_name  # noqa: PLC0415 - see load_or_exit
    from tokens.admin.granter import Granter  # noqa: PLC0415

    with admin.acting(settings) as who:
        if user is not None:
            check_name("sub", user)
        grants = Granter(who).grants(acl)
        silent = sorted(who.nodes.silent)
    admin.warn_of_silent(silent)
    return [it for it in grants if user in {None, it.user}]


def _print(granted: "Granted", acl: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"acl": acl, **granted._asdict()}))
    else:
        print(f"{granted.member} is granted at ACL {acl} until {admin.moment(granted.ends_ms)}")


def _print_list(grants: "list[Grant]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([it._asdict() for it in grants]))
        return
    if not grants:
        print("nothing is granted")
        return
    rows = [("ACL", "ADDRESS", "USER", "BY", "LEFT", "UNTIL")]
    rows += [
        (it.acl, it.member, it.user, it.by, admin.left(it.left_ms), admin.moment(it.ends_ms))
        for it in grants
    ]
    for row in admin.aligned(rows):
        print(row)


def _warn_of_unheeded(acl: str, settings: "Config") -> None:
    if any(acl in kept.acl for kept in settings.allowlist.values()):
        return  # HAProxy itself heeds it
    if acl not in settings.acl:
        admin.warn(f"the ACL {acl!r} is not configured here")
    elif settings.acl[acl].mode.value not in _HEEDED_IN:
        mode = settings.acl[acl].mode.value
        admin.warn(f"the ACL {acl!r} does not ask for grants: its mode is {mode}")
