"""One token that is about to be issued: its record judged, its command and its event worded. Pure.

But for the random source. `Issuer` and `AsyncIssuer` share it, and differ in how they ask Redis.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict

from tokens.address import is_loopback, is_unspecified
from tokens.audit import entry
from tokens.record import BadRecord, Keys, Record, SessionTerms, read_record, write_record
from tokens.token import digest, kid, mint

Texts = str | Iterable[str]
"""One text, or several."""


class Bindings(TypedDict, total=False):
    """What else a record may say: the optional fields of docs/redis-contract.md.

    For type checkers, and for both issuers; at run time `word_record` refuses other names.
    """

    groups: Texts
    src: Texts
    host: Texts
    method: Texts
    path: Texts
    nbf_ms: int | None
    session: SessionTerms | Literal[False] | None
    nonce: str | None
    meta: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that Redis has confirmed. `kid` is its name for logs."""

    token: str = field(repr=False)
    kid: str
    ttl_s: int
    is_audited: bool = False
    """Whether Redis has confirmed the event, too. The token is as good without."""


class Order(NamedTuple):
    """One SET that is about to be sent, and the XADD behind it: empty without an audit."""

    key: bytes
    raw: bytes
    issued: Issued
    event: tuple[str | bytes | int, ...]


@dataclass(frozen=True, slots=True)
class Desk:
    """Takes orders for the stores of one prefix."""

    keys: Keys
    max_audit_entries: int
    """0: no audit."""
    allows_loopback: bool

    def take(self, record: Record) -> Order:
        """Mint a token for this record.

        Raises BadRecord with a sentence that names the field, its value and what is allowed.
        """
        raw = _write(record)
        # Read as strictly as an agent will: no issuer of ours can write what no agent accepts.
        record = read_record(raw)
        self._refuse_nobody(record.src)
        token = mint()
        name = digest(token.encode())
        issued = Issued(token, kid(name).decode(), record.ttl_s)
        return Order(self.keys.token(name), raw, issued, self._event(record, issued))

    def _refuse_nobody(self, src: tuple[str, ...]) -> None:
        # Here and not in `read_record`: a binding only narrows, so an agent that reads this one
        # opens nothing that it would not open unbound. What it shows is an issuer's mistake.
        for text in src:
            if is_unspecified(text):
                raise BadRecord(f"src: {text!r} is no address that a client has")
            if is_loopback(text) and not self.allows_loopback:
                raise BadRecord(
                    f"src: {text!r} is this machine's own address: bind to the visitor's, as the "
                    "proxy before you tells it"
                )

    def _event(self, record: Record, issued: Issued) -> tuple[str | bytes | int, ...]:
        if not self.max_audit_entries:
            return ()
        event = {
            "event": "issued",
            "acl": ",".join(record.acl),
            "kid": issued.kid,
            "user": record.sub,
            "src": ",".join(record.src),
        }
        told = {name: text for name, text in event.items() if text}
        # Clients of a cluster know commands by text.
        return ("XADD", *entry(self.keys.audit, [told], self.max_audit_entries)[1:])


def word_record(
    user: str,
    acl: Texts,
    ttl_s: int,
    *,
    groups: Texts = (),
    src: Texts = (),
    host: Texts = (),
    method: Texts = (),
    path: Texts = (),
    nbf_ms: int | None = None,
    session: SessionTerms | Literal[False] | None = None,
    nonce: str | None = None,
    meta: Mapping[str, object] | None = None,
) -> Record:
    """Take what a caller says. Judges nothing."""
    return Record(
        sub=user,
        acl=_tuple(acl),
        ttl_s=ttl_s,
        groups=_tuple(groups),
        src=_tuple(src),
        host=_tuple(host),
        method=_tuple(method),
        path=_tuple(path),
        nbf_ms=nbf_ms,
        session=session,
        nonce=nonce,
        meta=None if meta is None else dict(meta),
    )


def _tuple(texts: Texts) -> tuple[str, ...]:
    """Take a lone text for a list of one, not for a list of letters."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _write(record: Record) -> bytes:
    try:
        return write_record(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRecord(f"not to be written as JSON: {error}") from None
