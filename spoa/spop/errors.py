"""The peer's fault, as data."""

from spoa.spop.constants import StatusCode


class ProtocolError(Exception):
    """The peer broke the protocol. Ends the connection with `status`; never leaves `spoa.spop`.

    `Connection` turns it into an AGENT-DISCONNECT frame. The message holds the value and the
    limit, and no byte of a payload: a payload may hold a token.
    """

    def __init__(self, status: StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
