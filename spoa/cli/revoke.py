"""`kat revoke`: take back what was issued."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from spoa.cli import admin, revoked
from spoa.cli.secret import read_secret
from spoa.cli.settings import FAILURE, USAGE, ConfigFile, fail, load_or_exit

if TYPE_CHECKING:
    from tokens.admin.admin import Admin
    from tokens.admin.revoke import Revoker
    from tokens.admin.revoked import Revoked

_Text = str | None
_Act = Callable[["Revoker"], "Revoked"]

_WORD = "all"
"""What to type for --all."""


def revoke(
    *,
    kid: Annotated[_Text, typer.Option(help="A token by its kid, and what it opened.")] = None,
    token: Annotated[bool, typer.Option("--token", help="A token; its text on stdin.")] = False,
    session: Annotated[
        _Text, typer.Option(help="A session by its sid; -: its id on stdin.")
    ] = None,
    user: Annotated[_Text, typer.Option(help="Whatever a user has.")] = None,
    group: Annotated[_Text, typer.Option(help="Tokens and sessions of a group's members.")] = None,
    acl: Annotated[_Text, typer.Option(help="Whatever opens an ACL; or see --grant.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Whatever was issued.")] = False,
    grant: Annotated[
        _Text, typer.Option(help="The IP grants of an address or network; with --acl: of one ACL.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --all.")] = False,
    replicas: admin.Replicas = None,
    wait_ms: admin.WaitMs = admin.WAIT_MS,
    as_json: admin.AsJson = False,
    config: ConfigFile = None,
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Take back what was issued. It holds on the very next request.

    By exactly one of --kid --token --session --user --group --acl --all --grant. Exit 1, if fewer
    replicas confirm than were asked.
    """
    if words:
        # Maybe a secret, so it is not repeated.
        fail("takes options alone, and what is secret on stdin", code=USAGE)
    chosen = {
        "kid": kid,
        "token": "" if token else None,
        "session": session,
        "user": user,
        "group": group,
        "acl": acl if grant is None else None,
        "all": "" if everything else None,
        "grant": grant,
    }
    selectors = {selector: name for selector, name in chosen.items() if name is not None}
    if len(selectors) != 1:
        given = [f"--{selector}" for selector in selectors] or ["none"]
        verb = "was" if len(given) == 1 else "were"
        wanted = " ".join(f"--{selector}" for selector in chosen)
        fail(
            f"takes exactly one of {wanted}; {admin.listed(given)} {verb} given",
            code=USAGE,
        )
    ((selector, name),) = selectors.items()
    settings = load_or_exit(config)
    act = _act(selector, name, acl)
    if everything and not yes:
        _confirm()

    with admin.acting(settings, replicas=replicas, wait_ms=wait_ms) as admin_:
        done, still = _revoke(admin_, act, grant, acl)
    if as_json:
        print(json.dumps(revoked.fields(done, selector)))
    else:
        revoked.print_done(done, selector, admin.shown(name))
    admin.warn_of_each(still)
    undone = revoked.undone(done, selector, admin.shown(name))
    for sentence in undone:
        print(f"kat: {sentence}", file=sys.stderr)
    admin.end(done.kept, wait_ms)
    if undone:
        raise typer.Exit(FAILURE)


def _act(selector: str, name: str, acl: str | None) -> _Act:
    """Choose what to do. Reads a secret from stdin, where one is asked for."""
    match selector:
        case "kid":
            return lambda revoker: revoker.revoke_kid(name)
        case "token":
            token = _token()
            return lambda revoker: revoker.revoke_token(token)
        case "session" if name == "-":
            session_id = _session_id()
            return lambda revoker: revoker.revoke_session(session_id)
        case "session":
            return lambda revoker: revoker.revoke_sid(name)
        case "user":
            return lambda revoker: revoker.revoke_user(name)
        case "group":
            return lambda revoker: revoker.revoke_group(name)
        case "acl":
            return lambda revoker: revoker.revoke_acl(name)
        case "grant":
            return lambda revoker: revoker.end_grant(name, acl)
        case _:
            return lambda revoker: revoker.revoke_all()


def _revoke(
    who: "Admin", act: _Act, grant: str | None, acl: str | None
) -> tuple["Revoked", list[str]]:
    from tokens.admin.granter import Granter  # noqa: PLC0415
    from tokens.admin.revoke import Revoker  # noqa: PLC0415
    from tokens.policy.grant import networks_around  # noqa: PLC0415 - see load_or_exit

    done = act(Revoker(who))
    around = networks_around(grant) if grant is not None else frozenset()
    grants = Granter(who).grants(acl) if around else []
    by_networks = {
        f"{grant} is still granted at ACL {it.acl}, by {it.member}": None
        for it in grants
        if it.member in around
    }
    return done, [*by_networks, *map(revoked.still, done.still)]


def _token() -> bytes:
    from tokens.token import TOKEN_BYTES, is_well_formed  # noqa: PLC0415 - see load_or_exit

    token = read_secret("Token")
    if not is_well_formed(token):
        fail(f"stdin holds no token: kat_..., {TOKEN_BYTES} characters in all", code=USAGE)
    return token


def _session_id() -> bytes:
    from tokens.policy.session import is_session_id  # noqa: PLC0415 - see load_or_exit

    session_id = read_secret("Session id")
    if not is_session_id(session_id):
        fail("stdin holds no session id: it is the value of the gate's cookie", code=USAGE)
    return session_id


def _confirm() -> None:
    """Ask, where somebody can answer."""
    if sys.stdin is None or not sys.stdin.isatty():
        fail("--all ends every session and every grant: say --yes too", code=USAGE)
    print(
        f"This ends every session and every grant. Type {_WORD} to do it: ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    if sys.stdin.readline().strip() != _WORD:
        fail("nothing was revoked")
