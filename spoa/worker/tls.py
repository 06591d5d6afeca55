"""TLS between a TCP connection and its SpopLink, the same on either event loop.

Not the loop's own TLS: there a connection exists only once its handshake has succeeded. Then
nothing counts those that never finish one, and nobody says why one failed. Here a SpopLink is there
from the first moment, so its limit on connections and its time-out hold for the handshake, too.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Final, cast

from spoa.config.sections import ListenerFiles
from spoa.log import fields, log
from spoa.spop.constants import StatusCode
from spoa.tls import TlsFault, server_context, stamp
from spoa.worker.transport import SpopServer

# What a loop reads at once at most; a TLS record holds 16 KiB of it.
_READ_BYTES: Final = 256 * 1024


# Half a handshake holds 46 KB of OpenSSL's, and costs whoever begins it next to nothing. 1,024 of
# them are more than half of the largest cold burst that `bench` saw, and 47 MB. The oldest makes
# room: a real one takes milliseconds, and who only holds the door must not keep HAProxy outside.
MAX_HANDSHAKES: Final = 1024


class Credentials:
    """What new connections are greeted with. New files are taken while we run."""

    def __init__(self, files: ListenerFiles) -> None:
        """Read the files. Raises TlsFault."""
        self._files = files
        self._taken = self._seen = stamp(files)
        self.context = server_context(files)

    def look(self) -> None:
        """Take the files anew when they have changed, and lie still since the last look.

        A certificate and its key are two files: between their two moments they are of no use.
        """
        now, before = stamp(self._files), self._seen
        self._seen = now
        if now == self._taken or now != before:
            return
        self._taken = now
        try:
            self.context = server_context(self._files)
        except TlsFault as fault:
            log.error("the certificate before stays in use", extra=fields(reason=str(fault)))
        else:
            log.info("certificate read anew", extra=fields(file=str(self._files.cert_file)))


class TlsServer:
    """Call it for a new TCP connection's protocol."""

    def __init__(self, spop: SpopServer, credentials: Credentials) -> None:
        self.spop = spop
        self.credentials = credentials
        self.shaking: dict[TlsLink, None] = {}
        """Who has not finished the handshake, the oldest first."""

    def __call__(self) -> "TlsLink":
        return TlsLink(self)


class TlsLink(asyncio.Protocol, asyncio.Transport):
    """One connection: a protocol to its socket, a transport to its SpopLink."""

    def __init__(self, server: TlsServer) -> None:
        super().__init__()
        self._server = server
        self._link = server.spop(is_local=False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server.credentials.context
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_secure = False

    # --- What the socket tells us --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)  # uvloop's is none by isinstance
        self._link.connection_made(self)
        if len(self._server.shaking) >= MAX_HANDSHAKES:
            oldest = next(iter(self._server.shaking))
            del self._server.shaking[oldest]
            oldest.give_way()
        self._server.shaking[self] = None

    def data_received(self, data: bytes) -> None:
        if self._socket.is_closing():
            return
        self._incoming.write(data)
        chunks: list[bytes] = []
        fault: ssl.SSLError | None = None
        try:
            if not self._is_secure:
                self._tls.do_handshake()
                self._is_secure = True
                self._server.shaking.pop(self, None)
            while chunk := self._tls.read(_READ_BYTES):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            is_over = False
        except ssl.SSLError as error:
            is_over, fault = True, error
        else:
            is_over = True  # an empty chunk is the peer's goodbye
        self._send()  # of the handshake, or an alert
        if chunks:
            self._link.data_received(b"".join(chunks))
        if fault:
            message = f"TLS with {self._peer()}: {_reason(fault)}"
            self._link.disconnect(StatusCode.IO_ERROR, message)
        if is_over:
            self.close()

    def pause_writing(self) -> None:
        self._link.pause_writing()

    def resume_writing(self) -> None:
        self._link.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.shaking.pop(self, None)
        self._link.connection_lost(exc)

    def give_way(self) -> None:
        """End, for somebody newer: too many have begun a handshake, and this was the first."""
        message = f"{MAX_HANDSHAKES} TLS handshakes at a time are the limit: the oldest makes room"
        self._link.disconnect(StatusCode.RESOURCE_ALLOCATION, message)

    # --- What the SpopLink tells us ------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at once: all that waits, waits at the socket, whose limits hold."""
        if not self._is_secure:
            # A last word, too early: nobody may read it.
            self._socket.close()
        elif data and not self._socket.is_closing():
            with suppress(ssl.SSLError):  # after a fault, or the peer's goodbye
                self._tls.write(data)
            self._send()

    def close(self) -> None:
        """Say goodbye in TLS and close. The peer's own goodbye is not waited for."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send()
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._socket.get_extra_info(name, default)

    # -------------------------------------------------------------------------------------------

    def _send(self) -> None:
        if self._outgoing.pending and not self._socket.is_closing():
            self._socket.write(self._outgoing.read())

    def _peer(self) -> str:
        name = self._socket.get_extra_info("peername")
        return str(name[0]) if name else "a peer that is gone"


_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "WRONG_VERSION_NUMBER": "it speaks no TLS",
    "HTTP_REQUEST": "it speaks plain HTTP",
    "UNSUPPORTED_PROTOCOL": "it knows no TLS 1.2",
}


def _reason(error: ssl.SSLError) -> str:
    """Say what went wrong, in words that are OpenSSL's or ours: none is the peer's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    reason = error.reason or ""
    if "_ALERT_" in reason:
        return f"it refuses us: {reason.partition('_ALERT_')[2].replace('_', ' ').lower()}"
    return _REASONS.get(reason) or reason.replace("_", " ").lower() or "no TLS"
