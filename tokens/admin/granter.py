"""Opens, ends and lists IP grants, for commands and other programs."""

import json
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from tokens.admin.admin import Admin, check_name
from tokens.policy.grant import read_grantable, read_member, write_end, write_end_of_all, write_open
from tokens.policy.listing import list_under
from tokens.record import MAX_GRANT_TTL_S, MAX_INTEGER

_MAX_CLAIMS: Final = 16  # as in grant.lua

_PER_CALL: Final = 100
"""Members per script call: 0.3 ms of Redis's time, during which it serves nobody else."""


class Grant(NamedTuple):
    """One claim to an address: a grant stands as long as the longest of those it has.

    `user` and `by` are empty when whoever wrote it did not say.
    """

    acl: str
    member: str
    user: str
    by: str
    ends_ms: int
    left_ms: int


class Granted(NamedTuple):
    """What is granted until when, and whether the audit tells of it."""

    member: str
    ends_ms: int
    is_audited: bool


class Ended(NamedTuple):
    """How many claims ended that stood, and what others claim of the same addresses."""

    claims: int
    still: tuple[Grant, ...]


class Granter:
    """Opens, ends and lists IP grants.

    Raises ValueError with a sentence for what the contract forbids, redis.RedisError when Redis did
    not confirm. Everything may be asked for a second time.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._nodes = admin.nodes
        self._keys = admin.keys

    def grant(self, acl: str, member: str, user: str, ttl_s: int) -> Granted:
        """Let an address or a network through an ACL for so long.

        For longer, if it was granted for longer already: nothing is shortened, and this is one
        claim more, which stands when that of another user or admin ends.
        """
        check_name("acl", acl)
        check_name("sub", user)
        if not 1 <= ttl_s <= MAX_GRANT_TTL_S:
            raise ValueError(f"a grant of {ttl_s} s: 1 to {MAX_GRANT_TTL_S} s are allowed")
        gate, name, holder = acl.encode(), read_grantable(member).encode(), user.encode()
        now_ms, ttl_ms = self._nodes.now_ms(), ttl_s * 1000
        item = b"g:%b %b" % (gate, name)
        for asked in list_under(self._keys, holder, item, now_ms + ttl_ms, now_ms):
            self._nodes.write(asked.key, *asked.head)
        by = self._admin.by.encode()
        command = write_open(self._keys, gate, name, user=holder, by=by, ttl_ms=ttl_ms)
        ends_ms = int(self._nodes.write(self._keys.grants(gate), *command))
        is_audited = self._admin.tell(
            "granted", acl=acl, user=user, src=name.decode(), until=ends_ms
        )
        return Granted(name.decode(), ends_ms, is_audited)

    def end(self, member: str, acl: str | None = None) -> int:
        """End the grants of exactly this address or network; return how many stood.

        Of one ACL, or of all. Untold, like all that follow: `Revoker.end_grant` tells of it.
        """
        name = read_member(member).encode()
        if acl is None:
            return sum(self._end(gate, b"", b"", [name]) for gate in self._acls())
        check_name("acl", acl)
        return self._end(acl.encode(), b"", b"", [name])

    def end_acl(self, acl: str) -> int:
        """End all grants of an ACL; return how many stood."""
        check_name("acl", acl)
        return self._end_all(acl.encode())

    def end_all(self) -> int:
        """End all grants; return how many stood."""
        return sum(map(self._end_all, self._acls()))

    def end_of(self, field: str, value: str) -> Ended:
        """End all claims for a user (`sub`), or all that somebody opened (`by`).

        What others claim stands on. Not those that another program wrote without saying whose they
        are.
        """
        claims = 0
        still: list[Grant] = []
        for acl in self._acls():
            held = [
                member
                for member, raw in self._holders(acl)
                if any(claim[field] == value for claim in _claims(raw))
            ]
            claims += self._end(acl, field.encode(), value.encode(), held)
            still += self._claimed(acl, held)
        return Ended(claims, tuple(still))

    def grants(self, acl: str | None = None) -> list[Grant]:
        """List every claim that stands, of one ACL or of all; what ends first stands first."""
        if acl is not None:
            check_name("acl", acl)
        acls = self._acls() if acl is None else [acl.encode()]
        grants = [grant for name in acls for grant in self._standing(name)]
        return sorted(grants, key=lambda grant: (grant.acl, grant.left_ms, grant.member))

    def _end(self, acl: bytes, field: bytes, value: bytes, members: list[bytes]) -> int:
        ended = 0
        for start in range(0, len(members), _PER_CALL):
            some = members[start : start + _PER_CALL]
            command = write_end(self._keys, acl, field, value, some)
            ended += int(self._nodes.write(self._keys.grants(acl), *command))
        return ended

    def _end_all(self, acl: bytes) -> int:
        command = write_end_of_all(self._keys, acl)
        return int(self._nodes.write(self._keys.grants(acl), *command))

    def _acls(self) -> Iterator[bytes]:
        """Find every ACL that has grants, configured here or not."""
        before, after = self._keys.grants(b"|").split(b"|")
        admin = self._admin
        for key in self._nodes.scan(admin.patterns.grants(b"*"), admin.progress):
            yield key.removeprefix(before).removesuffix(after)

    def _holders(self, acl: bytes) -> Iterator[tuple[bytes, bytes]]:
        key, cursor = self._keys.grants_meta(acl), -1
        while cursor:
            cursor, found = self._nodes.run(key, "HSCAN", key, max(cursor, 0), "COUNT", _PER_CALL)
            yield from found.items()

    def _standing(self, acl: bytes) -> Iterator[Grant]:
        key = self._keys.grants(acl)
        over_ms = self._nodes.now_ms()
        members = self._nodes.run(key, "ZRANGEBYSCORE", key, f"({over_ms}", "+inf")
        return self._claimed(acl, members)

    def _claimed(self, acl: bytes, members: list[bytes]) -> Iterator[Grant]:
        """Read who claims these, and until when."""
        if not members:
            return
        key, meta, now_ms = (
            self._keys.grants(acl),
            self._keys.grants_meta(acl),
            self._nodes.now_ms(),
        )
        scores = self._nodes.run(key, "ZMSCORE", key, *members)
        raws = self._nodes.run(meta, "HMGET", meta, *members)
        for member, score, raw in zip(members, scores, raws, strict=True):
            if score is None:
                continue  # taken back meanwhile
            most_ms = int(min(float(score), MAX_INTEGER))
            for claim in _claims(raw or b""):
                ends_ms = min(_number(claim["end"], most_ms), most_ms)
                if ends_ms > now_ms:
                    yield Grant(
                        acl.decode(errors="replace"),
                        member.decode(errors="replace"),
                        _text(claim["sub"]),
                        _text(claim["by"]),
                        ends_ms,
                        ends_ms - now_ms,
                    )


def _claims(raw: bytes) -> list[dict[str, object]]:
    """Read whose a grant is; another program may have written anything, or nothing.

    As grant.lua reads it: the first claim ends when the grant does.
    """
    try:
        first = json.loads(raw)
    except (ValueError, RecursionError):
        first = None
    if not isinstance(first, dict):
        first = {}
    also = first.get("also")
    others = also[: _MAX_CLAIMS - 1] if isinstance(also, list) else []
    return [
        {**_fields(first), "end": None},
        *(_fields(one) for one in others if isinstance(one, dict) and _number(one.get("end"), 0)),
    ]


def _fields(claim: dict[str, object]) -> dict[str, object]:
    return {name: claim.get(name) for name in ("sub", "by", "end")}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object, otherwise: int) -> int:
    """Read a time in ms; in JSON it may be anything, NaN among it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return otherwise
    return int(value)
