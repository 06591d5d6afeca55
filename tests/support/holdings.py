"""What users have in Redis, put there as agents and issuers do: tokens, sessions, grants."""

import json
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any

from tokens.policy.cut import Cut
from tokens.policy.grant import write_open
from tokens.record import Keys
from tokens.token import digest, kid, mint

HOUR_MS = 3_600_000

_numbers = count()


@dataclass(frozen=True)
class Holdings:
    """Puts things under one prefix of a Redis, and looks what agents would find of them."""

    client: Any
    """Of one server or of a cluster."""
    prefix: str = "kat:"

    @property
    def keys(self) -> Keys:
        return Keys(self.prefix)

    def now_ms(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds * 1000 + micros // 1000)

    def token(self, user: str = "user1", *, is_consumed: bool = False) -> str:
        """Issue a token; a consumed one is its tombstone."""
        token = mint()
        raw = json.dumps({"v": 1, "sub": user, "acl": ["wiki"], "ttl": 60})
        value = f"consumed c0ffee.1 1 192.0.2.7 {raw}" if is_consumed else raw
        self.client.set(self.keys.token(digest(token.encode())), value, ex=60)
        return token

    def session(
        self, user: str = "user1", *, kid: str = "0123456789ab", issued_ms: int | None = None
    ) -> str:
        """Open a session, listed under its user; return its id."""
        session_id = f"{next(_numbers):043}"
        name = sha256(session_id.encode()).hexdigest()
        now_ms = self.now_ms()
        record = {
            "v": 1,
            "sub": user,
            "acl": "wiki",
            "host": "wiki.example",
            "src": "192.0.2.7",
            "iat": now_ms if issued_ms is None else issued_ms,
            "exp": now_ms + HOUR_MS,
            "kid": kid,
            "sid": name[:12],
        }
        self.client.zadd(self.keys.sub(user.encode()), {f"s:{name}": now_ms + HOUR_MS})
        self.client.set(self.keys.session(name.encode()), json.dumps(record), px=HOUR_MS)
        return session_id

    def grant(self, member: str, acl: str = "wiki", *, user: str = "user1", by: str = "a") -> None:
        """Open a grant for an hour."""
        gate, name = acl.encode(), member.encode()
        words = write_open(
            self.keys, gate, name, user=user.encode(), by=by.encode(), ttl_ms=HOUR_MS
        )
        self.client.eval(*words[1:])

    def has_token(self, token: str) -> bool:
        return bool(self.client.exists(self.keys.token(digest(token.encode()))))

    def has_session(self, session_id: str) -> bool:
        name = sha256(session_id.encode()).hexdigest()
        return bool(self.client.exists(self.keys.session(name.encode())))

    def has_grant(self, member: str, acl: str = "wiki") -> bool:
        score = self.client.zscore(self.keys.grants(acl.encode()), member)
        return score is not None and score > self.now_ms()

    def cut(self) -> Cut:
        """Read the hash as a worker does."""
        fields = [part for pair in self.client.hgetall(self.keys.cut).items() for part in pair]
        return Cut(b"", fields)

    def version(self) -> int:
        return int(self.client.hget(self.keys.cut, "v") or 0)

    def events(self) -> list[dict[str, Any]]:
        """Return all that the audit stream tells, oldest first."""
        entries = self.client.xrange(self.keys.audit)
        return [event for _, fields in entries for event in json.loads(fields[b"e"])]


def kid_of(token: str) -> str:
    return kid(digest(token.encode())).decode()


def sid_of(session_id: str) -> str:
    return sha256(session_id.encode()).hexdigest()[:12]
