"""Slots of a cluster: who has which, and what a node says about a key that is elsewhere. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tokens.question import Reply
from tokens.store.url import MAX_PORT, Host

SLOTS = REDIS_CLUSTER_HASH_SLOTS

__all__ = ["SLOTS", "Detour", "SlotRange", "key_slot", "read_detour", "read_slots"]


class SlotRange(NamedTuple):
    """Slots from `start` to `end`, both included: who has them, and who would take over."""

    start: int
    end: int
    primary: Host
    replicas: tuple[Host, ...]


class Detour(NamedTuple):
    """Another node has the key: for good (MOVED), or for this once, while the slot moves (ASK)."""

    host: Host
    is_asking: bool


def read_slots(reply: Reply, told_by: Host) -> list[SlotRange]:
    """Read the answer to CLUSTER SLOTS. Raises ValueError for anything else."""
    if not isinstance(reply, list) or not reply:
        raise ValueError("CLUSTER SLOTS is not answered with a list of slots")
    return [_read_range(entry, told_by) for entry in reply]


def read_detour(error: Exception, told_by: Host) -> Detour | None:
    """Read `MOVED 3999 127.0.0.1:6381` or `ASK ...`; None for every other error."""
    word, _, rest = str(error).partition(" ")
    if word not in ("MOVED", "ASK"):
        return None
    name, _, port = rest.partition(" ")[2].rpartition(":")
    if not port.isdigit() or not 0 < int(port) <= MAX_PORT:
        return None
    # Without a name it is at the same address: `cluster-preferred-endpoint-type unknown-endpoint`.
    return Detour(Host(name or told_by.name, int(port)), word == "ASK")


def _read_range(entry: Reply, told_by: Host) -> SlotRange:
    match entry:
        case [int(start), int(end), first, *others] if 0 <= start <= end < SLOTS:
            replicas = tuple(_read_host(other, told_by) for other in others)
            return SlotRange(start, end, _read_host(first, told_by), replicas)
    raise ValueError("CLUSTER SLOTS has an entry that is none")


def _read_host(node: Reply, told_by: Host) -> Host:
    match node:
        case [bytes() | None as name, int(port), *_]:
            return Host((name or b"").decode("ascii", "replace") or told_by.name, port)
    raise ValueError("CLUSTER SLOTS has a node without an address")


def missing(ranges: Iterable[SlotRange]) -> int:
    """Count the slots that nobody has."""
    return SLOTS - sum(one.end - one.start + 1 for one in ranges)


def hosts(ranges: Sequence[SlotRange]) -> list[Host]:
    """Name all nodes, each once."""
    return list(dict.fromkeys(host for one in ranges for host in (one.primary, *one.replicas)))
