"""TLS to Redis: always verified, chain and host name; there is no switch.

`redis` builds contexts of its own for what is off the hot way, from the same files. The system's
CAs count there besides `ca_file`; here `ca_file` is the only one.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: whom we trust (None: the system's CAs), and who we are, where a server asks."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Make the context for connections of our own. Raises ValueError with a sentence."""
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"ca_file {files.ca_file} {_reason(error)}") from None
    if files.cert_file:
        try:
            # Without a password ssl would ask for one, at the terminal.
            context.load_cert_chain(files.cert_file, files.key_file, password="")
        except OSError as error:
            raise ValueError(
                f"cert_file {files.cert_file} with key_file {files.key_file} {_reason(error)}"
            ) from None
    return context


def client_options(files: TlsFiles) -> dict[str, object]:
    """Say the same to a client of `redis`."""
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,  # not the default before redis-py 6
        "ssl_ca_certs": _text(files.ca_file),
        "ssl_certfile": _text(files.cert_file),
        "ssl_keyfile": _text(files.key_file),
        "ssl_password": "",
    }


def _text(file: Path | None) -> str | None:
    return None if file is None else str(file)


def _reason(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return f"cannot be read: {error.strerror}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "do not belong together"
    return "cannot be used: PEM is needed, a key without a passphrase"
