"""A certification authority for tests: it lives in a folder, and its certificates for a day."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tokens.store.tls import TlsFiles

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Authority:
    """Issues certificates that who trusts `ca_file` takes for good."""

    directory: Path

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def issue(self, name: str, *names: str) -> TlsFiles:
        """Make a certificate for subjectAltNames such as IP:127.0.0.1, and its key."""
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        alternatives = ("-addext", f"subjectAltName={','.join(names)}") if names else ()
        self._openssl(
            *("req", "-x509", *_KEY, "-subj", f"/CN={name}", "-days", "1", *alternatives),
            *("-CA", str(self.ca_file), "-CAkey", str(self.directory / "ca.key")),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", str(key), "-out", str(cert)),
        )
        return TlsFiles(self.ca_file, cert, key)

    def lock(self, key: Path) -> Path:
        """Copy a key, but with a passphrase."""
        locked = key.with_suffix(".locked")
        self._openssl("ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(locked))
        return locked

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_authority(directory: Path) -> Authority:
    authority = Authority(directory)
    authority._openssl(
        *("req", "-x509", *_KEY, "-subj", "/CN=tests", "-days", "1"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", str(directory / "ca.key"), "-out", str(authority.ca_file)),
    )
    return authority
