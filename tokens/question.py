"""What Redis is asked, and what it answers: the words between policy and connections. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

Reply = None | int | bytes | list["Reply"] | Exception
"""What Redis answers to one command; its error replies are values here."""

digits: Final = lru_cache(1024)(b"%d".__mod__)
"""Writes a number that comes again and again."""

Command = tuple[bytes, ...]
"""Its words as they are written: a number is its digits."""


def without_arguments(error: Exception) -> str:
    """Word an error without the arguments that Redis may echo: passwords, or whole digests."""
    return str(error).partition(", with args")[0]


@dataclass(frozen=True, slots=True)
class Fence:
    """From when on a server is known to have forgotten nothing (Unix ms), and its identity."""

    replid: bytes
    since_ms: int


@dataclass(slots=True, init=False)
class Question:
    """One command, and the key by which a cluster finds the node that answers it.

    A command with a `tail` is written for one server: between `head` and `tail` stand its
    master_replid and its fence, which only the connection knows.
    """

    key: bytes
    head: Command
    tail: Command

    # Written out, and not frozen: one is made for each batch at least.
    def __init__(self, key: bytes, head: Command, tail: Command = ()) -> None:
        self.key = key
        self.head = head
        self.tail = tail

    def write(self, fence: Fence) -> Command:
        if not self.tail:
            return self.head
        return (*self.head, fence.replid, b"%d" % fence.since_ms, *self.tail)
