"""A real spiped: what connects here is carried, encrypted, to somewhere else."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_bytes

from spoa.listen import is_answered
from tests.support.eventually import eventually
from tests.support.tls_peers import free_address

SPIPED = "/usr/bin/spiped"


def make_key(folder: Path) -> Path:
    """Make the secret that both ends share: 0600, as the documentation has it."""
    key = folder / "tunnel.key"
    key.touch(0o600)
    key.write_bytes(token_bytes(32))
    return key


@contextmanager
def tunnel(entry: Path, target: Path, key: Path, far_key: Path | None = None) -> Iterator[str]:
    """Carry what connects to the socket `entry` to the socket `target`, over a TCP port.

    Two processes, as on two machines; yields the port's address. `far_key`: what the end at
    `target` has in place of the key.
    """
    host, port = free_address()
    between = f"[{host}]:{port}"
    with (
        _spiped("-d", between, str(target), far_key or key),
        _spiped("-e", str(entry), between, key),
    ):
        eventually(lambda: entry.exists() and is_answered(str(entry)), "the tunnel's entry")
        yield f"{host}:{port}"
    entry.unlink(missing_ok=True)


@contextmanager
def _spiped(way: str, source: str, target: str, key: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [SPIPED, "-F", way, "-s", source, "-t", target, "-k", key, "-n", "1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        assert process.poll() is None, f"spiped {way} ended by itself"
    finally:
        process.kill()
        process.wait()
