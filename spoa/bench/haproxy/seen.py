"""What clients have seen of a round."""

from collections import Counter
from dataclasses import dataclass

from spoa.bench.result import Figures


@dataclass(frozen=True, slots=True)
class Seen:
    """Only right answers are requests and have a latency."""

    right: int
    unknown: int
    """So many requests left, and nobody knows what became of them."""
    wrong: Counter[str]
    figures: Figures
    """Without the CPU of others."""
