"""What `kat revoke` says about what was done, and what was not."""

from typing import TYPE_CHECKING

from spoa.cli import admin

if TYPE_CHECKING:
    from tokens.admin.granter import Grant
    from tokens.admin.revoked import Revoked

_REFUSED = {
    "kid": "token {name}, and whatever it opened",
    "token": "this token, and whatever it opened",
    "user": "whatever was issued to user {name} before {moment}",
    "group": "whatever was issued to members of group {name} before {moment}",
    "acl": "whatever was issued for ACL {name} before {moment}",
    "all": "whatever was issued before {moment}",
}

_UNCOUNTED = {
    "user": ("tokens",),
    "group": ("tokens", "sessions"),
    "acl": ("tokens", "sessions"),
    "all": ("tokens", "sessions"),
}
"""Of what there is no list: it is refused, and nobody knows how much it is."""

_LET_IN = {
    "kid": "whatever token {name} is just opening",
    "token": "whatever this token is just opening",
    "user": "whoever has a token of user {name}",
    "group": "whoever has a token or a session of a member of group {name}",
    "acl": "whoever has a token or a session for ACL {name}",
    "all": "whoever has a token or a session",
}
"""Who still gets in without the cut."""


def print_done(done: "Revoked", selector: str, name: str) -> None:
    found = [
        admin.count(number, noun)
        for number, noun in ((done.tokens, "token"), (done.sessions, "session"))
        if number
    ]
    if done.grants:
        found.append(admin.count(done.grants, "grant"))
    if found or "sessions" not in _UNCOUNTED.get(selector, ()):
        print(f"{done.total} revoked{': ' if found else ''}{', '.join(found)}")
    if done.consumed:
        print(f"{admin.count(done.consumed, 'token')} of that kid was consumed already")
    if done.cut_ms is not None:
        what = _REFUSED[selector].format(name=name, moment=admin.moment(done.cut_ms))
        print(f"refused from now on: {what}")
    if selector in _UNCOUNTED:
        print(f"not counted: {' and '.join(_UNCOUNTED[selector])}, of which there is no list")
    if selector == "group":
        print("not ended: IP grants, which name no group; see --grant, --user and --acl")
    if done.cut_ms is not None or done.total:
        print(admin.replicas_line(done.kept))


def undone(done: "Revoked", selector: str, name: str) -> list[str]:
    """Say what was not done, and who may get in by it."""
    has_cut = done.cut_ms is not None
    who = _LET_IN.get(selector, "").format(name=name)
    sentences = {
        "cut": f"NOT revoked in full: {who} may still get in: Redis does not note the revocation",
        "grants": "NOT revoked in full: IP grants may still stand, see `kat grant`",
        "tokens": "tokens were not all deleted",
        "sessions": "sessions were not all deleted",
    }
    harmless = ", which open nothing all the same" if has_cut else ""
    return [
        f"{sentences[what]}{harmless if what in {'tokens', 'sessions'} else ''} ({why}); "
        "then run this once more"
        for what, why in done.undone
    ]


def fields(done: "Revoked", selector: str) -> dict[str, object]:
    return {
        "revoked": done.total,
        "tokens": done.tokens,
        "consumed": done.consumed,
        "sessions": done.sessions,
        "grants": done.grants,
        "cut_ms": done.cut_ms,
        "not_counted": list(_UNCOUNTED.get(selector, ())),
        "undone": [it._asdict() for it in done.undone],
        "still": [it._asdict() for it in done.still],
        **admin.kept_fields(done.kept),
    }


def still(it: "Grant") -> str:
    whose = f"to {admin.shown(it.user)}" if it.user else "without saying to whom"
    return f"{admin.shown(it.member)} is still granted at ACL {admin.shown(it.acl)}, {whose}"
