"""What is judged, Check, and what the judgement is, Decision. Pure."""

from dataclasses import dataclass, field
from typing import Final

from tokens.outcome import Outcome

# What of a request Redis must be asked about. Plain integers: an IntFlag takes ten times as long.
TOKEN: Final = 1
SESSION: Final = 2
GRANT: Final = 4
AFTER_GRANT: Final = 8
"""The token, but only once the grant is known to stand."""
LOGOUT: Final = 16

_MISSING: Final = Outcome.MISSING


# One of each is made for every request. Both have an __init__ of their own, because mypyc leaves
# one that dataclasses generate to the interpreter: 0.33 us for a Check in place of 0.06.
@dataclass(slots=True, init=False)
class Check:
    """One request to be judged. Bytes as HAProxy sent them: believed by nobody yet."""

    acl: bytes
    token: bytes = field(repr=False)
    host: bytes
    method: bytes
    path: bytes
    nonce: bytes
    source: bytes
    room_bytes: int
    """How long user and groups together may be, for the answer to fit."""
    session: bytes = field(repr=False)
    """The id of a session, as the visitor's cookie has it."""
    via: bytes
    """How the token travelled: header, query or form."""
    unique_id: bytes
    """HAProxy's name for the request. For logs and audit only."""
    needs: int
    """What the gate wants to see of it in Redis: TOKEN, SESSION, ..."""
    refusal: Outcome
    """The answer, if nothing that it brings says yes."""

    def __init__(  # noqa: PLR0917 - by place, as it is made for every request
        self,
        acl: bytes,
        token: bytes,
        host: bytes,
        method: bytes,
        path: bytes,
        nonce: bytes,
        source: bytes,
        room_bytes: int,
        session: bytes = b"",
        via: bytes = b"",
        unique_id: bytes = b"",
        needs: int = 0,
        refusal: Outcome = _MISSING,
    ) -> None:
        self.acl = acl
        self.token = token
        self.host = host
        self.method = method
        self.path = path
        self.nonce = nonce
        self.source = source
        self.room_bytes = room_bytes
        self.session = session
        self.via = via
        self.unique_id = unique_id
        self.needs = needs
        self.refusal = refusal


@dataclass(slots=True, init=False)
class Decision:
    """The answer to one Check. `kid` names the token, when one was looked up."""

    outcome: Outcome
    kid: bytes
    user: bytes
    groups: bytes
    session: bytes = field(repr=False)
    """The id of the session that was opened: for the cookie, and nothing else."""
    encoded: bytes = field(init=False, repr=False, compare=False)
    """What the answerer made of it. Kept with a decision that is given again and again."""

    def __init__(
        self,
        outcome: Outcome,
        kid: bytes = b"",
        user: bytes = b"",
        groups: bytes = b"",
        session: bytes = b"",
    ) -> None:
        self.outcome = outcome
        self.kid = kid
        self.user = user
        self.groups = groups
        self.session = session
        self.encoded = b""
