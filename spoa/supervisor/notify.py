"""Tells systemd how far we are (sd_notify(3), Type=notify)."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send `READY=1` or `STOPPING=1`; nothing when no service manager asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # As sd_notify(3): a service manager that does not listen is no reason to stop serving.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        # A leading @ names the abstract namespace.
        client.connect("\0" + address[1:] if address.startswith("@") else address)
        client.sendall(state.encode())
