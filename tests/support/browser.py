"""A real Chromium, the system's, that trusts one certificate besides the world's."""

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

TIMEOUT_MS = 20_000
"""Nothing takes that long; a test that waits for it has failed."""


@contextmanager
def browsing(certificate: Path) -> Iterator[Browser]:
    """Run a headless Chromium that takes this certificate for good, and no other unknown one.

    While it runs, the thread has an event loop: no test may call asyncio.run.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_system_chromium(),
            args=[f"--ignore-certificate-errors-spki-list={_pin(certificate)}"],
        )
        try:
            yield browser
        finally:
            browser.close()


def _system_chromium() -> str:
    chromium = shutil.which("chromium")
    assert chromium, "the tests need chromium"
    return chromium


def _pin(certificate: Path) -> str:
    """Return the SHA-256 of the certificate's public key, as RFC 7469 2.4 has it."""
    read = ("openssl", "x509", "-in", str(certificate), "-noout", "-pubkey")
    pem = subprocess.run(read, check=True, capture_output=True).stdout
    key = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
