"""The list of what belongs to a user: for finding it, never for deciding. Pure."""

from tokens.question import Question
from tokens.record import MAX_GRANT_TTL_S, MAX_SESSION_TTL_S, Keys

_TTL_S = b"%d" % max(MAX_SESSION_TTL_S, MAX_GRANT_TTL_S)


def list_under(
    keys: Keys, user: bytes, member: bytes, until_ms: int, now_ms: int
) -> list[Question]:
    """List a member under its user, and trim what is over there. To be asked before it stands.

    Then nothing ever stands that nobody finds.
    """
    index = keys.sub(user)
    return [
        Question(index, (b"ZADD", index, b"%d" % until_ms, member)),
        Question(index, (b"ZREMRANGEBYSCORE", index, b"-inf", b"%d" % now_ms)),
        Question(index, (b"EXPIRE", index, _TTL_S)),
    ]
