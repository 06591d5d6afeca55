"""`kat issue`: one token, for trying things out and for scripts."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from spoa.cli.settings import USAGE, ConfigFile, fail, load_or_exit

if TYPE_CHECKING:
    from spoa.config.model import Config

_Names = list[str] | None


def issue(
    *,
    acl: Annotated[list[str], typer.Option(help="ACL that it opens; may be repeated.")],
    user: Annotated[str, typer.Option(help="Who it is for.")],
    ttl: Annotated[int, typer.Option(help="Seconds it lives.")] = 60,
    group: Annotated[_Names, typer.Option(help="Group of the user; may be repeated.")] = None,
    src: Annotated[_Names, typer.Option(help="Client address or network it is bound to.")] = None,
    host: Annotated[_Names, typer.Option(help="Host name it is bound to.")] = None,
    method: Annotated[_Names, typer.Option(help="Method it is bound to.")] = None,
    path: Annotated[_Names, typer.Option(help="Path prefix it is bound to.")] = None,
    nbf: Annotated[int | None, typer.Option(help="Not before: Unix time, milliseconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print token, kid and ttl.")] = False,
    config: ConfigFile = None,
) -> None:
    """Issue one token and print it, and nothing else."""
    settings = load_or_exit(config)

    from tokens.client import StoreFault, StoreUnreachable, connect  # noqa: PLC0415 - see load_or_exit
    from tokens.issue import Issuer, NotIssued  # noqa: PLC0415

    _warn_of_unknown(acl, settings)
    try:
        with connect(settings.store_url) as client:
            issued = Issuer(client, prefix=settings.store.prefix).issue(
                user,
                acl,
                ttl,
                groups=group or (),
                src=src or (),
                host=host or (),
                method=method or (),
                path=path or (),
                nbf_ms=nbf,
            )
    except ValueError as error:
        fail(str(error), code=USAGE)
    except NotIssued as error:
        fail(str(error))
    except StoreFault as error:
        is_away = isinstance(error, StoreUnreachable) and settings.store.is_embedded
        fail(f"{error}; is `kat serve` running?" if is_away else str(error))
    if as_json:
        print(json.dumps({"token": issued.token, "kid": issued.kid, "ttl": issued.ttl_s}))
    else:
        print(issued.token)


def _warn_of_unknown(acls: list[str], config: "Config") -> None:
    for name in acls:
        if name not in config.acl:
            print(f"kat: warning: the ACL {name!r} is not configured", file=sys.stderr)
