"""`kat issue`: one token, for trying things out and for scripts."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spoa.cli.admin import warn, warn_unless_audited
from spoa.cli.settings import USAGE, ConfigFile, fail, load_or_exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoa.config.model import Config
    from tokens.issue import SessionTerms

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
    nonce: Annotated[
        str | None, typer.Option(help="SHA-256 of the cookie it is bound to: 64 hex digits.")
    ] = None,
    session_ttl: Annotated[
        int | None, typer.Option(help="Seconds that a session of it lives at most.")
    ] = None,
    session_idle: Annotated[
        int | None, typer.Option(help="Seconds without a request that end such a session.")
    ] = None,
    no_session: Annotated[bool, typer.Option("--no-session", help="It opens no session.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print token, kid and ttl.")] = False,
    config: ConfigFile = None,
) -> None:
    """Issue one token and print it, and nothing else."""
    settings = load_or_exit(config)

    from tokens.issue import Issuer, NotIssued  # noqa: PLC0415
    from tokens.store.client import StoreFault, StoreUnreachable, connect  # noqa: PLC0415 - see load_or_exit
    from tokens.store.tls import TlsFiles  # noqa: PLC0415

    store, audit = settings.store, settings.audit
    tls = TlsFiles(store.ca_file, store.cert_file, store.key_file)
    session = _session(session_ttl, session_idle, is_refused=no_session)
    _warn_of_unknown(acl, settings)
    _warn_of_loopback(src or ())
    try:
        with connect(settings.store_url, tls) as client:
            issued = Issuer(
                client,
                prefix=store.prefix,
                audit=audit.stream,
                max_audit_entries=audit.max_entries,
                allow_loopback=True,  # somebody is trying it out, and was warned
            ).issue(
                user,
                acl,
                ttl,
                groups=group or (),
                src=src or (),
                host=host or (),
                method=method or (),
                path=path or (),
                nbf_ms=nbf,
                session=session,
                nonce=nonce,
            )
    except ValueError as error:
        fail(str(error), code=USAGE)
    except NotIssued as error:
        fail(str(error))
    except StoreFault as error:
        is_away = isinstance(error, StoreUnreachable) and store.is_embedded
        fail(f"{error}; is `kat serve` running?" if is_away else str(error))
    warn_unless_audited(is_audited=issued.is_audited or not audit.stream)
    if as_json:
        print(json.dumps({"token": issued.token, "kid": issued.kid, "ttl": issued.ttl_s}))
    else:
        print(issued.token)


def _session(
    ttl_s: int | None, idle_s: int | None, *, is_refused: bool
) -> "SessionTerms | Literal[False] | None":
    from tokens.issue import SessionTerms  # noqa: PLC0415 - see load_or_exit

    is_limited = ttl_s is not None or idle_s is not None
    if is_refused and is_limited:
        fail("--no-session leaves nothing for --session-ttl or --session-idle", code=USAGE)
    if is_refused:
        return False
    return SessionTerms(ttl_s, idle_s) if is_limited else None


def _warn_of_unknown(acls: list[str], config: "Config") -> None:
    for name in acls:
        if name not in config.acl:
            warn(f"the ACL {name!r} is not configured")


def _warn_of_loopback(addresses: "Sequence[str]") -> None:
    from tokens.address import is_loopback  # noqa: PLC0415 - see load_or_exit

    for text in addresses:
        if is_loopback(text):
            warn(f"{text} is this machine's own address: of use only to try things out on it")
