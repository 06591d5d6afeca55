"""Brings what Redis says to the board: a thread, because the ways to Redis block.

Nothing here is for the hot way, and so it goes through the `redis` package, with its Sentinels,
clusters and TLS.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

from tokens.admin.fault import speaking_plainly
from tokens.admin.mirror import Mirror, Snapshot
from tokens.store.client import SYSTEM_CAS, StoreFault, connect
from tokens.store.tls import TlsFiles

POLL_S: Final = 1.0
"""Who writes grants by hand may forget to PUBLISH."""

_RETRY_S: Final = 1.0

# Of a thousand changes in a second each would have everything read again: 20 ms of this process
# and 5 of Redis for 5,000 grants.
_GAP_S: Final = 0.025


@dataclass(frozen=True, slots=True)
class Source:
    """Which store holds the grants. The URL may hold a password."""

    url: str
    tls: TlsFiles = SYSTEM_CAS
    prefix: str = "kat:"


def read_once(source: Source, acls: Sequence[str]) -> tuple[Snapshot, float]:
    """Read what is granted now, and when that was asked. Raises StoreFault with a sentence."""
    with _mirror(source, acls) as mirror:
        asked_s = time.monotonic()
        return mirror.read(), asked_s


def follow(
    source: Source,
    acls: Sequence[str],
    post: Callable[[Snapshot, float], None],
    fail: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Read at each change, and each second, until told to stop; `fail` hears of every failure."""
    while not stop.is_set():
        try:
            with _mirror(source, acls) as mirror:
                while not stop.is_set():
                    asked_s = time.monotonic()
                    post(mirror.read(), asked_s)
                    mirror.wait(POLL_S)
                    stop.wait(max(0.0, asked_s + _GAP_S - time.monotonic()))
        except StoreFault as fault:
            fail(str(fault))
            stop.wait(_RETRY_S)


@contextmanager
def _mirror(source: Source, acls: Sequence[str]) -> Iterator[Mirror]:
    with (
        connect(source.url, source.tls) as client,
        speaking_plainly(source.url),
        closing(Mirror(client, source.prefix, acls)) as mirror,
    ):
        yield mirror
