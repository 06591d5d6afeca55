"""What can go wrong with a HAProxy's Runtime API: each is one sentence for people. Pure."""

from typing import Final

from haproxy.runtime.place import RuntimePlace, TcpPlace, UnixPlace
from tokens.spelling import shown

# HAProxy's refusals are one line, with at most our own word in it. Of the list of all commands,
# its answer to one that it does not know, the first line says enough.
_MAX_SAID_BYTES: Final = 200

# OpenSSL's words, or ours where it has none.
_OF_TLS: Final = {
    "wrong version number": "no TLS is spoken there",
    "record layer failure": "no TLS is spoken there",
    "certificate required": "it asks for a certificate of ours: set cert_file and key_file",
    "handshake failure": "it may ask for a certificate of ours: set cert_file and key_file",
    "unknown ca": "it does not know the CA that signed ours: see its ca-file",
    "certificate verify failed": "set ca_file to the CA that signed its certificate, and use the "
    "name that it is for",
}


class RuntimeFault(Exception):
    """HAProxy's Runtime API did not do what it was asked for."""


class Unreachable(RuntimeFault):
    """Nothing that speaks the Runtime API answers there, or no longer."""


class Refused(RuntimeFault):
    """HAProxy said no. `said` has its words, cleaned and bounded."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class UnknownAcl(Refused):
    """No ACL has this name."""


class UnknownTable(Refused):
    """No stick-table has this name."""


class NoAdmin(Refused):
    """The socket has a level that may not do this."""


class WrongType(Refused):
    """The ACL or the table is of a type that cannot hold what is meant for it."""


def not_open(place: RuntimePlace, error: Exception) -> Unreachable:
    """Word why nothing could be opened."""
    return Unreachable(f"no HAProxy at {place}: {_why_not_open(place, error)}")


def lost(place: RuntimePlace, error: Exception | None, *, is_greeted: bool) -> Unreachable:
    """Word the end of a connection; before the greeting it may be another kind of peer."""
    why = f": {_words(error)}" if error is not None else ""
    hint = "" if is_greeted else _who_hangs_up(place, error)
    return Unreachable(f"HAProxy at {place} closed the connection{why}{hint}")


def silent(place: RuntimePlace, timeout_s: float, *, is_greeted: bool) -> Unreachable:
    may_be = "; it may be no HAProxy, or have as many connections as its `stats maxconn` lets in"
    hint = "" if is_greeted else may_be
    return Unreachable(f"no answer from HAProxy at {place} in {timeout_s:g} s{hint}")


def foreign(place: RuntimePlace, said: bytes) -> Unreachable:
    """Word what another kind of peer said instead of the greeting."""
    if b"master> " in said:
        return Unreachable(
            f"{place} is the socket of HAProxy's master (-S); write that of a `stats socket`"
        )
    return Unreachable(f"{place} is not HAProxy's Runtime API: it says {shown(cleaned(said))}")


def cleaned(said: bytes) -> str:
    """Return the first line of what somebody said; in ASCII, without control characters."""
    line = next(iter(said.strip().splitlines()), b"")[:_MAX_SAID_BYTES]
    return "".join(
        char if char.isprintable() else "?" for char in line.decode("ascii", "replace")
    ).replace("\ufffd", "?")


def _why_not_open(place: RuntimePlace, error: Exception) -> str:
    match place, error:
        case UnixPlace(path), FileNotFoundError():
            return (
                f"no such socket; is it running, and has its section global "
                f"`stats socket {path} mode 660 level admin`?"
            )
        case UnixPlace(), PermissionError():
            return "no permission; its `stats socket` needs mode 660 and a group that we are in"
        case _, ConnectionRefusedError():
            return "nobody listens there; is it running?"
    return f"{_words(error)}{_of_tls(error)}"


def _who_hangs_up(place: RuntimePlace, error: Exception | None) -> str:
    """Say what it may be that ends a connection before a word was said."""
    known = _of_tls(error) if error is not None else ""
    match place:
        case TcpPlace(tls=None):
            return known or "; its port may speak TLS: set ca_file"
        case TcpPlace():
            return known or "; it may ask for a certificate of ours: set cert_file and key_file"
        case UnixPlace():
            return "; it may be no HAProxy"


def _of_tls(error: Exception) -> str:
    said = _words(error).lower().replace("_", " ")
    advice = next((advice for words, advice in _OF_TLS.items() if words in said), "")
    return f"; {advice}" if advice else ""


def _words(error: Exception) -> str:
    """Return what the system says, without the number in front."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
