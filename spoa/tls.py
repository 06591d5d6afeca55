"""TLS on the agent's TCP addresses: who we are, and that nobody gets in without a certificate.

TLS 1.2 is the least, not 1.3: HAProxy 2.6 is also built with OpenSSL 1.0.2, which has no other, and
what matters here, certificates on both sides and forward secrecy, is in both.
"""

import math
import ssl
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from spoa.config.sections import ListenerFiles

DAY_S: Final = 86_400
WORTH_A_WARNING_DAYS: Final = 14

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_INVALID_PURPOSE.
_NOT_YET, _OVER, _WRONG_PURPOSE = 9, 10, 26

Stamp = tuple[tuple[int, int, int] | None, ...]


class TlsFault(Exception):
    """A file of the TLS listener cannot be used. The message is a sentence with its path."""


def server_context(files: ListenerFiles) -> ssl.SSLContext:
    """Make the context for those who connect: without a certificate of our CA, nobody does.

    Raises TlsFault.
    """
    # Not ssl.create_default_context: it would write the keys of all connections to a file that the
    # environment names (SSLKEYLOGFILE).
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # Every connection shows its certificate, so one that ran out opens nothing by a ticket; and
    # TLS 1.2 has no second handshake that a peer could ask for again and again.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    _load_pair(context, files.cert_file, files.key_file)
    _load_ca(context, files.client_ca_file)
    return context


def days_left(files: ListenerFiles) -> float:
    """Tell for how long the certificate holds, in days; what has no end in time holds for ever.

    Raises TlsFault for one that HAProxy would refuse already. `server_context` must have taken it.
    """
    return _days_left(_as_haproxy_sees_it(files))


def ca_days_left(files: ListenerFiles) -> float:
    """Tell for how long the CA of our clients holds; of several, the first one to end."""
    return min(map(_days_left, server_context(files).get_ca_certs()))


def _days_left(certificate: Mapping[str, object]) -> float:
    end = certificate.get("notAfter")
    if not isinstance(end, str):
        return math.inf
    return (ssl.cert_time_to_seconds(end) - time.time()) / DAY_S


def stamp(files: ListenerFiles) -> Stamp:
    """Say which files these are just now: another stamp, and they are worth reading again."""
    return tuple(map(_stamp, (files.cert_file, files.key_file, files.client_ca_file)))


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    for name, file in (("cert_file", cert), ("key_file", key)):
        _need_readable(name, file)
    both = f"listen.cert_file {cert} with listen.key_file {key}"
    try:
        is_open_to_all = key.stat().st_mode & stat.S_IROTH
        # Without a password ssl would ask for one, at the terminal.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise TlsFault(f"{both} {_why(error)}") from None
    except OSError as error:  # gone since: somebody is replacing them
        raise TlsFault(f"{both} cannot be read: {error.strerror}") from None
    if is_open_to_all:
        # sshd and PostgreSQL refuse such keys, too. A group may read it: root:kat 0640 is usual.
        raise TlsFault(
            f"listen.key_file {key} can be read by everybody on this machine, who could then say "
            "yes in our place: chmod o-r"
        )


def _why(error: ssl.SSLError) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH":
            return "do not belong together"
        case "EE_KEY_TOO_SMALL":
            return "are too weak: RSA needs 2048 bits"
        case _:
            return "cannot be used: PEM is needed, a key without a passphrase"


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    _need_readable("client_ca_file", ca)
    with suppress(OSError):  # it holds none at all, or is gone since
        context.load_verify_locations(ca)
    if not context.get_ca_certs():
        raise TlsFault(
            f"listen.client_ca_file {ca} holds no certificate of a CA: PEM is needed, and without "
            "one nobody could connect"
        )


def _need_readable(key: str, file: Path) -> None:
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise TlsFault(f"listen.{key} {file} cannot be read: {error.strerror}") from None


def _as_haproxy_sees_it(files: ListenerFiles) -> dict[str, object]:
    """Shake hands with ourselves: `ssl` shows the dates of a certificate to its peer only."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.cert_file, files.key_file, password="")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # Whoever signed it: that is HAProxy's to judge, by a file that need not be here.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(files.cert_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server)
    try:
        for side in (there, here, there):
            _step(side)
    except ssl.SSLCertVerificationError as error:
        raise TlsFault(f"listen.cert_file {files.cert_file} {_refusal(error)}") from None
    return dict(there.getpeercert() or {})


def _step(side: ssl.SSLObject) -> None:
    with suppress(ssl.SSLWantReadError):
        side.do_handshake()


def _refusal(error: ssl.SSLCertVerificationError) -> str:
    told = {
        _OVER: "has expired: HAProxy refuses it",
        _NOT_YET: "is not valid yet: is the clock right?",
        _WRONG_PURPOSE: "is not for servers (extendedKeyUsage): HAProxy refuses it",
    }
    return told.get(error.verify_code, f"would be refused by HAProxy: {error.verify_message}")


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
