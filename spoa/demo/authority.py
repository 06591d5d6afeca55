"""The demo's certificate, and a CA made for nothing else, by the `openssl` command."""

import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from spoa.demo.programs import DemoError

_DAYS: Final = "30"
_NAMES: Final = "DNS:localhost,DNS:wiki.localhost,DNS:portal.localhost,IP:127.0.0.1"
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

# Whoever imports the CA into a browser trusts it for this machine's own names, and for no other.
_OWN_NAMES_ONLY: Final = (
    "nameConstraints=critical,permitted;DNS:localhost,permitted;IP:127.0.0.1/255.255.255.255"
)


class Certificate(NamedTuple):
    """What HAProxy shows, and what its clients need to believe it."""

    pem: Path
    """Certificate and key in one file, as HAProxy has it."""
    ca: Path


def have_certificate(folder: Path) -> Certificate:
    """Make one, or take that of last time, so that a CA is imported once. Raises DemoError."""
    had = Certificate(folder / "server.pem", folder / "ca.pem")
    if not _is_good(had):
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            made = _make(Path(workshop))
            made.pem.replace(had.pem)
            made.ca.replace(had.ca)
    return had


def _is_good(certificate: Certificate) -> bool:
    """Tell whether the two belong together, and are not over."""
    with suppress(DemoError):
        _openssl("verify", "-CAfile", str(certificate.ca), str(certificate.pem))
        return True
    return False


def _make(folder: Path) -> Certificate:
    """Make both. The CA's key goes with the folder: it signs this one certificate, and no more."""
    pem, ca, ca_key = folder / "server.pem", folder / "ca.pem", folder / "ca.key"
    _openssl(
        *("req", "-x509", *_KEY, "-subj", "/CN=kat demo, this machine only", "-days", _DAYS),
        *("-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"),
        *("-addext", "keyUsage=critical,keyCertSign", "-addext", _OWN_NAMES_ONLY),
        *("-keyout", str(ca_key), "-out", str(ca)),
    )
    key, cert = folder / "server.key", folder / "server.cert"
    _openssl(
        *("req", "-x509", *_KEY, "-subj", "/CN=localhost", "-days", _DAYS),
        *("-CA", str(ca), "-CAkey", str(ca_key)),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "extendedKeyUsage=serverAuth", "-addext", f"subjectAltName={_NAMES}"),
        *("-keyout", str(key), "-out", str(cert)),
    )
    with os.fdopen(os.open(pem, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as both:
        both.write(cert.read_text() + key.read_text())
    return Certificate(pem, ca)


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(  # noqa: S603 - our own arguments, no shell
            ["openssl", *arguments],  # noqa: S607 - the system's
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except FileNotFoundError:
        raise DemoError("openssl is not installed: `apt install openssl`") from None
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or error
        raise DemoError(f"openssl {arguments[0]} failed: {said}") from None
