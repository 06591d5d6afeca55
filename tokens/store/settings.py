"""What a store is told: where Redis is, and how it is used."""

from dataclasses import dataclass, field

from tokens.question import Question
from tokens.store.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where Redis is and how it is used. `url` may hold a password and is never shown."""

    url: str = field(repr=False)
    fence_key: bytes
    is_fenced: bool
    clock_skew_ms: int
    scripts: tuple[bytes, ...]
    deadline_s: float
    tls: TlsFiles = field(default_factory=TlsFiles)
    probe: Question | None = None
    """What every batch asks: a server that cannot answer it does not count as up."""
