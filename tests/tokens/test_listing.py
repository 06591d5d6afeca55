"""The list of what belongs to a user, on a real Redis."""

import redis

from tokens.policy.listing import list_under
from tokens.record import Keys

LIST = b"kat:sub:user1"


def test_what_is_listed_trims_what_is_over(client: redis.Redis) -> None:
    """A member is listed until its end; what had ended by now is gone; the list ends by itself."""
    client.zadd(LIST, {b"s:over": 1000, b"s:stands": 1001})
    for question in list_under(Keys(), b"user1", b"s:new", 2000, 1000):
        assert question.key == LIST
        client.execute_command(*question.head)  # type: ignore[no-untyped-call]
    assert client.zrange(LIST, 0, -1, withscores=True) == [(b"s:stands", 1001), (b"s:new", 2000)]
    assert 0 < client.ttl(LIST) <= 30 * 86_400
