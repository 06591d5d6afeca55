"""Block addresses: until a moment, no request from there opens anything."""

from typing import Final, NamedTuple

from tokens.admin.admin import Admin, Kept
from tokens.policy.grant import read_member
from tokens.record import MAX_INTEGER

MAX_BLOCK_TTL_S: Final = 365 * 86_400
"""An address has other users after a year."""


class Block(NamedTuple):
    """An address or network that is blocked. Times in ms, by Redis's clock."""

    member: str
    until_ms: int
    left_ms: int


class Blocked(NamedTuple):
    """A block that was just made. Times in ms, by Redis's clock."""

    member: str
    until_ms: int
    left_ms: int
    was_until_ms: int | None = None
    """When the block ended that stood before, if one did."""


class Blocker:
    """Blocks, lifts and lists. What it says is done holds on the very next request.

    Raises ValueError with a sentence for what is no address, redis.RedisError when Redis did not
    confirm. Everything may be asked for a second time.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def block(self, member: str, ttl_s: int) -> tuple[Blocked, Kept]:
        """Let nothing through from an address or network for so long, and no longer."""
        if not 1 <= ttl_s <= MAX_BLOCK_TTL_S:
            raise ValueError(f"a block of {ttl_s} s: 1 to {MAX_BLOCK_TTL_S} s are allowed")
        name = read_member(member)
        was_until_ms = self._stands_until(name)
        until_ms = self._admin.change("block", f"addr:{name}", ttl_s * 1000)
        kept = self._admin.keep("blocked", src=name, until=until_ms)
        return Blocked(name, until_ms, ttl_s * 1000, was_until_ms), kept

    def unblock(self, member: str) -> tuple[bool, Kept]:
        """Lift the block of exactly this address or network; tell whether there was one."""
        name = read_member(member)
        if not self._admin.change("lift", f"addr:{name}"):
            return False, Kept()
        return True, self._admin.keep("unblocked", src=name)

    def blocks(self) -> list[Block]:
        """List what is blocked; what ends first stands first."""
        nodes, key = self._admin.nodes, self._admin.keys.cut
        now_ms = nodes.now_ms()
        fields: dict[bytes, bytes] = nodes.run(key, "HGETALL", key)
        ends = {
            name.removeprefix(b"addr:").decode(errors="replace"): _moment(value)
            for name, value in fields.items()
            if name.startswith(b"addr:")
        }
        blocks = [Block(member, end_ms, end_ms - now_ms) for member, end_ms in ends.items()]
        return sorted((it for it in blocks if it.left_ms > 0), key=lambda it: (it.until_ms, it))

    def _stands_until(self, name: str) -> int | None:
        nodes, key = self._admin.nodes, self._admin.keys.cut
        value = nodes.run(key, "HGET", key, f"addr:{name}")
        until_ms = None if value is None else _moment(value)
        return until_ms if until_ms is not None and until_ms > nodes.now_ms() else None


def _moment(value: bytes) -> int:
    """Read a time in ms as agents do: what cannot be read is the end of time."""
    return int(value) if value.isdigit() and len(value) <= len(str(MAX_INTEGER)) else MAX_INTEGER
