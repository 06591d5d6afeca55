"""`kat issue`: one token, for trying things out and for scripts."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spoa.cli.admin import warn, warn_unless_audited
from spoa.cli.settings import USAGE, ConfigFile, fail, load_or_exit, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoa.config.model import Config
    from tokens.issue import SessionTerms

_Names = list[str] | None

# As seconds this is the year 5138, as milliseconds 1973: whoever writes less means seconds.
_EARLIEST_MS = 10**11


def issue(
    *,
    acl: Annotated[list[str], typer.Option(help="ACL that it opens; may be repeated.")],
    user: Annotated[str, typer.Option(help="Who it is for.")],
    ttl: Annotated[str, typer.Option(help="How long it lives: 90s, 30m, 8h or 1d.")] = "60s",
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
        str | None, typer.Option(help="How long a session of it lives at most: 30m, 8h or 1d.")
    ] = None,
    session_idle: Annotated[
        str | None, typer.Option(help="How long such a session may lie idle: 90s or 30m.")
    ] = None,
    no_session: Annotated[bool, typer.Option("--no-session", help="It opens no session.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print token, kid and ttl.")] = False,
    config: ConfigFile = None,
) -> None:
    """Issue one token and print it, and nothing else."""
    ttl_s = _seconds("--ttl", ttl)
    session = _session(session_ttl, session_idle, is_refused=no_session)
    settings = load_or_exit(config)

    from tokens.issue import Issuer, NotIssued  # noqa: PLC0415
    from tokens.store.client import StoreFault, StoreUnreachable, connect  # noqa: PLC0415 - see load_or_exit

    store, audit = settings.store, settings.audit
    try:
        with connect(settings.store_url, store.tls) as client:
            issued = Issuer(
                client,
                prefix=store.prefix,
                audit=audit.stream,
                max_audit_entries=audit.max_entries,
                allow_loopback=True,  # somebody is trying it out, and was warned
            ).issue(
                user,
                acl,
                ttl_s,
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
    # Behind the issuing: what is refused is one sentence.
    for name in acl:
        _warn_of_acl(name, settings, has_session=session is not None)
    _warn_of_loopback(src or ())
    if nbf is not None:
        _warn_of_nbf(nbf, ttl_s)
    warn_unless_audited(is_audited=issued.is_audited or not audit.stream)
    if as_json:
        print(json.dumps({"token": issued.token, "kid": issued.kid, "ttl": issued.ttl_s}))
    else:
        print(issued.token)


def _seconds(option: str, duration: str) -> int:
    from spoa.config.duration import parse_duration  # noqa: PLC0415 - see load_or_exit

    try:
        return parse_duration(duration)
    except ValueError as error:
        fail(f"{option} {quoted(duration)}: {error}", code=USAGE)


def _session(
    ttl: str | None, idle: str | None, *, is_refused: bool
) -> "SessionTerms | Literal[False] | None":
    from tokens.issue import SessionTerms  # noqa: PLC0415 - see load_or_exit

    is_limited = ttl is not None or idle is not None
    if is_refused and is_limited:
        fail("--no-session leaves nothing for --session-ttl or --session-idle", code=USAGE)
    if is_refused:
        return False
    if not is_limited:
        return None
    return SessionTerms(
        None if ttl is None else _seconds("--session-ttl", ttl),
        None if idle is None else _seconds("--session-idle", idle),
    )


def _warn_of_acl(name: str, config: "Config", *, has_session: bool) -> None:
    """Say what this token cannot do there."""
    if name not in config.acl:
        warn(f"the ACL {name!r} is not configured")
        return
    mode = config.acl[name].mode.value
    if mode == "ip":
        warn(f"the ACL {name!r} looks at no token: its mode is ip; see `kat grant`")
    elif has_session and mode != "session":
        warn(f"the ACL {name!r} opens no sessions, so those options do nothing: its mode is {mode}")


def _warn_of_nbf(nbf_ms: int, ttl_s: int) -> None:
    """Compare with this machine's clock: Redis's decides, but an issuer may not ask for it."""
    if 0 < nbf_ms < _EARLIEST_MS:
        warn(f"--nbf {nbf_ms} is milliseconds, and looks like seconds: it is long over")
    elif nbf_ms >= (time.time() + ttl_s) * 1000:
        warn(f"--nbf {nbf_ms} is after the end of the token, which opens nothing; see --ttl")


def _warn_of_loopback(addresses: "Sequence[str]") -> None:
    from tokens.address import is_loopback  # noqa: PLC0415 - see load_or_exit

    for text in addresses:
        if is_loopback(text):
            warn(f"{text} is this machine's own address: of use only to try things out on it")
